from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_modules.figures.attribution import attribution_figure


def draw(
    maps: dict[str, torch.Tensor], boxes: torch.Tensor | None = None, is_target: torch.Tensor | None = None
) -> Figure:
    return attribution_figure(
        np.full((120, 160, 3), 128, np.uint8),
        (27.5, 7.5, 132.5, 112.5),
        maps,
        [("a cat", 0.75), ("a class of which the name is very, very long", 0.25)],
        title="cats/1.png",
        subtitle="predicted: a cat",
        boxes=boxes,
        is_target=is_target,
    )


def pixels_of(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_panels_and_texts() -> None:
    maps = {"GradCAM": torch.rand(1, 112, 112), "Saliency": torch.randn(3, 112, 112)}
    figure = draw(maps, torch.tensor([[0.0, 0.0, 56.0, 112.0]]))
    # The image, the classes, two panels a map, two scales.
    assert len(figure.axes) == 2 + 2 * 2 + 2
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts[0] == "a cat  75.0%"
    assert texts[1].endswith("…  25.0%")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[2].startswith("GradCAM\nfull colour at ")
    # The box covers the left half of the view: 52.5 of its 105 pixels.
    box = figure.axes[0].patches[1].get_bbox()
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((27.5, 7.5, 80.0, 112.5))


@pytest.mark.slow
def test_many_maps_stand_in_bands() -> None:
    maps = {f"method {k}": torch.rand(1, 112, 112) for k in range(15)}
    few, many = draw(dict(list(maps.items())[:6])), draw(maps)
    assert many.get_figwidth() < few.get_figwidth()
    assert len(many.axes) == 2 + 2 * 15 + 2
    many.canvas.draw()
    panels = {axes.get_title().split("\n")[0]: axes.get_position() for axes in many.axes if axes.get_title()}
    lefts = [round(panels[name].x0, 3) for name in maps]
    assert len(set(lefts)) == 6  # 16 panels with the image: 6, 6 and 4
    assert lefts[5] == min(lefts)
    boxes = [panel.get_tightbbox() for panel in many.axes]
    for i, one in enumerate(boxes):
        assert not any(one.padded(-2).overlaps(other.padded(-2)) for other in boxes[i + 1 :])


def test_boxes_of_other_classes_are_dotted() -> None:
    maps = {"GradCAM": torch.rand(1, 112, 112)}
    boxes = torch.tensor([[0.0, 0.0, 56.0, 112.0], [60.0, 0.0, 90.0, 50.0]])
    figure = draw(maps, boxes, is_target=torch.tensor([True, False]))
    assert [patch.get_linestyle() for patch in figure.axes[0].patches] == ["--", "-", ":"]


def test_signed_maps_are_centred_at_zero_and_magnitudes_start_there() -> None:
    figure = draw({"GradCAM": torch.rand(1, 8, 8), "Saliency": torch.randn(3, 8, 8)})
    cam, _, signed, _ = (axes.images for axes in figure.axes[2:6])
    assert cam[0].get_clim() == (0, 1)
    assert signed[0].get_clim() == (-1, 1)
    assert cam[0].get_array().max() == pytest.approx(1)
    assert abs(signed[0].get_array()).max() == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("fill", [0.0, 1.0, -1.0, torch.nan])
def test_degenerate_maps_are_drawn(fill: float) -> None:
    figure = draw({"GradCAM": torch.full((1, 8, 8), fill), "Saliency": torch.full((3, 8, 8), fill)})
    for axes in (figure.axes[2], figure.axes[4]):
        shown = axes.images[0].get_array()
        assert shown.min() == shown.max() == np.nan_to_num(fill)
    assert pixels_of(figure).shape[2] == 4  # it can be drawn


def test_a_single_bright_pixel_is_seen() -> None:
    one = torch.zeros(1, 50, 50)
    one[0, 20, 30] = 3.0
    shown = draw({"GradCAM": one}).axes[2].images[0].get_array()
    assert shown[20, 30] == 1
    assert shown.sum() == 1


def test_figures_of_different_maps_differ() -> None:
    a, b = (pixels_of(draw({"GradCAM": torch.rand(1, 8, 8)})) for _ in range(2))
    assert a.shape == b.shape
    assert not np.array_equal(a, b)
