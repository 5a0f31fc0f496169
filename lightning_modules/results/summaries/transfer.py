"""What else attacked images fool: the network itself once they are 8 bits, and other networks; of it a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_modules.results.storage import Rows
from lightning_modules.results.summaries.robustness import Sweep
from lightning_modules.results.summaries.verdicts import judges_in, verdict_columns


def with_transfer(summary: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """The summary of a robustness run with, for each budget, what else its images fool, where rows tell it.

    ``success_rate_rounded`` is over the same images as ``attack_success_rate``. Of each victim ``success_rate`` is over
    the ``n`` images that it was right about when they were clean (unlabelled ones: all) and could be fooled. Each has
    its 95 % interval, and counts an image from the smallest budget on at which it was fooled.

    Args:
        summary: See :func:`~lightning_modules.results.summaries.robustness.summarize_robustness`.
        rows: Those of the run.
    """
    victims = judges_in(rows.schema.names, "victim")
    if "success_rounded" not in rows.schema.names and not victims:
        return summary
    of = Sweep(rows)
    sweep = [{**at, "intervals": dict(at["intervals"])} for at in summary["sweep"]]
    if "success_rounded" in rows.schema.names:
        # Where the network itself was wrong from the start, nothing was to be fooled.
        success = np.where((of["top1"][:, 0] == 0)[:, None], np.nan, of.ever("success_rounded"))
        for k, at in enumerate(sweep, start=1):
            rate = of.rate(success[:, k])
            at["success_rate_rounded"] = rate["mean"]
            at["intervals"]["success_rate_rounded"] = [rate["low"], rate["high"]]
    for victim in victims:
        success = of.ever(verdict_columns(victim, "victim")["success"])
        for k, at in enumerate(sweep, start=1):
            rate = of.rate(success[:, k])
            rate["success_rate"] = rate.pop("mean")
            at.setdefault("victims", {})[victim] = rate
    return {**summary, "sweep": sweep}


def transfer_rates(at_budget: Mapping[str, Any]) -> dict[str, float | None]:
    """What else the images of a budget fool, in words, and how often; from an entry of the sweep.

    Example:
        >>> transfer_rates({"success_rate_rounded": 0.5, "victims": {"resnet18": {"success_rate": 0.25, "n": 8}}})
        {'in 8 bits': 0.5, 'on resnet18': 0.25}
    """
    rates = {"in 8 bits": at_budget["success_rate_rounded"]} if "success_rate_rounded" in at_budget else {}
    return rates | {f"on {victim}": of["success_rate"] for victim, of in at_budget.get("victims", {}).items()}


def transfer_intervals(at_budget: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The ``low`` and ``high`` ends of the 95 % intervals of :func:`transfer_rates`, by the same words."""
    low, high = at_budget.get("intervals", {}).get("success_rate_rounded", (None, None))
    victims = at_budget.get("victims", {}).items()
    ends = {f"on {victim}": {end: of.get(end) for end in ("low", "high")} for victim, of in victims}
    return {"in 8 bits": {"low": low, "high": high}} | ends


def notes_of_victims(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
    """Over how many images each victim's success is."""
    return [
        f"Of the clean images {victim} was right about {of['n']:,}; its success is over those."
        for victim, of in (sweep[0].get("victims", {}) if sweep else {}).items()
    ]
