"""Times contenders side by side: in one process, in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules import keep_freed_memory

OURS = "VGG Lens"


class Contender(NamedTuple):
    """Someone who does a row's work.

    Attributes:
        name: Who, and how.
        run: Does the work once.
        units: How much of the row's work one run is; times are divided by it.
        as_found: Whether it runs as its users have it, without :func:`keep_freed_memory`, which our scripts call. Its
            ratio is told for information, so it has one turn.
    """

    name: str
    run: Callable[[], Any]
    units: float = 1.0
    as_found: bool = False


class Goal(NamedTuple):
    """What is to come out of a comparison.

    Attributes:
        against: Name of the contender.
        faster: At least so many times as fast; or None.
        at_most: At most so many times its time (or memory); or None. With neither, the ratio is only told.
    """

    against: str
    faster: float | None = None
    at_most: float | None = None


LEEWAY = 1.05
"""How many times the time of the passes that a work needs at least may be spent on it."""


def by_passes(against: str, theirs: float, ours: float) -> Goal:
    """As many times faster as ``against`` makes passes for each of ours, less what we may spend beside ours.

    A forward pass counts 1, and a backward pass to the pixels as much, since it takes as many operations. One that ends
    at the last layer with positions counts 0: it is a hundredth of that, or less.
    """
    return Goal(against, faster=round(theirs / ours / LEEWAY, 2))


@dataclass
class Result:
    """A line of the table: us against one other, in seconds unless ``unit`` says otherwise.

    Attributes:
        flops: Floating-point operations of it, where the rate is told too.
    """

    row: str
    work: str
    against: str
    ours: list[float]
    theirs: list[float]
    goal: str = ""
    ratio: float | None = None
    verdict: str = ""
    unit: str = "s"
    note: str = ""
    flops: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Row:
    """A piece of work, and who does it.

    Attributes:
        name: What ``--rows`` calls it.
        work: What is done, in words.
        contenders: For a number of images, who does the work on them; the first is :data:`OURS`.
        images: How many images there are in a run.
        goals: What is to come out, each against one of the others.
        check: Compares what they return on one image, by their names; says in words what was found equal. Whose name it
            does not read need not run.
        note: What the table should say beside.
        rounds: Most turns that each contender has, where one takes long.
    """

    name: str
    work: str
    contenders: Callable[[int], Sequence[Contender]]
    images: int
    goals: Sequence[Goal]
    check: Callable[[Any], str] | None = None
    note: str = ""
    rounds: int = 1_000


class Outputs(dict[str, Any]):
    """What contenders return, by their names; each runs when it is first read."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        super().__init__()
        self.runs = {contender.name: contender.run for contender in contenders}

    def __missing__(self, name: str) -> Any:
        self[name] = output = self.runs[name]()
        return output


def synchronize() -> None:
    """Waits for a GPU to finish; nothing on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def measure(row: Row, rounds: int) -> list[Result]:
    """Checks the outputs on one image, then takes turns for ``rounds`` rounds, or the row's, with memory that is kept.

    At the end, those that run as their users have them have one turn.
    """
    note = row.note
    outputs = Outputs(row.contenders(1))
    if torch.cuda.is_available():
        for name in outputs.runs:  # whose kernels are loaded when they are first needed
            outputs[name]
    if row.check is not None:
        note = row.check(outputs) or note
    contenders = row.contenders(row.images)
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    keep_freed_memory()
    prepared = [contender for contender in contenders if not contender.as_found]
    prepared[0].run()  # not timed: it takes the memory that is kept from then on
    for turn in range(min(rounds, row.rounds)):
        k = turn % len(prepared)  # another one begins each time
        for contender in (*prepared[k:], *prepared[:k]):
            times[contender.name].append(seconds(contender.run) / contender.units)
    keep_freed_memory(False)
    for contender in contenders:
        if contender.as_found:
            times[contender.name].append(seconds(contender.run) / contender.units)
    keep_freed_memory()
    return compare(row.name, row.work, times, row.goals, note)


def compare(
    row: str, work: str, values: dict[str, list[float]], goals: Sequence[Goal], note: str = "", unit: str = "s"
) -> list[Result]:
    """The lines of a row: our values against those of each goal's contender, by the ratio of medians."""
    ours = values[OURS]
    results = []
    for goal in goals:
        theirs = values[goal.against]
        mine, other = statistics.median(ours), statistics.median(theirs)
        result = Result(row, work, goal.against, ours, theirs, unit=unit, note=note)
        if goal.at_most is not None:
            result.ratio, result.goal = mine / other, f"≤ {goal.at_most:g} ×"
            result.verdict = "met" if result.ratio <= goal.at_most else "missed"
        else:
            result.ratio = other / mine
            if goal.faster is not None:
                result.goal = f"≥ {goal.faster:g} × faster"
                result.verdict = "met" if result.ratio >= goal.faster else "missed"
        results.append(result)
    return results


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> str:
    """That two tensors differ by at most ``tolerance`` times the largest entry; what was found, in words.

    Raises:
        AssertionError: If they differ by more.
    """
    error = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
    if not error <= tolerance:
        raise AssertionError(f"{what} differ by {error:.2g} of the largest entry, more than {tolerance:g}.")
    return f"{what} equal to {tolerance:g} of the largest entry"
