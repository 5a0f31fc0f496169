"""Runs that were made are compared on the command line: pairs of rows, and a RUN of what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from lightning_modules.figures.comparison import differences_figure, pictures_below_each_other
from lightning_modules.figures.saving import figure_name, save_figure
from lightning_modules.results.comparison.differences import (
    EVERY,
    Changed,
    most_changed,
    report_comparisons,
    score_to_rank_by,
    summarize_comparisons,
    table_of_changed,
)
from lightning_modules.results.comparison.measured import FLAGS, Measured
from lightning_modules.results.comparison.pairing import Pairs, pairs_of
from lightning_modules.results.report import Report, first_paragraph, flat_settings
from lightning_modules.running.cli import as_typed
from lightning_modules.running.folder.board import Board
from lightning_modules.running.folder.finished_run import (
    FinishedRun,
    leave_what_was_found,
    other_settings,
    read_finished_run,
    refuse_other_measures,
    show_what_was_found,
)
from lightning_modules.running.folder.run_folder import RunError, RunFolder
from lightning_modules.running.parsing.parser import HelpfulParser


class Compared(NamedTuple):
    """A run beside the first one.

    Attributes:
        first: The run that it is compared with.
        second: The run.
        pairs: Their pairs.
        score: By which images are ranked.
        changed: The images of which it changed most.
    """

    first: FinishedRun
    second: FinishedRun
    pairs: Pairs
    score: str
    changed: Sequence[Changed]

    def pictures(self, path: str) -> dict[str, Any] | None:
        """The figures of an image in both runs, or in the one that there is; None where one has none."""
        runs = {self.pairs.first.name: self.first, self.pairs.second.name: self.second}
        if self.first is self.second:  # whose figure shows both methods
            runs = {self.first.measured.name: self.first}
        found = {name: run.picture(path) for name, run in runs.items()}
        return None if any(pixels is None for pixels in found.values()) else found


def run_comparison(*, description: str | None, args: list[str] | None = None) -> int:
    """Parses the options, compares runs with the first of them, and prints what came out; returns the exit code.

    Args:
        description: What help says first.
        args: The options; None = those of the command line.
    """
    parser = _parser(description or "")
    options = parser.parse_args(args)
    compared = _compare(options)
    summary = summarize_comparisons([each.pairs for each in compared])
    details = [table for each in compared for table in table_of_changed(each.pairs, each.score, each.changed)]
    report = report_comparisons(summary, details, compared[0].first.report.legend, _missing_figures(compared))
    report = replace(report, about=first_paragraph(description or ""))
    out = None if options.out is None else Path(options.out).expanduser()
    if out is not None:
        command = as_typed(["python", sys.argv[0], *(sys.argv[1:] if args is None else args)])
        _write(RunFolder(out), compared, summary, report, command, options, parser)
    show_what_was_found(report, "Summary, figures", out)
    return 0


def _parser(description: str) -> HelpfulParser:
    parser = HelpfulParser(description=description, usage="%(prog)s RUN [RUN ...] [options]")
    parser.add_argument("runs", nargs="+", type=str, help="Folders of runs; the others are compared with the first.")
    parser.add_argument(
        "--methods",
        nargs=2,
        type=str,
        help="Two methods, as tables name them: the second one's maps, in each further RUN or else in the only one, "
        "are compared with the first one's in the first RUN.",
    )
    parser.add_argument(
        "--common",
        action="store_true",
        help="Compare the images, methods, budgets and scores that both have; what is left out is told.",
    )
    parser.add_argument("--score", type=str, help="Score by which images are ranked. null = the first number.")
    parser.add_argument("--n_images", type=NonNegativeInt, default=8, help="Images to show that changed most.")
    parser.add_argument("--out", type=str, help="Folder for figures, TensorBoard, summary and page. null = none.")
    parser.add_argument("--overwrite", action="store_true", help="Delete what an earlier run left in OUT first.")
    return parser


def _compare(options: Namespace) -> list[Compared]:
    """Each further run beside the first one, or the only one beside itself, by two of its methods."""
    paths = [Path(run).expanduser() for run in options.runs]
    if len(paths) < 2 and not options.methods:
        raise RunError("One RUN alone is compared with nothing: name another, or two of its --methods.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunError("A RUN is named twice. Two methods of one RUN are compared by --methods, and the RUN once.")
    runs = [read_finished_run(path, name) for path, name in zip(paths, _names(paths))]
    first = runs[0]
    found = []
    for second in runs[1:] or runs:
        refuse_other_measures(first, second)
        pairs = pairs_of(*_chosen(first, second, options.methods), common=options.common)
        pairs = replace(pairs, notes=[*pairs.notes, *other_settings(first, second)])
        score = score_to_rank_by(pairs, options.score)
        found.append(Compared(first, second, pairs, score, most_changed(pairs, score, options.n_images)))
    return found


def _chosen(first: FinishedRun, second: FinishedRun, methods: Sequence[str] | None) -> tuple[Measured, Measured]:
    """What is compared of two runs, or of a run with itself: all, or a method of each."""
    if not methods:
        return first.measured, second.measured
    is_one = first is second
    of_first, of_second = (
        run.measured.of_method(method, method if is_one else f"{method} in {run.measured.name}", with_images=not is_one)
        for run, method in zip((first, second), methods)
    )
    return of_first, of_second


def _names(paths: Sequence[Path]) -> list[str]:
    """What runs are called: as their folders are, or by their paths where that is not enough."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(paths) else [str(path) for path in paths]


def _missing_figures(compared: Sequence[Compared]) -> list[str]:
    """That images which changed most have no figure, or only one of both runs has."""
    paths = [(each, changed.path) for each in compared for changed in each.changed]
    n = sum(each.pictures(path) is None for each, path in paths)
    if not n:
        return []
    return [
        f"Of the {len(paths):,} images that changed most, {n:,} {'have' if n > 1 else 'has'} no figure to be shown: a "
        "run draws those of its first --model.n_figures images."
    ]


def _write(
    folder: RunFolder,
    compared: Sequence[Compared],
    summary: Mapping[str, Any],
    report: Report,
    command: str,
    options: Namespace,
    parser: HelpfulParser,
) -> None:
    """Leaves what came out as a RUN: summary, figures, TensorBoard, page."""
    runs = [compared[0].first.path, *(each.second.path for each in compared)]
    if folder.path.resolve() in [run.resolve() for run in runs] or folder.has_rows():
        raise RunError(f"--out {folder.path} holds the rows of another run. Give the comparison a folder of its own.")
    folder.lock()
    try:
        kept = options.clone()
        kept.pop("overwrite")
        settings = parser.dump(kept, skip_validation=True)
        folder.settle("config.yaml", settings, fixed=folder.is_run() and not options.overwrite)
        # All is computed anew, in seconds.
        folder.clear(runs)
        folder.settle("config.yaml", settings, fixed=False)
        folder.begin_session(command)
        out = folder.path
        _save_figures(compared, summary, out)
        board = Board(out / "tensorboard", out / "figures")
        board.show_figures()
        board.show_report(report, command, flat_settings(yaml.safe_load(settings)))
        board.close()
        folder.end_session()
        produced_by = {"runs": [str(run.resolve()) for run in runs]}
        leave_what_was_found(folder, summary, report, produced_by, page=True)
    finally:
        folder.unlock()


def _save_figures(compared: Sequence[Compared], summary: Mapping[str, Any], out: Path) -> None:
    """The differences of all runs, and the figures of the images that changed most, of both runs."""
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for run, of in summary["comparisons"].items():
        for score in of["scores"]:
            if score["n"]:
                name = _title(score["score"], compared[0].first.better)
                group = f"eps {score['group']}" if summary["kind"] == "eps" else score["group"] or EVERY
                panels.setdefault(name, {}).setdefault(group, {})[run] = score
    n = "-".join(f"{n:,}" for n in sorted({of["n_images"] for of in summary["comparisons"].values()}))
    only = next(iter(summary["comparisons"])) if len(summary["comparisons"]) == 1 else "each run"
    title = f"{only} less {summary['first']}: mean difference and 95 % interval, {n} images"
    save_figure(differences_figure(panels, list(summary["comparisons"]), title), out / "figures", "differences")
    number = 0
    for each in compared:
        for changed in each.changed:
            if (pictures := each.pictures(changed.path)) is not None:
                group = f" of {changed.group}" if changed.group else ""
                figure = pictures_below_each_other(
                    pictures,
                    changed.path,
                    f"{FLAGS.get(each.score, each.score)}{group}: {changed.first:.3f} in {each.pairs.first.name}, "
                    f"{changed.second:.3f} in {each.pairs.second.name} ({changed.second - changed.first:+.3f})",
                )
                save_figure(figure, out / "figures", figure_name(number, changed.path))
                number += 1


def _title(score: str, better: Mapping[str, str]) -> str:
    """What stands above a score's panel; whether more is better, where that is known."""
    name = FLAGS.get(score, score.replace("_", " "))
    known = {"top1": "higher", "top5": "higher", **better}
    return f"{name}\n({known[score]} is better)" if score in known else name
