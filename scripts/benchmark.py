"""Times VGG Lens against its peers, side by side in one process, on full-size VGG16 (random weights) and equal inputs.

Each row's outputs are checked to be equal before anything is timed. The rows take turns, ours, theirs and the bare
network, so that whatever slows the machine slows all. Medians, the spread in brackets, ratios of medians.
"""

from __future__ import annotations

import json
import logging
import platform
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmarks.attack_rows import fgsm
from benchmarks.limit_rows import bare_network, smooth_grad_on_gpu
from benchmarks.map_rows import EMULATED, grad_cam, guided_backprop, smooth_grad, three_maps, three_maps_bf16
from benchmarks.run_rows import bf16_accuracy, end_to_end, peak_memory, sustained
from benchmarks.score_rows import insertion_deletion
from benchmarks.setting import Setting
from benchmarks.synthesis_rows import activation_maximization
from benchmarks.timing import Result, Row, measure
from jsonargparse import ArgumentParser
from rich import box
from rich.console import Console
from rich.table import Table

from lightning_modules.running.cli import RunError, run_main

TIMED: dict[str, Callable[[Setting, bool], Row]] = {
    "end_to_end": end_to_end,  # before the others have left memory that its workers would share
    "three_maps": three_maps,
    "three_maps_bf16": three_maps_bf16,
    "grad_cam": grad_cam,
    "guided_backprop": guided_backprop,
    "smooth_grad": smooth_grad,
    "smooth_grad_bf16": partial(smooth_grad, bf16=True),
    "fgsm": fgsm,
    "activation_maximization": activation_maximization,
    "insertion_deletion": insertion_deletion,
}
ROWS = ("limit", *TIMED, "peak_memory", "sustained", "bf16_accuracy", "gpu")


def main(args: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=str, default="all", help=f"With commas between: {', '.join(ROWS)}; or none.")
    parser.add_argument("--rounds", type=int, default=3, help="Times that each contender has its turn.")
    parser.add_argument("--batch_size", type=int, default=8, help="Images in a batch, where a row does not say fewer.")
    parser.add_argument("--weights", type=str, default="random", help="The network: random is the full-size VGG16.")
    parser.add_argument("--peers", type=bool, default=True, help="Whether the peers run; the bare network always does.")
    parser.add_argument("--json", type=str, help="File for all numbers; what it holds of other rows is kept.")
    options = parser.parse_args(args)
    names = {"all": list(ROWS), "none": []}.get(options.rows, options.rows.split(","))
    if unknown := [name for name in names if name not in ROWS]:
        raise RunError(f"There is no row {unknown[0]!r} (--rows); there are {', '.join(ROWS)}.")
    if options.rounds < 1 or options.batch_size < 1:
        raise RunError("--rounds and --batch_size must be at least 1.")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False
    setting = Setting(options.weights, options.batch_size, device)
    machine = describe_machine(device)
    results: list[Result] = []
    for name in names:
        found = run_row(name, setting, options.rounds, options.peers)
        results += found
        if options.json:
            save(Path(options.json), machine, options.rounds, found)
    if options.json:
        machine, results = load(Path(options.json), machine)
    print_table(machine, results)


def run_row(name: str, setting: Setting, rounds: int, peers: bool) -> list[Result]:
    """The lines of one row; none where the device has no use for it."""
    if name == "limit":
        return bare_network(setting, rounds)
    if name == "gpu":
        return smooth_grad_on_gpu(setting, rounds) if setting.device.type == "cuda" else []
    if name == "sustained":
        return sustained()
    if name == "peak_memory":
        return peak_memory(peers)
    if name == "bf16_accuracy":
        return bf16_accuracy(setting)
    emulated = name.endswith("bf16") and not setting.has_fast_bf16()
    row = TIMED[name](setting, peers)
    if emulated and name == "smooth_grad_bf16":
        return [
            Result(name, row.work, goal.against, [], [], verdict="not measured", note=EMULATED) for goal in row.goals
        ]
    return measure(row, 1 if emulated else rounds)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(path: Path, machine: str) -> tuple[str, list[Result]]:
    if not path.exists():
        return machine, []
    content = json.loads(path.read_text())
    if content["machine"] != machine:
        raise RunError(f"{path} (--json) holds numbers of {content['machine']}, not of {machine}. Name another file.")
    return machine, [Result(**line) for line in content["results"]]


def print_table(machine: str, results: list[Result]) -> None:
    """Prints a table, which is Markdown too, what was measured on, and what was checked."""
    table = Table(box=box.MARKDOWN)
    for name in ("work", "against"):
        table.add_column(name)
    for name in ("ours", "theirs", "ratio", "goal", ""):
        table.add_column(name, justify="right")
    before = ""
    for line in results:
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}" if line.unit else f"{line.ratio:.3f}"
        values = [_spread(line.ours, line.unit), _spread(line.theirs, line.unit)] if line.unit else ["", ""]
        table.add_row(line.work if line.work != before else "", line.against, *values, ratio, line.goal, line.verdict)
        before = line.work
    console = Console()
    console = console if console.is_terminal else Console(width=260)
    console.print(table)
    console.print(f"\nOn {machine}.")
    for note in dict.fromkeys(f"{line.row}: {line.note}" for line in results if line.note):
        console.print(f"checked, {note}" if "equal" in note else note)


def _spread(values: list[float], unit: str) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):.2f} {unit}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    run_main(main)
