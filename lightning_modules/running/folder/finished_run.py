"""A RUN that has come to its end: what it leaves then, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lightning_modules.figures.saving import figure_name, pixels_of
from lightning_modules.pages.runs import page_of_run
from lightning_modules.results.comparison.measured import Measured, measured
from lightning_modules.results.report import Report
from lightning_modules.results.storage import StoredRows, columns_of_rows, parts_of
from lightning_modules.running.folder.provenance import git_commit, versions
from lightning_modules.running.folder.run_folder import RunError, RunFolder, differences_of, write_text
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.text import plain, plain_lines

PAGE = "index.html"


@dataclass(frozen=True)
class FinishedRun:
    """What a run left.

    Attributes:
        path: Its folder.
        measured: What its rows measured.
        settings: All of them.
        inputs: What it was of: hashes of the weights, the images and the boxes.
        better: Score -> whether ``higher`` or ``lower`` is better, where the run says it.
        report: Its report.
        network: What is known of its network, as far as the summary says it.
    """

    path: Path
    measured: Measured
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    better: Mapping[str, str]
    report: Report
    network: Mapping[str, Any]

    def picture(self, path: str) -> np.ndarray | None:
        """The figure of an image, uint8 ``(H, W, 3)``; None where there is none, or several may be it."""
        ending = figure_name(0, path)[5:]
        named = [file for file in (self.path / "figures").glob("[0-9]*.png") if file.stem[5:] == ending]
        return pixels_of(named[0]) if len(named) == 1 else None


def leave_what_was_found(
    run: RunFolder, summary: Mapping[str, Any], report: Report, produced_by: Mapping[str, Any], page: bool
) -> None:
    """Writes ``summary.json``, ``report.json`` and the page, which is kept true where there is one already.

    Args:
        run: The folder.
        summary: Of all rows.
        report: Of the summary.
        produced_by: What produced the rows, beside the code.
        page: Whether a page is asked for.
    """
    produced_by = {**produced_by, "git_commit": git_commit(), "versions": versions()}
    whole = {**summary, "produced_by": produced_by}
    # The list of all classes is long, and comes last for those who read the file.
    whole = dict(sorted(whole.items(), key=lambda item: item[0] == "classes"))
    write_text(run.path / "summary.json", json.dumps(whole, indent=2) + "\n")
    report.save(run.path)
    if page or (run.path / PAGE).exists():
        page_of_run(run.path, run.commands()).write(run.path / PAGE)


def leave_beside(run: Path, out: Path, what: str, report: Report, summary: Mapping[str, Any], settings: str) -> None:
    """Writes what was found of a run afterwards, into a folder of its own in it, keeps its page true, and prints it.

    Args:
        run: The folder of the run.
        out: That of what was found.
        what: It is, in words.
        report: The report of it.
        summary: Of it.
        settings: How it was found.
    """
    report.save(out)
    write_text(out / "config.yaml", settings)
    write_text(out / "summary.json", json.dumps(dict(summary), indent=2) + "\n")
    page_of_run(run, RunFolder(run).commands()).write(run / PAGE)
    show_what_was_found(report, what, out)
    print(plain(f"Hand it on: {run / PAGE}"))


def show_what_was_found(report: Report, what: str, out: Path | None) -> None:
    """Prints the tables, what stands out, how many images there were, and where to look."""
    report.show()
    if out is not None:
        print(plain_lines(f"{what}: {out}\nLook at it: tensorboard --logdir {out}"))
        if (out / PAGE).exists():
            print(plain(f"Hand it on: {out / PAGE}"))


def run_report(*, description: str | None, args: list[str] | None = None) -> int:
    """Makes the page of each run that is named, wherever it lies now, from what it left; returns the exit code.

    Args:
        description: What help says first.
        args: The options; None = those of the command line.
    """
    parser = HelpfulParser(description=description or "", usage="%(prog)s RUN [RUN ...]")
    parser.add_argument("runs", nargs="+", type=str, help="Folders of runs that have come to their end.")
    for run in [Path(run).expanduser() for run in parser.parse_args(args).runs]:
        read_summary(run)
        page_of_run(run, RunFolder(run).commands()).write(run / PAGE)
        print(plain(f"Hand it on: {run / PAGE}"))
    return 0


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a run that has come to its end."""
    if not (path / "sessions.json").exists():
        raise RunError(f"{path} is no RUN: name what an evaluation or a comparison had as --out.")
    RunFolder(path).refuse_other_version()
    sessions = json.loads((path / "sessions.json").read_text())
    if not (path / "summary.json").exists() or "ended" not in sessions[-1]:
        raise RunError(f"The run in {path} has not come to its end. Its command, typed again, goes on with it.")
    return json.loads((path / "summary.json").read_text())


def read_finished_run(path: Path, name: str) -> FinishedRun:
    """Reads what a run left.

    Args:
        path: Its folder.
        name: What it is called.

    Raises:
        RunError: If it is none of an evaluation, is of another version, or has not come to its end.
    """
    if not parts_of(path / "results"):
        raise RunError(f"{path} is no RUN with rows: name what an evaluation had as --out.")
    summary = read_summary(path)
    # Lists, such as curves, are not compared, and may be most of the bytes.
    rows = StoredRows(path / "results", columns_of_rows(path / "results", lists=False))
    of_network = summary.get("produced_by", {}).get("network", {})
    return FinishedRun(
        path,
        measured(rows, name, of_network.get("n_classes")),
        yaml.safe_load((path / "config.yaml").read_text()),
        json.loads((path / "inputs.json").read_text()),
        summary.get("better", {}),
        Report.load(path),
        of_network,
    )


def refuse_other_measures(first: FinishedRun, second: FinishedRun) -> None:
    """Asks that what two runs call by the same names is the same: images of one size, metrics of the same options.

    Raises:
        RunError: If it is not.
    """
    names = f"{first.path} and {second.path}"
    images = [run.inputs.get("data", {}) for run in (first, second)]
    has_the_same_names = images[0].get("sha256") is not None and images[0]["sha256"] == images[1].get("sha256")
    if has_the_same_names and images[0].get("sizes_sha256") != images[1].get("sizes_sha256"):
        raise RunError(f"{names} are of other images: their names are the same, but not the sizes of their files.")
    metrics = [_metrics(run.settings) for run in (first, second)]
    for name in metrics[0].keys() & metrics[1].keys():
        for option, one, other in differences_of(metrics[0][name], metrics[1][name]):
            if not option.startswith("max_batch"):
                raise RunError(
                    f"{names} have scores of other options: model.metrics {name}: {option} is {one!r} and {other!r}."
                )


def _metrics(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics by the names of their classes, with their options."""
    named = settings.get("model", {}).get("metrics") or []
    return {each["class_path"].rpartition(".")[2]: each.get("init_args", {}) for each in named if "class_path" in each}


def other_settings(first: FinishedRun, second: FinishedRun) -> list[str]:
    """What else differs between two runs, in sentences: settings that may decide numbers, and the boxes."""
    found = []
    for name, one, other in differences_of(first.settings, second.settings):
        if name.startswith(("model.", "data.", "trainer.precision")) and name != "model.n_figures":
            found.append(f"{name} is {_brief(one)} and {_brief(other)}")
    layers = [run.network.get("target_layer") for run in (first, second)]
    if layers[0] != layers[1]:
        found.append(f"CAMs look by default at the layer {layers[0]} and {layers[1]}")
    hashes = [run.inputs.get("data", {}).get("boxes_sha256") for run in (first, second)]
    if hashes[0] != hashes[1]:
        found.append("the boxes are not the same")
    names = f"{first.measured.name} and {second.measured.name}"
    return [f"Settings that differ between {names}: {'; '.join(found)}."] if found else []


def _brief(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
