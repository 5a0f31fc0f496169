"""From the folder of a run to its section of a page; of a huge run to a part of it, and where the rest is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from lightning_modules.figures.saving import shows_one_image
from lightning_modules.pages.page import Page, Section
from lightning_modules.pages.pictures import Album, in_words
from lightning_modules.results.report import Report
from lightning_modules.results.storage import Row, columns_of_rows, read_columns
from lightning_modules.results.tables import Table

MOST_FIGURES, MOST_IMAGES, MOST_PANELS, MOST_FAILURES, MOST_ROWS = 12, 48, 16, 20, 100
MOST_BYTES = 12_000_000
"""What a section holds at the most: of each kind of image, of rows, and of embedded images together."""

STRATEGIES, LOOKS = "strategies", "looks"
"""The folders of a run in which the strategies lie that were found of its maps, and figures of rows that were chosen.
"""

SHEET = "contact_sheet"
"""How the figures begin that show on one sheet the images that a run made."""

FAILED = ["failed", "why"]


def page_of_run(run: Path, commands: Sequence[str]) -> Page:
    """The page of a run that has come to its end.

    Args:
        run: Its folder.
        commands: What made it, as typed.
    """
    section = section_of_run(run, commands)
    sections = [dataclasses.replace(section, about="")]
    if (strategies := run / STRATEGIES / "summary.json").exists():
        command = json.loads(strategies.read_text())["command"]
        sections.append(section_of_run(strategies.parent, [command], "Strategies"))
    for look in sorted((run / LOOKS).glob("*/summary.json")):
        found = json.loads(look.read_text())
        sections.append(section_of_run(look.parent, [found["command"]], f"A look at {found['choice']}"))
    return Page(section.title, section.about, sections)


def section_of_run(run: Path, commands: Sequence[str], title: str = "", about: str = "") -> Section:
    """What a run made.

    Args:
        run: Its folder.
        commands: What made it, as typed.
        title: A few words; by default the folder's name.
        about: What is to be seen; by default what the script does.
    """
    report, summary = Report.load(run), json.loads((run / "summary.json").read_text())
    settings = (run / "config.yaml").read_text()
    album, left_out = Album(MOST_BYTES), []
    paths = sorted((run / "figures").glob("[!.]*.png"))
    made = sorted((run / "images").glob("[!.]*.png"))
    panel_files = [path for path in paths if shows_one_image(path)]
    others = [path for path in paths if path not in panel_files and not (made and path.name.startswith(SHEET))]
    found = {}
    for name, files, most, caption in (
        ("figures of the whole run", others, MOST_FIGURES, None),
        ("images that were made", made, MOST_IMAGES, _captions(run, made[:MOST_IMAGES])),
        ("figures of single images", panel_files, MOST_PANELS, None),
    ):
        found[name] = album.embed(files, most, caption)
        if len(found[name]) < len(files):
            left_out.append(f"Of {len(files):,} {name}, {len(found[name]):,} are shown. All lie in {files[0].parent}.")
    tables = [
        _bounded(table, run, left_out) for table in (*report.tables, *report.details) if list(table.header) != FAILED
    ]
    figures, images, panels = found.values()
    return Section(
        title or run.resolve().name,
        about or report.about,
        commands,
        report=dataclasses.replace(report, tables=tables),
        figures=figures,
        images=images,
        panels=panels,
        failures=failures_of(run, summary),
        left_out=left_out + album.unread,
        facts=facts(summary, yaml.safe_load(settings)),
        settings=settings,
    )


def _captions(run: Path, images: Sequence[Path]) -> Callable[[Path], tuple[str, str]]:
    """A function from a synthesized image to its name, and the network's prediction."""
    names = ["image", "name", "seed", "variant", "prediction_name", "probability"]
    known = columns_of_rows(run / "results")
    rows: dict[str, Row] = {}
    if images and "image" in known:
        chosen = pc.field("image").isin([path.name for path in images])
        table = read_columns(run / "results", [name for name in names if name in known], chosen)
        rows = {row["image"]: row for row in table.to_pylist()}
    several = {name for name in ("seed", "variant") if len({row.get(name) for row in rows.values()}) > 1}

    def caption(path: Path) -> tuple[str, str]:
        row = rows.get(path.name, {})
        if not row.get("name"):
            return in_words(path), ""
        title = str(row["name"]) + f", seed {row.get('seed')}" * ("seed" in several)
        title += f": {row.get('variant')}" * ("variant" in several)
        predicted, probability = row.get("prediction_name"), row.get("probability")
        is_sure = predicted == row["name"] and probability is not None
        return title, f"The network says: {predicted}{f' ({probability:.1%})' if is_sure else ''}." if predicted else ""

    return caption


def _bounded(table: Table, run: Path, left_out: list[str]) -> Table:
    if len(table.rows) <= MOST_ROWS:
        return table
    left_out.append(f"Of a table of {len(table.rows):,} rows, {MOST_ROWS} are shown. All lie in {run}/results.")
    return Table(table.header, table.rows[:MOST_ROWS], table.title, table.n_left)


def failures_of(run: Path, summary: Mapping[str, Any]) -> list[Table]:
    """A table of the first images that failed or have wrong boxes, and why; no table if there are none."""
    if not summary.get("n_failed") and not summary.get("n_box_errors"):
        return []
    has_error = (pc.field("status") == "failed") | pc.field("error").is_valid()
    errors = read_columns(run / "results", ["path", "error"], has_error).to_pandas()
    errors = errors.sort_values("path", kind="stable").drop_duplicates("path")
    title = f"The first {MOST_FAILURES} of {len(errors):,}; the rows have all" if len(errors) > MOST_FAILURES else ""
    first = errors[["path", "error"]].head(MOST_FAILURES).fillna("").to_numpy().tolist()
    return [Table(FAILED, first, title, n_left=2)]


def facts(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Table:
    """What made the results: network, data, seeds, machine, versions; what is not known is left out.

    Args:
        summary: Of the run, with ``produced_by``.
        config: The settings of the run.
    """
    made = summary.get("produced_by", {})
    network, data, model = made.get("network", {}), made.get("data", {}), config.get("model", {})
    named, weights = model.get("network"), model.get("weights")
    weights = "its own" if isinstance(named, str) and named.startswith("hf:") else weights
    size, resized = network.get("input_size"), network.get("resize_size")
    seeds = {name: seed for name, seed in made.get("seeds", {}).items() if seed is not None}
    versions = {name: version for name, version in made.get("versions", {}).items() if version}
    known = {
        "Network": f"{named if isinstance(named, str) else network.get('name')}, {network.get('n_classes'):,} classes"
        if network
        else None,
        "Weights": weights and f"{weights} (SHA-256 {made.get('weights_sha256', '')[:12]}…)",
        "Images": made.get("paths", {}).get("root"),
        "Images in all": f"{data['n_images']:,}" if "n_images" in data else None,
        "Boxes of objects": made.get("paths", {}).get("boxes"),
        "Pixels it sees": size and f"{size} × {size}{f', after a resize to {resized}' if resized else ''}",
        "Layer of Grad-CAM": network.get("target_layer"),
        "Seeds of random numbers": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
        "Machine": ", ".join(dict.fromkeys(made.get("devices", []))),
        "Time": f"{made['wall_time_s']:,.0f} s" if "wall_time_s" in made else None,
        "Code": made.get("git_commit"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return Table(["", ""], [[name, str(value)] for name, value in known.items() if value], n_left=2)
