from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lightning_modules.figures.comparison import differences_figure, pictures_below_each_other, ranking_figure

METHODS = ["GradCAM", "IntegratedGradients(n_steps=10, baseline='blur', rule='middle')", "SmoothGrad(n_samples=5)"]
SCORES = ["average_drop", "relative_completeness_error", "randomization_correlation"]


def ranking(scores: list[str]) -> dict[str, Any]:
    places = [{"mean": 1234.5678, "best_place": 1, "worst_place": 1}, *({"mean": 0.25} for _ in METHODS[1:])]
    places[1] |= {"best_place": 2, "worst_place": 3}
    places[2] |= {"best_place": 2, "worst_place": 3}
    methods = dict(zip(METHODS, places, strict=True))
    return {name: {"better": "lower", "n": 70 + k, "methods": methods} for k, name in enumerate(scores)}


def test_places_and_means() -> None:
    figure = ranking_figure(ranking(SCORES[:1]), METHODS)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1", "1.23e+03", "2–3", "0.25", "2–3", "0.25"]
    assert [text.get_weight() for text in axes.texts[::2]] == ["bold", "normal", "normal"]
    # The better, the darker.
    assert axes.images[0].get_array().tolist() == [[1.0], [0.25], [0.25]]


def test_titles_and_names_are_whole() -> None:
    (axes,) = ranking_figure(ranking(SCORES), METHODS).axes
    titles = [label.get_text() for label in axes.get_xticklabels()]
    assert [" ".join(title.split()[:-3]) for title in titles] == [name.replace("_", " ") for name in SCORES]
    assert axes.get_yticklabels()[2].get_text() == "SmoothGrad(n_samples=5)"
    assert axes.get_yticklabels()[1].get_text().startswith("IntegratedGradients\n(n_steps=10")


@pytest.mark.parametrize("n_scores", [1, 2, 3])
def test_no_text_is_cut_off_or_lies_on_another(n_scores: int) -> None:
    figure = ranking_figure(ranking(SCORES[:n_scores]), METHODS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    texts: list[Text] = [*figure.texts, *axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    width, height = canvas.get_width_height()
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert not [(a, b) for k, a in enumerate(boxes) for b in boxes[:k] if a.overlaps(b)]


def test_each_run_has_its_point_and_its_interval() -> None:
    with_interval = {"difference": 0.1, "low": 0.0, "high": 0.3}
    alone = {"difference": -0.2, "low": None, "high": None}
    nothing = {"difference": None, "low": None, "high": None}
    panels = {"insertion": {"CAM": {"b": with_interval, "c": alone}}, "top-1": {"every image": {"b": nothing}}}
    figure = differences_figure(panels, ["b", "c"], "each run less a")
    insertion, top1 = figure.axes
    (b, _, (b_line,)), (c, _, (c_line,)) = insertion.containers
    assert (b.get_xdata()[0], c.get_xdata()[0]) == (0.1, -0.2)
    assert b.get_ydata()[0] < 0 < c.get_ydata()[0]  # beside each other, on the line of the method
    assert b_line.get_segments()[0][:, 0] == pytest.approx([0.0, 0.3])
    assert c_line.get_segments()[0][:, 0] == pytest.approx([-0.2, -0.2])
    assert not top1.containers
    assert [label.get_text() for label in insertion.get_yticklabels()] == ["CAM", "every image"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "c"]
    assert not differences_figure(panels, ["b"], "b less a").legends


def test_pictures_are_drawn_pixel_by_pixel() -> None:
    random = np.random.default_rng(0)
    pictures = {
        name: random.integers(0, 256, (60, width, 3), dtype=np.uint8) for name, width in (("a", 500), ("b", 400))
    }
    canvas = FigureCanvasAgg(pictures_below_each_other(pictures, "cats/1.png", "insertion: 0.1 and 0.9"))
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    assert drawn.shape[1] == 500
    assert np.abs(drawn[-60:, :400].astype(int) - pictures["b"]).max() <= 1
    above = drawn[-60 - 26 - 60 : -60 - 26]
    assert np.abs(above.astype(int) - pictures["a"]).max() <= 1
