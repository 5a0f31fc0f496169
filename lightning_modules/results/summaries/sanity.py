"""The verdict of the sanity check by random weights: does a method's map change when the network forgets?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from lightning_modules.errors import told_from
from lightning_modules.metrics.randomization import END, FAILING_CORRELATION, FIRST, SEEDS
from lightning_modules.results.statistics import interval_of_mean

Verdict = Literal["passes", "fails", "undecided"]


def sanity_verdict(of_method: Mapping[str, Any]) -> Verdict | None:
    """What the check says of a method: it fails if its maps stay alike after the first step, or after the last.

    A mean whose 95 % interval, over the images or over the seeds of the random weights, reaches across
    :data:`~lightning_modules.metrics.randomization.FAILING_CORRELATION` decides nothing. None without any mean.

    Args:
        of_method: Its part of a summary: ``scores`` and ``curves``.

    Example:
        >>> first, end = ({"mean": mean, "low": mean - 0.1, "high": mean + 0.1} for mean in (0.9, 0.45))
        >>> sanity_verdict({"scores": {FIRST: first, END: end}, "curves": {}})
        'fails'
        >>> sanity_verdict({"scores": {FIRST: end, END: end}, "curves": {}})
        'undecided'
    """
    of_steps = [_of_step(of_method, name) for name in (FIRST, END)]
    for verdict in ("fails", "undecided", "passes"):
        if verdict in of_steps:
            return verdict
    return None


def _of_step(of_method: Mapping[str, Any], name: str) -> Verdict | None:
    score, of_seeds = of_method["scores"].get(name), of_method["curves"].get(SEEDS[name])
    if score is None or score["mean"] is None:
        return None
    intervals = [(score["low"], score["high"])]
    if of_seeds:
        intervals.append(interval_of_mean(of_seeds))
    # A single image, or seed, has no interval.
    if all(low is not None and low > FAILING_CORRELATION for low, _ in intervals):
        return "fails"
    passes = all(high is not None and high <= FAILING_CORRELATION for _, high in intervals)
    return "passes" if passes else "undecided"


def sanity_notes(methods: Mapping[str, Any], uninformed: Collection[str] = ()) -> Iterator[str]:
    """A sentence on each method that was checked, and what the numbers are held against.

    Args:
        methods: Name -> its part of a summary.
        uninformed: Those that explain nothing, and so need no check.
    """
    methods = {name: of_method for name, of_method in methods.items() if name not in uninformed}
    words = {"fails": "fails the sanity check", "undecided": "is left undecided by the sanity check"}
    words["passes"] = "passes the sanity check"
    for method, of_method in methods.items():
        verdict = sanity_verdict(of_method)
        if verdict is None:
            continue
        curve = of_method["curves"].get("randomization_correlation_curve") or []
        yield (
            f"{method} {words[verdict]}: its maps' rank correlation with those of the trained network is "
            f"{_told(of_method, FIRST)} after the first of {len(curve)} layers has forgotten what it had learnt, "
            f"{_told(of_method, END)} after the last, and {_mean(of_method, 'randomization_correlation')} on average "
            f"over all. Maps of different images have {_mean(of_method, 'randomization_correlation_floor')}."
        )
    if any(sanity_verdict(of_method) for of_method in methods.values()):
        yield (
            f"A method fails the sanity check if the rank correlation stays above {FAILING_CORRELATION:g} after the "
            "first layer or after the last. This threshold is ours; where a 95 % interval, over the images or over "
            "the draws of random weights, reaches across it, the check is undecided."
        )


def _told(of_method: Mapping[str, Any], name: str) -> str:
    """The mean, with its interval over the images and over how many draws."""
    score, of_seeds = of_method["scores"][name], of_method["curves"].get(SEEDS[name])
    if score["mean"] is None:
        return "unknown"
    mean, low, high = (
        "?" if score[of] is None else told_from(score[of], FAILING_CORRELATION, form=".2f")
        for of in ("mean", "low", "high")
    )
    if not of_seeds:
        return f"{mean} ({low} to {high})"
    least, greatest = (told_from(of(of_seeds), FAILING_CORRELATION, form=".2f") for of in (min, max))
    return f"{mean} ({low} to {high}; {least} to {greatest} over {len(of_seeds)} draws)"


def _mean(of_method: Mapping[str, Any], name: str) -> str:
    mean = of_method["scores"].get(name, {}).get("mean")
    return "unknown" if mean is None else f"{mean:.2f}"
