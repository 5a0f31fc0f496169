"""The verdict of the sanity check by random weights: does a method's map change when the network forgets?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from lightning_modules.errors import told_from
from lightning_modules.metrics.randomization import END, FAILING_CORRELATION, FIRST, SEEDS
from lightning_modules.results.statistics import interval_of_mean

Verdict = Literal["passes", "fails", "undecided"]

WORDS = {
    "fails": "fails the sanity check",
    "undecided": "is left undecided by the sanity check",
    "passes": "passes the sanity check",
}


def sanity_verdict(numbers: Mapping[str, Any]) -> Verdict | None:
    """The verdict on a method: it fails if its maps stay alike after the first step, or after the last.

    A mean whose 95 % interval, over the images or over the seeds of the random weights, reaches across
    :data:`~lightning_modules.metrics.randomization.FAILING_CORRELATION` decides nothing. None without any mean.

    Args:
        numbers: The method's part of a summary: ``scores`` and ``curves``.

    Example:
        >>> first, end = ({"mean": mean, "low": mean - 0.1, "high": mean + 0.1} for mean in (0.9, 0.45))
        >>> sanity_verdict({"scores": {FIRST: first, END: end}, "curves": {}})
        'fails'
        >>> sanity_verdict({"scores": {FIRST: end, END: end}, "curves": {}})
        'undecided'
    """
    steps = [_verdict_of_step(numbers, name) for name in (FIRST, END)]
    verdicts: tuple[Verdict, ...] = ("fails", "undecided", "passes")
    return next((verdict for verdict in verdicts if verdict in steps), None)


def _verdict_of_step(numbers: Mapping[str, Any], name: str) -> Verdict | None:
    score, by_seed = numbers["scores"].get(name), numbers["curves"].get(SEEDS[name])
    if score is None or score["mean"] is None:
        return None
    intervals = [(score["low"], score["high"])]
    if by_seed:
        intervals.append(interval_of_mean(by_seed))
    # A single image, or seed, has no interval.
    if all(low is not None and low > FAILING_CORRELATION for low, _ in intervals):
        return "fails"
    passes = all(high is not None and high <= FAILING_CORRELATION for _, high in intervals)
    return "passes" if passes else "undecided"


def sanity_notes(methods: Mapping[str, Any], uninformed: Collection[str] = ()) -> Iterator[str]:
    """A sentence on each method that was checked, and one on the threshold.

    Args:
        methods: Name -> its part of a summary.
        uninformed: Methods that explain nothing, and so need no check.
    """
    verdicts = {name: sanity_verdict(numbers) for name, numbers in methods.items() if name not in uninformed}
    checked = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    for name, verdict in checked.items():
        numbers = methods[name]
        curve = numbers["curves"].get("randomization_correlation_curve") or []
        yield (
            f"{name} {WORDS[verdict]}: its maps' rank correlation with those of the trained network is "
            f"{_mean_with_interval(numbers, FIRST)} after the first of {len(curve)} layers has forgotten what it had "
            f"learnt, {_mean_with_interval(numbers, END)} after the last, and "
            f"{_mean(numbers, 'randomization_correlation')} on average over all. Maps of different images have "
            f"{_mean(numbers, 'randomization_correlation_floor')}."
        )
    if checked:
        yield (
            f"A method fails the sanity check if the rank correlation stays above {FAILING_CORRELATION:g} after the "
            "first layer or after the last. This threshold is ours; where a 95 % interval, over the images or over "
            "the draws of random weights, reaches across it, the check is undecided."
        )


def _mean_with_interval(numbers: Mapping[str, Any], name: str) -> str:
    """The mean, with its interval over the images and its range over the draws."""
    score, by_seed = numbers["scores"][name], numbers["curves"].get(SEEDS[name])
    if score["mean"] is None:
        return "unknown"
    mean, low, high = ("?" if score[part] is None else _exact(score[part]) for part in ("mean", "low", "high"))
    draws = f"; {_exact(min(by_seed))} to {_exact(max(by_seed))} over {len(by_seed)} draws" if by_seed else ""
    return f"{mean} ({low} to {high}{draws})"


def _exact(value: float) -> str:
    """A number with enough digits to be told from the threshold."""
    return told_from(value, FAILING_CORRELATION, form=".2f")


def _mean(numbers: Mapping[str, Any], name: str) -> str:
    mean = numbers["scores"].get(name, {}).get("mean")
    return "unknown" if mean is None else f"{mean:.2f}"
