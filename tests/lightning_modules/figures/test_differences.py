from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_modules.figures.comparison import differences_figure, pictures_below_each_other


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
