"""The benchmark as a whole: its rows one after the other, kept in a file, printed as a table."""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks.all_rows import ROWS, run_row
from benchmarks.layer_rows import layer_table
from benchmarks.setting import Setting
from benchmarks.timing import Result
from lightning_modules import keep_freed_memory
from lightning_modules.results.tables import Table
from lightning_modules.running import RunError
from lightning_modules.running.arithmetic import compute_to_float32
from lightning_modules.running.folder.provenance import git_commit
from lightning_modules.whole_files import written_whole


def run_benchmark(
    names: Sequence[str], weights: str, batch_size: int, rounds: int, peers: bool, file: Path | None
) -> None:
    """Measures the rows of these names and prints what was found, with what ``file``, if any, holds of other rows.

    Raises:
        RunError: If there is no such row, a number is too small, or the file holds another machine's numbers.
    """
    if unknown := [name for name in names if name not in ROWS]:
        raise RunError(f"There is no row {unknown[0]!r} (--rows); there are {', '.join(ROWS)}.")
    if rounds < 1 or batch_size < 1:
        raise RunError("--rounds and --batch_size must be at least 1.")
    if file and file.is_dir():
        raise RunError(f"--json should be a file, but {file} is a folder.")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute_to_float32()
    setting = Setting(weights, batch_size, device)
    machine, today = describe_machine(device), f"commit {git_commit()}, {date.today()}"
    print(f"On {machine}; {today}; --rounds {rounds}.\n")
    keep_freed_memory()  # as the scripts do
    results: list[Result] = []
    measured: dict[str, str] = {}
    took: dict[str, float] = {}
    for name in names:
        start = time.perf_counter()
        results += run_row(name, setting, rounds, peers)
        took[name] = time.perf_counter() - start
        print(f"{name}: {took[name]:.0f} s", file=sys.stderr)
        if file:
            save(file, machine, rounds, today, [line for line in results if line.row == name])
    if file:
        results, measured = load(file, machine)
    print_results(results)
    print_earlier(measured, today)
    print(f"It took {sum(took.values()) / 60:.1f} minutes.")


def describe_machine(device: torch.device) -> str:
    """What it was measured on, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    threads, kind = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    on_cores = f"{threads} thread{'s' * (threads != 1)} on {os.cpu_count()} cores"
    cpu = f"{on_cores} of {model or platform.processor()}, {kind}"
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{cpu}; PyTorch {torch.__version__}"


def save(path: Path, machine: str, rounds: int, when: str, found: list[Result]) -> None:
    """Puts lines into the file, in place of those that it holds of the same rows.

    Raises:
        RunError: If the file holds another machine's numbers.
    """
    before, measured = load(path, machine)
    rows = {result.row for result in found}
    kept = [result for result in before if result.row not in rows]
    lines = sorted(kept + found, key=lambda result: ROWS.index(result.row))
    content = {
        "machine": machine,
        "rounds": rounds,
        "measured": {**measured, **dict.fromkeys(sorted(rows), when)},
        "results": [line.as_dict() for line in lines],
    }
    with written_whole(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(path: Path, machine: str) -> tuple[list[Result], dict[str, str]]:
    """The lines of the file, and at which commit and when each row was measured."""
    if not path.exists():
        return [], {}
    content = json.loads(path.read_text())
    if content["machine"] != machine:
        raise RunError(f"{path} (--json) holds numbers of {content['machine']}, not of {machine}. Name another file.")
    return [Result(**line) for line in content["results"]], content.get("measured", {})


def print_earlier(measured: dict[str, str], today: str) -> None:
    """Says which rows are of an earlier run."""
    for when in sorted(set(measured.values()) - {today}):
        rows = [row for row in ROWS if measured.get(row) == when]
        print(f"Of {when}: {', '.join(rows)}.")


def print_results(results: Sequence[Result]) -> None:
    """Prints the tables in Markdown, and what was checked."""
    apart = ("layers", "tried")
    layers, ways = ([line for line in results if line.row == name] for name in apart)
    others = [line for line in results if line.row not in apart]
    if others or not results:
        header = ["work", "against", "ours", "theirs", "ratio", "goal", ""]
        print(Table(header, _cells(others), n_left=2).markdown())
    for note in dict.fromkeys(f"{line.row}: {line.note}" for line in (*others, *ways) if line.note):
        print(f"\nchecked, {note}" if "equal" in note else f"\n{note}")
    if layers:
        print(f"\n{layer_table(layers).markdown()}\n\n{layers[-1].note}.")
    if ways:
        header = ["work", "another way", "as PyTorch does it", "the other way", "times as long"]
        print(f"\n{Table(header, [row[:5] for row in _cells(ways)], n_left=2).markdown()}")


def _cells(lines: Sequence[Result]) -> list[list[str]]:
    rows = []
    before = ""
    for line in lines:
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}" if line.unit else f"{line.ratio:.3f}"
        values = [_spread(line.ours, line.unit), _spread(line.theirs, line.unit)] if line.unit else ["", ""]
        rows.append([line.work if line.work != before else "", line.against, *values, ratio, line.goal, line.verdict])
        before = line.work
    return rows


def _spread(values: list[float], unit: str) -> str:
    if not values:
        return ""
    if unit == "s" and max(values) < 0.5:
        return _spread([1e3 * value for value in values], "ms")
    middle = f"{statistics.median(values):.2f} {unit}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.2f}–{max(values):.2f})"
