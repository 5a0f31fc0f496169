from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules import ForwardPass, InputError
from lightning_modules.maps import magnitude
from lightning_modules.metrics import EnergyInBox, PointingGame, boxes_to_mask, energy_in_box, pointing_game
from tests.references import TinyNet

BOX = torch.tensor([[2.0, 1.0, 5.0, 4.0]])


def slow_mask(boxes: Tensor, height: int, width: int, margin: float) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            for left, top, right, bottom in boxes.tolist():
                if right <= left or bottom <= top:
                    continue
                nearest = min(max(x + 0.5, left), right), min(max(y + 0.5, top), bottom)
                if (x + 0.5 - nearest[0]) ** 2 + (y + 0.5 - nearest[1]) ** 2 <= margin**2:
                    mask[y, x] = True
    return mask


@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5, 100.0])
@pytest.mark.parametrize(
    "boxes",
    [
        BOX,
        torch.tensor([[0.0, 0.0, 3.3, 2.6], [4.0, 4.0, 8.0, 6.0]]),
        torch.tensor([[3.0, 3.0, 3.0, 5.0]]),  # no area
        torch.zeros(0, 4),
    ],
)
def test_mask(boxes: Tensor, margin: float) -> None:
    assert torch.equal(boxes_to_mask(boxes, 6, 8, margin), slow_mask(boxes, 6, 8, margin))


class TestPureFunctions:
    mask = boxes_to_mask(BOX, 6, 8)[None]

    def test_map_that_is_the_box_and_its_complement(self) -> None:
        box = self.mask[:, None].float()
        assert pointing_game(box, self.mask).item() == 1
        assert energy_in_box(box, self.mask).item() == 1
        assert pointing_game(1 - box, self.mask).item() == 0
        assert energy_in_box(1 - box, self.mask).item() == 0

    def test_one_pixel(self) -> None:
        for y in range(6):
            for x in range(8):
                one = torch.zeros(1, 1, 6, 8)
                one[0, 0, y, x] = 0.1
                inside = float(self.mask[0, y, x])
                assert pointing_game(one, self.mask).item() == energy_in_box(one, self.mask).item() == inside

    def test_share_of_a_flat_map_is_the_share_of_the_area(self) -> None:
        assert energy_in_box(torch.ones(1, 1, 6, 8), self.mask).item() == pytest.approx(9 / 48)

    @pytest.mark.parametrize("value", [0.0, 1.0, torch.nan, torch.inf])
    def test_maps_that_point_nowhere_are_misses(self, value: float) -> None:
        everything = torch.ones(1, 6, 8, dtype=torch.bool)
        assert pointing_game(torch.full((1, 1, 6, 8), value), everything).item() == 0
        assert energy_in_box(torch.full((1, 1, 6, 8), value), everything).item() == float(value == 1)

    def test_several_channels_count_by_magnitude(self) -> None:
        signed = torch.zeros(1, 3, 6, 8)
        signed[0, 1, 2, 3] = -5
        signed[0, 0, 0, 0] = 4
        assert torch.equal(magnitude(signed)[0, 2, 3], torch.tensor(5.0))
        assert pointing_game(signed, self.mask).item() == 1
        assert energy_in_box(signed, self.mask).item() == pytest.approx(5 / 9)


class TestMetrics:
    @pytest.fixture
    def setting(self) -> tuple[Tensor, ForwardPass, dict]:
        """Three images: a hit, one whose box is of another class, and a miss by one pixel."""
        maps = torch.zeros(3, 1, 6, 8, dtype=torch.float64)
        maps[0, 0, 2, 3] = maps[1, 0, 2, 3] = maps[2, 0, 2, 5] = 1
        batch = {
            "boxes": [BOX, BOX, torch.cat([BOX, torch.tensor([[0.0, 0.0, 8.0, 6.0]])])],
            "box_labels": [torch.tensor([1]), torch.tensor([0]), torch.tensor([1, 2])],
        }
        return maps, ForwardPass(TinyNet(), torch.rand(3, 3, 6, 8, dtype=torch.float64), 1), batch

    def test_scores(self, setting: tuple) -> None:
        torch.testing.assert_close(PointingGame(0).score(*setting), torch.tensor([1, torch.nan, 0.0]), equal_nan=True)
        torch.testing.assert_close(PointingGame(1).score(*setting), torch.tensor([1, torch.nan, 1.0]), equal_nan=True)
        torch.testing.assert_close(
            EnergyInBox().score(*setting).float(), torch.tensor([1, torch.nan, 0.0]), equal_nan=True
        )

    def test_mean_is_over_the_scored_images(self, setting: tuple) -> None:
        metric = PointingGame(0)
        assert metric.update(*setting) is None
        metric.update(*setting)
        assert metric.compute() == 0.5
        assert metric.count == 4

    def test_tolerance(self) -> None:
        with pytest.raises(InputError, match="at least 0 pixels, got -1"):
            PointingGame(-1)
