"""Times contenders side by side: in one process, in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules import keep_freed_memory

OURS = "VGG Lens"

LEEWAY = 1.05
"""How many times the time of the passes that a work needs at least may be spent on it."""


class Goal(NamedTuple):
    """What is to come out of a comparison.

    Attributes:
        against: Name of the other contender.
        faster: At least so many times as fast; or None.
        at_most: At most so many times its time (or memory); or None. With neither, the ratio is for information.
    """

    against: str
    faster: float | None = None
    at_most: float | None = None


def by_passes(against: str, theirs: float, ours: float) -> Goal:
    """As many times faster as ``against`` makes passes for each of ours, less what we may spend beside ours.

    A forward pass counts 1, and a backward pass to the pixels as much, since it takes as many operations. One that ends
    at the last layer with positions counts 0: it is a hundredth of that, or less.
    """
    return Goal(against, faster=round(theirs / ours / LEEWAY, 2))


class Result(NamedTuple):
    """A line of the table: us against one other, in seconds unless ``unit`` says otherwise."""

    row: str
    work: str
    against: str
    ours: list[float]
    theirs: list[float]
    ratio: float
    goal: str = ""
    verdict: str = ""
    unit: str = "s"
    note: str = ""


class Contender(NamedTuple):
    """Someone who does a row's work, once in each call, and what is to come out against them; of us, nothing.

    As its users have it (``as_found``) a peer runs without :func:`keep_freed_memory`, which our scripts call. Its ratio
    is for information, so it has one turn.
    """

    goal: Goal
    run: Callable[[], Any]
    as_found: bool = False


class Row(NamedTuple):
    """A piece of work, and who does it.

    Attributes:
        name: What ``--rows`` calls it.
        work: What is done, in words.
        contenders: Who does it; the first is :data:`OURS`.
        check: Compares what they give; says in words what was found equal.
        units: How much of the work one call does; times are divided by it.
        rounds: Most turns that each contender has, where one takes long.
    """

    name: str
    work: str
    contenders: Sequence[Contender]
    check: Callable[[], str] | None = None
    units: float = 1.0
    rounds: int = 1_000


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes, and a GPU's part of it."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def measure(row: Row, rounds: int) -> list[Result]:
    """Checks the outputs, then takes turns for ``rounds`` rounds, or the row's, with memory that is kept.

    At the end, those that run as their users have them have one turn.
    """
    note = row.check() if row.check else ""
    times: dict[str, list[float]] = {contender.goal.against: [] for contender in row.contenders}
    prepared = [contender for contender in row.contenders if not contender.as_found]
    found = [contender for contender in row.contenders if contender.as_found]
    keep_freed_memory()
    # Not timed: it takes the memory that is kept from then on. A GPU loads kernels when they are first used.
    for contender in row.contenders if torch.cuda.is_available() else prepared[:1]:
        contender.run()
    for turn in range(min(rounds, row.rounds)):
        k = turn % len(prepared)  # another one begins each time
        for contender in (*prepared[k:], *prepared[:k]):
            times[contender.goal.against].append(seconds(contender.run) / row.units)
    keep_freed_memory(False)
    for contender in found:
        times[contender.goal.against].append(seconds(contender.run) / row.units)
    keep_freed_memory()
    return compare(row.name, row.work, times, [contender.goal for contender in row.contenders[1:]], note)


def compare(
    row: str, work: str, values: Mapping[str, list[float]], goals: Sequence[Goal], note: str = "", unit: str = "s"
) -> list[Result]:
    """The lines of a row: our values against those of each goal's contender, by the ratio of medians."""
    results = []
    for goal in goals:
        ours, theirs = (statistics.median(values[name]) for name in (OURS, goal.against))
        ratio, text, is_met = theirs / ours, "", None
        if goal.at_most is not None:
            ratio, text = ours / theirs, f"≤ {goal.at_most:g} ×"
            is_met = ratio <= goal.at_most
        elif goal.faster is not None:
            text, is_met = f"≥ {goal.faster:g} × faster", ratio >= goal.faster
        verdict = "" if is_met is None else "met" if is_met else "missed"
        both = values[OURS], values[goal.against]
        results.append(Result(row, work, goal.against, *both, ratio, text, verdict, unit, note))
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
