"""The axis of budgets: linear or logarithmic, with labels that leave each other room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from rich.cells import cell_len

SIZE = 8
"""Points of a label's letters."""

WIDTH, HEIGHT = 0.62 * SIZE / 72, 1.4 * SIZE / 72
"""Inches of a digit, and of a line."""

MOST_LINEAR = 50
"""Times the smallest budget up to which the largest may go before a linear axis shows the small ones as one."""

STEEP = 45
"""Degrees by which labels are turned that have no room side by side."""


def show_budgets(axes: Axes, eps: Mapping[float, str]) -> None:
    """Makes the horizontal axis one of budgets: a mark for each, and a label for each that there is room for.

    What spans several powers of ten is on a logarithmic scale, but for what lies below the smallest budget.

    Args:
        axes: In their place in the figure, with all lines.
        eps: The budgets from 0 on, in order, and how they are written.
    """
    budgets = list(eps)
    is_logarithmic = len(budgets) > 2 and budgets[-1] > MOST_LINEAR * budgets[1]
    if is_logarithmic:
        axes.set_xscale("symlog", linthresh=budgets[1], linscale=0.5)
    axes.update_datalim([(value, 0.5) for value in budgets])  # 0 too, where no line begins there
    axes.margins(x=0.03)
    axes.set_xlabel("eps, logarithmic" if is_logarithmic else "eps", fontsize=9, labelpad=2)
    places = _places(axes, budgets)
    flat = _with_room(places, [cell_len(text) * WIDTH + 0.06 for text in eps.values()])
    steep = _with_room(places, [HEIGHT / 0.7] * len(budgets))
    is_steep = len(flat) < len(budgets)
    shown = steep if is_steep else flat
    axes.set_xticks([budgets[k] for k in shown], [eps[budgets[k]] for k in shown], fontsize=SIZE)
    axes.set_xticks([value for k, value in enumerate(budgets) if k not in shown], minor=True)
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    if is_steep:
        for label in axes.get_xticklabels():
            label.set(rotation=STEEP, ha="right", rotation_mode="anchor")
        _raise(axes, 0.7 * WIDTH * max(cell_len(eps[budgets[k]]) for k in shown))


def _places(axes: Axes, budgets: Sequence[float]) -> list[float]:
    """Where the budgets lie, in inches."""
    axes.autoscale_view()
    figure = axes.get_figure()
    assert figure is not None
    return [float(axes.transData.transform((value, 0.5))[0]) / figure.dpi for value in budgets]


def _raise(axes: Axes, inches: float) -> None:
    """Makes room below."""
    figure = axes.get_figure()
    assert figure is not None
    left, bottom, width, height = axes.get_position().bounds
    up = min(inches * figure.dpi / float(figure.bbox.height), 0.4 * height)
    axes.set_position((left, bottom + up, width, height - up))


def _with_room(places: Sequence[float], widths: Sequence[float]) -> list[int]:
    """Which labels are shown: the first and the last, and of the others, from the right, those that touch none."""
    shown = sorted({0, len(places) - 1})
    for k in range(len(places) - 2, 0, -1):
        if all(abs(places[k] - places[other]) >= (widths[k] + widths[other]) / 2 for other in shown):
            shown = sorted([*shown, k])
    return shown
