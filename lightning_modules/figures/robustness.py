"""Figures of attacks: an attacked image, and accuracy over the budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.cells import cell_len
from torch import Tensor

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.figures.style import (
    COLORS,
    ScaledMap,
    heading,
    in_legend,
    percentile,
    plain_text,
    shorten,
    show_overlay,
    wrap_name,
)

FIRST_COLOR, SECOND_COLOR, THIRD_COLOR = COLORS[:3]


class Panel(NamedTuple):
    """An image with what the network says of it: pixels ``(3, H, W)`` in [0, 1], class name, probability."""

    pixels: Tensor
    prediction: str
    probability: float


@plain_text
def robustness_figure(
    clean: Panel,
    adversarial: Panel,
    along: tuple[Sequence[float], Mapping[str, Sequence[float]]],
    maps: Mapping[str, tuple[Tensor, Tensor]],
    similarities: Mapping[str, tuple[float | None, float | None]],
    *,
    eps: float,
    sweep: Sequence[float],
    title: str,
    subtitle: str,
) -> Figure:
    """The image, the amplified perturbation and the adversarial image; below, probabilities along the way; beside
    them, explanations before and after.

    Args:
        clean: The image.
        adversarial: The adversarial image at ``eps``.
        along: Budgets from 0 to the largest, and class name -> its probabilities there; two or three classes.
        maps: Name -> its maps ``(C, h, w)`` of the clean and of the adversarial image.
        similarities: Name -> rank correlation of the two, and overlap of their top 15 %; None where undefined.
        eps: The budget that is shown.
        sweep: All budgets, smallest first.
        title: The first line.
        subtitle: The second line: what the attack was and whether it succeeded.
    """
    columns = 3 + len(maps)
    figure = Figure(figsize=(2.5 * columns, 6.3), dpi=110)
    grid = figure.add_gridspec(2, columns, left=0.02, right=0.98, bottom=0.05, top=0.8, wspace=0.08, hspace=0.22)
    heading(figure, title, subtitle)
    delta = adversarial.pixels - clean.pixels
    factor = _amplification(percentile(delta.abs()))
    for column, (name, pixels) in enumerate(
        (
            (_caption("image", clean), _pixels(clean.pixels)),
            (f"perturbation × {factor:g}\n(grey = none)", _pixels((0.5 + factor * delta).clamp(0, 1))),
            (_caption(f"adversarial, eps {format_eps(eps)}", adversarial), _pixels(adversarial.pixels)),
        )
    ):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(pixels)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    for column, (name, pair) in enumerate(maps.items(), start=3):
        texts = (f"{wrap_name(name)}\nbefore", f"after: {_similarity(*similarities[name])}")
        for row, (text, attribution, panel) in enumerate(zip(texts, pair, (clean, adversarial))):
            axes = figure.add_subplot(grid[row, column])
            show_overlay(axes, _pixels(panel.pixels), ScaledMap(attribution))
            axes.set_title(text, fontsize=10 if len(name) <= 22 else 8)
    # Inside the three columns, with room for its labels.
    inner = grid[1, :3].subgridspec(2, 2, width_ratios=[0.06, 1], height_ratios=[1, 0.1], wspace=0, hspace=0)
    _draw_along(figure.add_subplot(inner[0, 1]), *along, eps, sweep)
    return figure


@plain_text
def accuracy_figure(
    summary: Mapping[str, Any], title: str, elsewhere: Sequence[Mapping[str, float | None]] = ()
) -> Figure:
    """Accuracy and success over eps and, beside them, how far the explanations moved, from a run's summary.

    Args:
        summary: See :func:`~lightning_modules.results.summaries.robustness.summarize_robustness`.
        title: The first line.
        elsewhere: For each budget where else its images succeed, and how often; None where there is nothing to tell.
    """
    sweep = summary["sweep"]
    methods = list(sweep[0]["methods"]) if sweep else []
    figure = Figure(figsize=(11 if methods else 6.5, 4.6), dpi=110)
    panels = figure.subplots(1, 2 if methods else 1, squeeze=False)[0]
    figure.subplots_adjust(left=0.08 if methods else 0.12, right=0.97, bottom=0.12, top=0.85, wspace=0.2)
    heading(figure, title)
    written = {0.0: "0", **{row["eps"]: row["written"] for row in sweep}}
    eps = list(written)
    axes = panels[0]
    for name, key, color, style in (
        ("top-1 accuracy", "acc", FIRST_COLOR, "o-"),
        ("top-5 accuracy", "acc_top5", THIRD_COLOR, "s-"),
    ):
        if summary[f"clean_{key}"] is not None:
            values = [summary[f"clean_{key}"], *(row[f"robust_{key}"] for row in sweep)]
            axes.plot(eps, values, style, color=color, label=name)
    success = [(row["eps"], row["attack_success_rate"]) for row in sweep if row["attack_success_rate"] is not None]
    axes.plot(*zip((0.0, 0.0), *success), "^--", color=SECOND_COLOR, label="attack success rate")
    for k, where in enumerate(elsewhere[0] if elsewhere else ()):
        rates = [(row["eps"], at[where]) for row, at in zip(sweep, elsewhere) if at[where] is not None]
        words = in_legend(f"success {shorten(where)}")
        axes.plot(*zip((0.0, 0.0), *rates), "v:", color=COLORS[(k + 3) % len(COLORS)], label=words)
    whose = "classified rightly" if summary["clean_acc"] is not None else "attacked"
    title = f"{summary['n_images']:,} images; success is over the {summary['n_attacked']:,} {whose}"
    axes.set_title(title, fontsize=10)
    _finish(axes, written, (-0.02, 1.02))
    for k, name in enumerate(methods):
        for key, label, style in (
            ("rank_correlation", "rank correlation", "o-"),
            ("top_overlap", "overlap of the top 15 %", "s--"),
        ):
            values = [np.nan if row["methods"][name][key] is None else row["methods"][name][key] for row in sweep]
            words = in_legend(f"{shorten(name)}: {label}")
            panels[1].plot(eps[1:], values, style, color=COLORS[k % len(COLORS)], label=words)
    if methods:
        panels[1].set_title("Explanation of the same class, before and after", fontsize=10)
        lowest = min([0.0, *(value for line in panels[1].lines for value in line.get_ydata() if value == value)])
        _finish(panels[1], written, (lowest - 0.02, 1.02))
    return figure


def _draw_along(
    axes: Axes, budgets: Sequence[float], classes: Mapping[str, Sequence[float]], eps: float, sweep: Sequence[float]
) -> None:
    styles = ((FIRST_COLOR, "-"), (SECOND_COLOR, "--"), (THIRD_COLOR, "-."))
    for (name, values), (color, style) in zip(classes.items(), styles):
        axes.plot(budgets, values, style, color=color, label=in_legend(shorten(name, 20)))
    axes.axvline(eps, color="0.4", linestyle=":", linewidth=1.2)
    axes.set_title("probabilities along the attack (dotted: shown above)", fontsize=10)
    # Room for the legend above the curves.
    _finish(axes, {value: format_eps(value) for value in (0.0, *sweep)}, (-0.03, 1.32))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.legend(fontsize=8, loc="upper center", ncols=3, frameon=False)


def _finish(axes: Axes, eps: Mapping[float, str], limits: tuple[float, float]) -> None:
    """The axis of budgets, limits, grid and legend.

    Args:
        axes: Those of a panel, in their place in the figure.
        eps: All budgets, 0 first, and how they are written.
        limits: Of the vertical axis.
    """
    show_budgets(axes, eps)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(*limits)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, framealpha=0.85)


def _caption(name: str, panel: Panel) -> str:
    return f"{name}\n{shorten(panel.prediction)} {panel.probability:.1%}"


def _similarity(correlation: float | None, overlap: float | None) -> str:
    if correlation is None or overlap is None:
        return "a map is empty"
    return f"rank corr. {correlation:.2f},\ntop 15 % in common {overlap:.0%}"


def _amplification(change: float) -> float:
    """The factor that brings a large change to half the range; whole numbers, since it is written down."""
    return float(max(1, int(0.5 / change))) if change > 0 else 1.0


def _pixels(image: Tensor) -> np.ndarray:
    return image.detach().float().cpu().permute(1, 2, 0).numpy()


LABEL_SIZE = 8
"""Points of a label's letters."""

WIDTH, HEIGHT = 0.62 * LABEL_SIZE / 72, 1.4 * LABEL_SIZE / 72
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
    axes.set_xticks([budgets[k] for k in shown], [eps[budgets[k]] for k in shown], fontsize=LABEL_SIZE)
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
