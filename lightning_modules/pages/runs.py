"""From the folder of a run to its section of a page; of a huge run to a part of it, and where the rest is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from lightning_modules.figures.saving import is_of_one_image
from lightning_modules.pages.page import Page, Section
from lightning_modules.pages.pictures import Album, in_words
from lightning_modules.pages.told import Told
from lightning_modules.results.rows.images import Row
from lightning_modules.results.rows.parts import columns_of_rows, read_rows
from lightning_modules.results.rows.stored import StoredRows
from lightning_modules.results.tables import Table

MOST_FIGURES, MOST_IMAGES, MOST_PANELS, MOST_FAILURES, MOST_ROWS = 12, 48, 16, 20, 100
MOST_BYTES = 12_000_000
"""What a section holds at the most: of each kind of image, of rows, and of embedded images together."""

STRATEGIES = "strategies"
"""The folder of a run in which the strategies lie that were found of its maps."""

SHEET = "contact_sheet"
"""How the figures begin that show on one sheet the images that a run made."""

FAILED = ["failed", "why"]
NO_ERRORS = pd.DataFrame({"path": [], "error": []}, dtype=object)


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
    return Page(section.title, section.about, sections)


def section_of_run(run: Path, commands: Sequence[str], title: str = "", about: str = "") -> Section:
    """What a run made.

    Args:
        run: Its folder.
        commands: What made it, as typed.
        title: A few words; by default the folder's name.
        about: What is to be seen; by default what the script does.
    """
    told, summary = Told.load(run), json.loads((run / "summary.json").read_text())
    settings = (run / "config.yaml").read_text()
    album, left_out = Album(MOST_BYTES), []
    paths = sorted((run / "figures").glob("[!.]*.png"))
    made = sorted((run / "images").glob("[!.]*.png"))
    of_run = [path for path in paths if not is_of_one_image(path) and not (made and path.name.startswith(SHEET))]
    of_images = [path for path in paths if is_of_one_image(path)]
    found = {}
    for name, files, most, caption in (
        ("figures of the whole run", of_run, MOST_FIGURES, None),
        ("images that were made", made, MOST_IMAGES, _captions(run, made[:MOST_IMAGES])),
        ("figures of single images", of_images, MOST_PANELS, None),
    ):
        found[name] = album.embed(files, most, caption)
        if len(found[name]) < len(files):
            left_out.append(f"Of {len(files):,} {name}, {len(found[name]):,} are shown. All lie in {files[0].parent}.")
    tables = [_bounded(table, run, left_out) for table in told.tables if list(table.header) != FAILED]
    figures, images, panels = found.values()
    return Section(
        title or run.resolve().name,
        about or told.about,
        commands,
        counts=told.counts,
        notes=told.notes,
        tables=tables,
        figures=figures,
        images=images,
        panels=panels,
        legend=told.legend,
        failures=failures_of(run, summary),
        left_out=left_out + album.unread,
        facts=facts(summary, yaml.safe_load(settings)),
        settings=settings,
    )


def _read(run: Path, names: Sequence[str]) -> pa.Table:
    """Of the rows those columns that there are; of a huge run all of them would not fit in the memory."""
    known = columns_of_rows(run / "results")
    return read_rows(run / "results", [name for name in names if name in known])


def _captions(run: Path, images: Sequence[Path]) -> Callable[[Path], tuple[str, str]]:
    """Gives a made image's name, and what the network says of it."""
    table = _read(run, ["image", "name", "seed", "variant", "prediction_name", "probability"]) if images else None
    if table is None or "image" not in table.column_names:
        return lambda path: (in_words(path), "")
    table = table.filter(pc.is_in(table["image"], pa.array([path.name for path in images])))
    rows: dict[str, Row] = {row["image"]: row for row in table.to_pylist()}
    several = {name for name in ("seed", "variant") if len({row.get(name) for row in rows.values()}) > 1}

    def caption(path: Path) -> tuple[str, str]:
        row = rows.get(path.name)
        if row is None or not row.get("name"):
            return in_words(path), ""
        title = str(row["name"]) + f", seed {row.get('seed')}" * ("seed" in several)
        title += f": {row.get('variant')}" * ("variant" in several)
        sure = f" ({row['probability']:.1%})" if row.get("probability") is not None else ""
        said = row.get("prediction_name")
        is_it = said == row["name"]
        return title, f"The network says: {said}{sure if is_it else ''}." if said else ""

    return caption


def _bounded(table: Table, run: Path, left_out: list[str]) -> Table:
    if len(table.rows) <= MOST_ROWS:
        return table
    left_out.append(f"Of a table of {len(table.rows):,} rows, {MOST_ROWS} are shown. All lie in {run}/results.")
    return Table(table.header, table.rows[:MOST_ROWS], table.title, table.n_left)


def failures_of(run: Path, summary: Mapping[str, Any]) -> list[Table]:
    """The first images that failed or of which the boxes are wrong, and why; none, where there is nothing to tell."""
    if not summary.get("n_failed") and not summary.get("n_box_errors"):
        return []
    rows = StoredRows(run / "results")
    if not {"path", "status", "error"} <= set(rows.schema.names):
        return []
    told = [
        batch.filter(pc.or_kleene(pc.equal(batch["status"], "failed"), pc.is_valid(batch["error"])))
        for batch in rows.select(["path", "error", "status"]).to_batches()
    ]
    frames = [batch.to_pandas().astype(object) for batch in told if len(batch)]
    errors = pd.concat(frames).sort_values("path", kind="stable").drop_duplicates("path") if frames else NO_ERRORS
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
