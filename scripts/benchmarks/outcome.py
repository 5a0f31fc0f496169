"""The benchmark as a whole: its options, its rows one after the other, kept in a file, printed as a table."""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt

from benchmarks import attack_rows, map_rows, repeated_rows, run_rows, synthesis_rows
from benchmarks.class_images import class_images
from benchmarks.memory_row import peak_memory
from benchmarks.reading_rows import reading
from benchmarks.setting import Setting
from benchmarks.timing import Result, Row, measure
from datamodules.writing import written_whole
from lightning_modules import keep_freed_memory
from lightning_modules.results.tables import Table
from lightning_modules.running import RunError
from lightning_modules.running.arithmetic import compute_to_float32
from lightning_modules.running.folder.provenance import cpu_name, git_commit
from lightning_modules.running.parsing.parser import HelpfulParser

TIMED: dict[str, Callable[[Setting], Row]] = {
    "end_to_end": run_rows.attribution_end_to_end,
    "robustness_end_to_end": run_rows.robustness_end_to_end,
    "three_maps": map_rows.three_maps,
    "cam_family": map_rows.cam_family,
    "grad_cam": map_rows.grad_cam,
    "guided_backprop": map_rows.guided_backprop,
    "input_x_gradient": map_rows.input_x_gradient,
    "smooth_grad": repeated_rows.smooth_grad,
    "integrated_gradients": repeated_rows.integrated_gradients,
    "score_cam": repeated_rows.score_cam,
    "occlusion": repeated_rows.occlusion,
    "rise": repeated_rows.rise,
    "fgsm": attack_rows.fgsm,
    "activation_maximization": synthesis_rows.activation_maximization,
}
OTHERS: dict[str, Callable[[Setting, int], list[Result]]] = {
    "reading": reading,
    "peak_memory": lambda setting, rounds: peak_memory(setting),
    "growth": lambda setting, rounds: run_rows.growth(),
}

CLASS_IMAGES = "class_images"
"""The row that leaves images, and is measured only where it is named."""

ROWS = (*TIMED, *OTHERS, CLASS_IMAGES)


def benchmark(description: str | None, args: list[str] | None = None) -> None:
    """Parses the options, measures the rows, and prints what was found, and what ``--json`` holds of other rows.

    Raises:
        RunError: If there is no such row, a number is too small, or the file holds another machine's numbers.
    """
    parser = HelpfulParser(description=description or "")
    named = f"With commas between: {', '.join(ROWS)}; or all, which leaves out {CLASS_IMAGES}."
    parser.add_argument("--rows", type=str, default="all", help=named)
    parser.add_argument("--rounds", type=PositiveInt, default=3, help="Times that each contender has its turn.")
    parser.add_argument(
        "--batch_size", type=PositiveInt, default=8, help="Images in a batch, or as many as a row says."
    )
    parser.add_argument("--weights", type=str, default="random", help="The network: random is the full-size VGG16.")
    parser.add_argument("--peers", type=bool, default=True, help="Whether the peers run; the bare network always does.")
    parser.add_argument("--json", type=str, help="File for all numbers; what it holds of other rows is kept.")
    parser.add_argument("--network", type=str, default="vgg16", help=f"{CLASS_IMAGES}: what the images are made for.")
    parser.add_argument("--out", type=str, default="runs/class_images", help=f"{CLASS_IMAGES}: folder for the images.")
    parser.add_argument("--photos", type=str, help=f"{CLASS_IMAGES}: photos that give Horama's MACO its magnitudes.")
    options = parser.parse_args(args)
    names = [*TIMED, *OTHERS] if options.rows == "all" else options.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise RunError(f"There is no row {unknown[0]!r} (--rows); there are {', '.join(ROWS)}.")
    file = Path(options.json) if options.json else None
    if file and file.is_dir():
        raise RunError(f"--json should be a file, but {file} is a folder.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(options.weights, options.batch_size, device, options.peers)

    rows = {name: partial(run_row, name, setting, options.rounds) for name in (*TIMED, *OTHERS)}
    rows[CLASS_IMAGES] = partial(
        class_images, options.network, options.weights, Path(options.out), options.photos, device
    )
    measure_rows({name: rows[name] for name in names}, describe_machine(device), options.rounds, file)


def run_row(name: str, setting: Setting, rounds: int) -> list[Result]:
    """The lines of one row; none where the device has no use for it."""
    return OTHERS[name](setting, rounds) if name in OTHERS else measure(TIMED[name](setting), rounds)


def measure_rows(rows: Mapping[str, Callable[[], list[Result]]], machine: str, rounds: int, file: Path | None) -> None:
    """Measures rows, keeps each in the file when it is there, and prints all that the file holds then.

    Args:
        rows: Name, of :data:`ROWS` -> what measures its lines.
        machine: Where it computes.
        rounds: Times that each contender has its turn.
        file: Where the numbers are kept; None = nowhere.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    compute_to_float32()
    keep_freed_memory()  # as the scripts do
    today = f"commit {git_commit()}, {date.today()}"
    print(f"On {machine}; {today}; --rounds {rounds}.\n")
    results, measured = load(file, machine)
    start = time.perf_counter()
    for name, run in rows.items():
        before = time.perf_counter()
        lines = [line for line in results if line.row != name] + run()
        results = sorted(lines, key=lambda line: ROWS.index(line.row))
        measured[name] = today
        print(f"{name}: {time.perf_counter() - before:.0f} s", file=sys.stderr)
        if file:
            content = {"machine": machine, "measured": measured, "results": [line._asdict() for line in results]}
            with written_whole(file) as aside:
                aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print_results(results)
    for when in sorted(set(measured.values()) - {today}):
        print(f"Of {when}: {', '.join(row for row in ROWS if measured.get(row) == when)}.")
    print(f"It took {(time.perf_counter() - start) / 60:.1f} minutes.")


def describe_machine(device: torch.device) -> str:
    """What it is measured on, in a line."""
    threads, kind = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{threads} thread{'s' * (threads != 1)} on {cpu_name()}, {kind}; PyTorch {torch.__version__}"


def load(path: Path | None, machine: str) -> tuple[list[Result], dict[str, str]]:
    """The lines of the file, if there is one, and at which commit and when each row was measured."""
    if path is None or not path.exists():
        return [], {}
    content = json.loads(path.read_text())
    if content["machine"] != machine:
        raise RunError(f"{path} (--json) holds numbers of {content['machine']}, not of {machine}. Name another file.")
    return [Result(**line) for line in content["results"] if line["row"] in ROWS], content["measured"]


def print_results(results: Sequence[Result]) -> None:
    """Prints the table in Markdown, and what was checked."""
    rows, before = [], ""
    for line in results:
        values = [_spread(line.ours, line.unit), _spread(line.theirs, line.unit)]
        cells = [*values, f"{line.ratio:.2f}", line.goal, line.verdict]
        rows.append([line.work if line.work != before else "", line.against, *cells])
        before = line.work
    print(Table(["work", "against", "ours", "theirs", "ratio", "goal", ""], rows, n_left=2).markdown())
    for note in dict.fromkeys(f"{line.row}: {line.note}" for line in results if line.note):
        print(f"\nchecked, {note}" if "equal" in note else f"\n{note}")


def _spread(values: list[float], unit: str) -> str:
    if unit == "s" and max(values) < 0.5:
        return _spread([1e3 * value for value in values], "ms")
    middle = f"{statistics.median(values):.2f} {unit}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.2f}–{max(values):.2f})"
