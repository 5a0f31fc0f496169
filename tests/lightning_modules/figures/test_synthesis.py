from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.figures.sheets import Cell, exemplar_sheets, mosaic, run_sheets, variants_figure
from lightning_modules.figures.synthesis import growth_figure

COLOR = (200, 30, 90)


def rows(layer: str | None, n: int, variant: str = "both", failed: tuple[int, ...] = ()) -> list[dict]:
    p = 0.5 if layer is None else None
    numbers = {"activation": 1.5, "activation_shifted": 1.0, "total_variation": 0.1}
    same = {**numbers, "probability": p, "probability_shifted": p, "layer": layer, "variant": variant, "seed": 0}
    return [
        {
            **same,
            "path": f"{layer}_{k}.png",
            "image": "image.png",
            "status": "failed" if k in failed else "ok",
            "name": f"{layer}:{k}" if layer else f"class {k}",
            "target": k,
        }
        for k in range(n)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run/images").mkdir(parents=True)
    Image.new("RGB", (16, 16), COLOR).save(tmp_path / "run/images/image.png")
    return tmp_path / "run"


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def page(figure: Figure) -> np.ndarray:
    (image,) = figure.axes[0].images
    return np.asarray(image.get_array())


def test_a_mosaic_shows_every_pixel_of_its_squares() -> None:
    cells = [[Cell(np.full((5, 5, 3), k * 50, np.uint8), f"{k}") for k in range(3)], [Cell(None, "no", "-")]]
    figure = mosaic(cells, "Title of $no$ formula", side=40)
    shown = page(figure)
    assert [(shown == (k * 50,) * 3).all(2).sum() for k in range(3)] == [1600, 1600, 1600]
    assert (shown == (240,) * 3).all(2).sum() == 38 * 38
    assert texts(figure) == ["0", "", "1", "", "2", "", "no", "-", "Title of $no$ formula"]
    width, height = figure.get_size_inches() * figure.dpi
    assert (round(height), round(width)) == shown.shape[:2]


def test_long_words_keep_their_end() -> None:
    """In two lines."""
    figure = mosaic([[Cell(None, foot="n01440764/a_very_long_name_of_a_file_0001.jpg")]], "t", side=62)
    assert texts(figure)[2:4] == ["…_of_a_fil", "e_0001.jpg"]


def test_lines_stay_lines() -> None:
    """Of a word that is too long, the beginning."""
    figure = mosaic([[Cell(None, foot="black and gold garden spider\n#1, 9.0%")]], "t", side=62)
    assert texts(figure)[2:4] == ["black and…", "#1, 9.0%"]


class TestSheetsOfLayers:
    def sheets(self, run: Path, *groups: list[dict]) -> dict[str, Figure]:
        return dict(run_sheets([row for group in groups for row in group], run))

    def test_a_few_channels_are_shown_with_the_classes(self, run: Path) -> None:
        found = self.sheets(run, rows(None, 2), rows("features.3", 8))
        assert list(found) == ["contact_sheet_both_000"]
        assert (page(found["contact_sheet_both_000"]) == COLOR).all(2).sum() == 10 * 176**2

    def test_a_layer_has_sheets_of_its_own(self, run: Path) -> None:
        found = self.sheets(run, rows(None, 2), rows("features.3", 200, failed=(3, 4)), rows("layer1.0.relu@2", 9))
        assert list(found) == [
            "contact_sheet_both_000", "layer_features.3_both_000", "layer_features.3_both_001",
            "layer_layer1.0.relu_2_both_000",
        ]  # fmt: skip
        first, second = (found[f"layer_features.3_both_00{k}"] for k in (0, 1))
        assert (page(first) == COLOR).all(2).sum() == (160 - 2) * 112**2
        assert (page(second) == COLOR).all(2).sum() == 40 * 112**2
        assert texts(first)[:10] == ["0", "1.5", "1", "1.5", "2", "1.5", "3", "failed", "4", "failed"]
        assert "1 to 160 of 200, 2 failed" in texts(first)[-1].replace("\n", " ")

    def test_variants_have_theirs(self, run: Path) -> None:
        found = self.sheets(run, rows("a", 9), rows("a", 9, "neither"))
        assert set(found) == {"layer_a_both_000", "layer_a_neither_000"}


class TestVariants:
    def figure(self, run: Path, rows: list[dict]) -> Figure:
        labels = {"neither": "neither\nclipped 1.0%", "both": "both"}
        return variants_figure(rows, run / "images", labels, "Title", lambda row: f"p {row['probability']:.0%}")

    def test_each_has_a_row_of_the_same_units(self, run: Path) -> None:
        figure = self.figure(run, [*rows(None, 3, failed=(1,)), *rows(None, 3, "neither")])
        assert (page(figure) == COLOR).all(2).sum() == 5 * 112**2
        assert texts(figure)[:4] == ["neither", "clipped 1.0%", "both", ""]
        assert texts(figure)[4:7] == ["class 0", "", "p 50%"]
        assert texts(figure)[-6:-1] == ["class 1", "failed", "class 2", "", "p 50%"]
        width, height = figure.get_size_inches() * figure.dpi
        assert (round(height), round(width)) == page(figure).shape[:2]

    def test_of_many_the_first_ones(self, run: Path) -> None:
        figure = self.figure(run, [*rows(None, 23), *rows(None, 23, "neither")])
        assert (page(figure) == COLOR).all(2).sum() == 2 * 20 * 112**2
        assert texts(figure)[-1] == "Title; the first 20 of 23"


def test_sheets_of_exemplars(run: Path) -> None:
    photos = run / "exemplars"
    photos.mkdir()
    Image.new("RGB", (9, 9), (0, 0, 255)).save(photos / "0.png")
    units = [*rows("b", 9, failed=(0,)), *rows(None, 1), *rows("unseen", 1)]
    exemplars = [
        {"name": row["name"], "rank": rank, "value": 7.25 - rank, "path": f"folder/photo{rank}.jpg", "photo": "0.png"}
        for row in units[:10]
        for rank in (2, 1)
    ]
    found = dict(exemplar_sheets(units, exemplars, run / "images", photos, "run"))
    assert list(found) == ["exemplars_000", "exemplars_001"]
    first = texts(found["exemplars_000"])
    assert first[:8] == ["made", "1.5", "class 0", "#1", "6.25", "folder/photo1.jpg", "#2", "5.25"]
    assert first[9:12] == ["made", "failed", "b:0"]
    assert (page(found["exemplars_000"]) == COLOR).all(2).sum() == 7 * 112**2
    assert list(exemplar_sheets(units, [], run / "images", photos, "run")) == []


@pytest.mark.parametrize("first", [-0.96812, 12345.25, 1e-7, 0.0])
def test_the_names_of_curves_are_seen_beside_numbers_of_many_digits(first: float) -> None:
    snapshots = {step: np.zeros((8, 8, 3), np.uint8) for step in (1, 2)}
    figure = growth_figure(snapshots, [first, first + 1e-4], [0.0612, 0.0613], "cat")
    FigureCanvasAgg(figure).draw()
    left, right = (axes.yaxis.label.get_window_extent() for axes in figure.axes[2:])
    assert left.x0 > 0
    assert right.x1 < figure.bbox.x1
    assert all(step == int(step) for step in figure.axes[2].get_xticks())
