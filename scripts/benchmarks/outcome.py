"""The benchmark as a whole: its rows one after the other, kept in a file, printed as a table."""

from __future__ import annotations

import json
import logging
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.all_rows import ROWS, run_row
from benchmarks.setting import Setting
from benchmarks.timing import Result
from lightning_modules.results.tables import Table
from lightning_modules.running import RunError
from lightning_modules.running.arithmetic import compute_to_float32
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
    machine = describe_machine(device)
    results: list[Result] = []
    for name in names:
        found = run_row(name, setting, rounds, peers)
        results += found
        if file:
            save(file, machine, rounds, found)
    if file:
        machine, results = load(file, machine)
    print_results(machine, results)


def describe_machine(device: torch.device) -> str:
    """What it was measured on, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cpu = (
        f"{torch.get_num_threads()} cores of {model or platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"
    )
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{cpu}; PyTorch {torch.__version__}"


def save(path: Path, machine: str, rounds: int, found: list[Result]) -> None:
    """Puts lines into the file, in place of those that it holds of the same rows.

    Raises:
        RunError: If the file holds another machine's numbers.
    """
    _, before = load(path, machine)
    rows = {result.row for result in found}
    kept = [result for result in before if result.row not in rows]
    lines = sorted(kept + found, key=lambda result: ROWS.index(result.row))
    content = {"machine": machine, "rounds": rounds, "results": [line.as_dict() for line in lines]}
    with written_whole(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(path: Path, machine: str) -> tuple[str, list[Result]]:
    if not path.exists():
        return machine, []
    content = json.loads(path.read_text())
    if content["machine"] != machine:
        raise RunError(f"{path} (--json) holds numbers of {content['machine']}, not of {machine}. Name another file.")
    return machine, [Result(**line) for line in content["results"]]


def print_results(machine: str, results: Sequence[Result]) -> None:
    """Prints a table in Markdown, what was measured on, and what was checked."""
    rows = []
    before = ""
    for line in results:
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}" if line.unit else f"{line.ratio:.3f}"
        values = [_spread(line.ours, line.unit), _spread(line.theirs, line.unit)] if line.unit else ["", ""]
        rows.append([line.work if line.work != before else "", line.against, *values, ratio, line.goal, line.verdict])
        before = line.work
    print(Table(["work", "against", "ours", "theirs", "ratio", "goal", ""], rows, n_left=2).markdown())
    print(f"\nOn {machine}.")
    for note in dict.fromkeys(f"{line.row}: {line.note}" for line in results if line.note):
        print(f"checked, {note}" if "equal" in note else note)


def _spread(values: list[float], unit: str) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):.2f} {unit}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.2f}–{max(values):.2f})"
