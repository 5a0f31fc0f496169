from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_modules.attacks.budgets import format_eps, parse_sweep
from lightning_modules.figures.robustness import Panel, accuracy_figure, robustness_figure

SWEEP = [1 / 255, 4 / 255]


def draw(delta: torch.Tensor, similarity: tuple[float | None, float | None] = (0.5, 0.75)) -> Figure:
    image = torch.full((3, 8, 8), 0.5)
    return robustness_figure(
        Panel(image, "cat", 0.9),
        Panel(image + delta, "dog", 0.6),
        ([0, 2 / 255, 4 / 255], {"cat": [0.9, 0.5, 0.1], "dog": [0.1, 0.4, 0.8]}),
        {"GradCAM": (torch.rand(1, 8, 8), torch.zeros(1, 8, 8))},
        {"GradCAM": similarity},
        eps=4 / 255,
        sweep=SWEEP,
        title="cat/1.png",
        subtitle="FGSM",
    )


def pixels_of(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_panels_and_texts() -> None:
    delta = torch.full((3, 8, 8), 4 / 255)
    delta[0] *= -1
    figure = draw(delta)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:5] == [
        "image\ncat 90.0%",
        "perturbation × 31\n(grey = none)",
        "adversarial, eps 4/255\ndog 60.0%",
        "GradCAM\nbefore",
        "after: rank corr. 0.50,\ntop 15 % in common 75%",
    ]
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(shown[..., 0], 0.5 - 31 * 4 / 255, atol=1e-5)
    np.testing.assert_allclose(shown[..., 1], 0.5 + 31 * 4 / 255, atol=1e-5)
    assert [line.get_label() for line in figure.axes[5].lines[:2]] == ["cat", "dog"]
    assert pixels_of(figure).std() > 0


def test_a_single_changed_pixel_is_seen() -> None:
    delta = torch.zeros(3, 100, 100)
    delta[1, 30, 40] = 0.25
    image = torch.full((3, 100, 100), 0.5)
    panels = Panel(image, "cat", 1.0), Panel(image + delta, "cat", 1.0)
    figure = robustness_figure(*panels, ([0, 1], {"cat": [1, 1]}), {}, {}, eps=1.0, sweep=[1.0], title="", subtitle="")
    shown = figure.axes[1].images[0].get_array()
    assert shown[30, 40, 1] == pytest.approx(1)
    assert (shown != 0.5).sum() == 1


@pytest.mark.slow
def test_nothing_moved_and_an_empty_map() -> None:
    figure = draw(torch.zeros(3, 8, 8), (None, None))
    assert figure.axes[1].get_title().startswith("perturbation × 1\n")
    assert figure.axes[4].get_title() == "after: a map is empty"
    assert pixels_of(figure).std() > 0


def summary(labelled: bool, methods: list[str], sweep: Sequence[float] | None = None) -> dict:
    known = 0.8 if labelled else None
    similarities = {name: {"rank_correlation": -0.5, "top_overlap": None, "n": 3} for name in methods}
    rows = [
        {"eps": eps, "written": format_eps(eps), "attack_success_rate": 0.5, "methods": similarities}
        | {"robust_acc": known, "robust_acc_top5": known}
        for eps in (SWEEP if sweep is None else sweep)
    ]
    return {"clean_acc": known, "clean_acc_top5": known, "n_images": 9, "n_attacked": 8, "sweep": rows}


def test_accuracy_over_eps() -> None:
    figure = accuracy_figure(summary(True, ["GradCAM"]), "FGSM")
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["top-1 accuracy", "top-5 accuracy", "attack success rate"]
    assert list(left.lines[0].get_xdata()) == [0, *SWEEP]
    assert list(left.lines[2].get_ydata()) == [0, 0.5, 0.5]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "1/255", "4/255"]
    # Negative correlations are not cut off.
    assert right.get_ylim()[0] < -0.5
    assert pixels_of(figure).std() > 0


SWEEPS = {
    "steps": ["1/255", "2/255", "4/255", "8/255"],
    "parts of steps": ["0.25/255", "0.5/255", "1/255", "2/255", "4/255", "8/255"],
    "many": [f"{k}/255" for k in range(1, 33)],
    "a great many": [f"{k / 4}/255" for k in range(1, 66)],
    "powers of ten": ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"],
    "lengths": ["0.5", "1", "2", "5", "10", "100"],
    "long ones": ["0.0009804", "0.0019608", "0.0039216", "0.0078431"],
    "close together": ["1/255", "1.001/255", "1.002/255", "8/255"],
    "one": ["0.25/255"],
    "tiny": ["1e-9", "2e-9"],
}


@pytest.mark.slow
@pytest.mark.parametrize("typed", SWEEPS.values(), ids=SWEEPS)
def test_labels_of_budgets_leave_each_other_room(typed: list[str]) -> None:
    sweep = parse_sweep(typed, 2)
    panels = accuracy_figure(summary(True, ["GradCAM"], sweep), "FGSM").axes
    panel = Panel(torch.rand(3, 8, 8), "cat", 0.9)
    along = ([0.0, *sweep], {"cat": [0.5] * (1 + len(sweep))})
    shown = robustness_figure(panel, panel, along, {}, {}, eps=sweep[0], sweep=sweep, title="", subtitle="")
    for axes in (*panels, shown.axes[-1]):
        figure = axes.get_figure(root=True)
        assert figure is not None
        pixels_of(figure)
        labels = axes.get_xticklabels()
        texts = [label.get_text() for label in labels]
        assert set(texts) <= {"0", *typed}
        assert texts[0] == "0"
        assert texts[-1] == typed[-1]
        assert len(axes.get_xticks()) + len(axes.get_xticks(minor=True)) == 1 + len(typed)
        boxes = [label.get_window_extent() for label in labels]
        for label, one, two in zip(labels, boxes, boxes[1:]):
            if label.get_rotation():
                # Both end at their marks; so far apart are their lines, and so high are letters.
                assert (two.x1 - one.x1) * np.sin(np.radians(45)) > 8 / 72 * figure.dpi
            else:
                assert one.x1 < two.x0
        name = axes.xaxis.label.get_window_extent()
        assert min(box.y0 for box in boxes) > name.y1 - 1
        assert min(name.y0, *(box.x0 for box in boxes)) >= 0
        assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_what_spans_powers_of_ten_is_logarithmic() -> None:
    scales = {
        name: accuracy_figure(summary(True, [], parse_sweep(typed, 2)), "").axes[0].get_xscale()
        for name, typed in SWEEPS.items()
    }
    logarithmic = {name for name, scale in scales.items() if scale == "symlog"}
    assert logarithmic == {"powers of ten", "lengths", "a great many"}


def test_accuracy_of_unlabelled_images_and_of_none() -> None:
    figure = accuracy_figure(summary(False, []), "FGSM")
    assert [line.get_label() for line in figure.axes[0].lines] == ["attack success rate"]
    assert len(figure.axes) == 1
    nothing = {"clean_acc": None, "clean_acc_top5": None, "n_images": 1, "n_attacked": 0, "sweep": []}
    figure = accuracy_figure(nothing, "FGSM")
    assert figure.axes[0].get_title() == "1 images; success is over the 0 attacked"
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[0]]
    assert pixels_of(figure).std() > 0
