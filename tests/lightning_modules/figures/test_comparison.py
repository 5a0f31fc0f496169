from __future__ import annotations

from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lightning_modules.figures.comparison import ranking_figure

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
