"""The order of a map's pixels: by what they are worth, and where they are worth the same, by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules import ForwardPass, GradCAM, IntegratedGradients, Saliency
from lightning_modules.metrics import InsertionDeletion, pixel_order
from lightning_modules.random_numbers import seed_from
from tests.lightning_modules.metrics.small import small_network
from tests.references import full_pass, split_mix


def seen(keys: list[str], height: int = 3, width: int = 4) -> ForwardPass:
    images = torch.rand(len(keys), 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return full_pass(small_network(), images, 1, keys=keys)


def slow_order(worth: np.ndarray, key: str, seed: int) -> list[int]:
    """The pixels, the most important one first; of equal ones the one with the smaller word."""
    of_image = seed_from("ties", seed, key)
    words = split_mix(seed_from(of_image, "start"), 2 * seed_from(of_image, "step") + 1, worth.size)
    return sorted(range(worth.size), key=lambda pixel: (-worth.flat[pixel], words.view(np.int64)[pixel]))


def test_against_sorting_pixel_by_pixel() -> None:
    keys = ["a.png", "b/a.png", "c.png"]
    maps = torch.rand(3, 1, 3, 4, dtype=torch.float64)
    maps[1], maps[2] = maps[1].mul(3).round(), 0
    place, _, _ = pixel_order(maps, seen(keys), GradCAM(), None, seed=5)
    for of_map, places, key in zip(maps, place, keys):
        assert places.flatten().argsort().tolist() == slow_order(of_map[0].numpy(), key, 5)


def test_neither_batch_nor_place_in_it_matters() -> None:
    keys = ["a.png", "b.png", "c.png"]
    maps = torch.rand(3, 1, 3, 4).mul(2).round()
    together = pixel_order(maps, seen(keys), GradCAM(), None, 0)
    for k, key in enumerate(keys):
        alone = pixel_order(maps[k : k + 1], seen([key]), GradCAM(), None, 0)
        assert torch.equal(alone.place[0], together.place[k])


def test_chance_prefers_no_pixel() -> None:
    """Over 600 images the mean place of each of 12 equal pixels is near 5.5, where reading order has 0 to 11."""
    place, _, _ = pixel_order(torch.zeros(600, 1, 3, 4), seen([f"{k}.png" for k in range(600)]), GradCAM(), None, 0)
    assert torch.equal(place.flatten(1).sort(1).values, torch.arange(12).expand(600, -1))
    # The standard error of a mean is 0.14.
    assert (place.double().mean(0) - 5.5).abs().max() < 0.6


@pytest.mark.parametrize(
    ("values", "tied"),
    [
        ([1.0, 2, 3, 4], 0),
        ([0.0, 0, 3, 4], 0.5),
        ([0.0, 0, 4, 4], 1),
        ([0.0, 0, 0, 4], 0.75),
        ([-1.0, -2, 3, 4], 0.5),  # nothing is told of what is negative
    ],
)
def test_the_share_of_tied_pixels(values: list[float], tied: float) -> None:
    maps = torch.tensor(values).view(1, 1, 2, 2)
    found = pixel_order(maps, seen(["a"], 2, 2), GradCAM(), "positive", 0)
    assert found.tied.tolist() == [tied]
    if tied < 1:
        scores = InsertionDeletion(step=1, sign="positive").score(maps, seen(["a"], 2, 2), {}, GradCAM())  # type: ignore[typeddict-item]
        assert scores["tied_pixels"].tolist() == [tied]


def first_to_last(maps: Tensor, *options: object) -> list[int]:
    return pixel_order(maps, seen(["a"], 1, 3), *options, 0).place.flatten().argsort().tolist()  # type: ignore[arg-type]


def test_how_signs_are_read() -> None:
    """Three pixels of three channels: sums 1, -2 and 0.5; magnitudes 1, 2 and 4.5."""
    maps = torch.tensor([[[0.5, -1, 2.5]], [[0.25, -0.5, -2]], [[0.25, -0.5, 0]]])[None]
    assert first_to_last(maps, GradCAM(), "signed") == [0, 2, 1]
    assert first_to_last(maps, GradCAM(), "positive") == [0, 2, 1]
    assert first_to_last(maps, GradCAM(), "absolute") == [2, 1, 0]
    # What methods say themselves: gradients by their size, parts of the score by their sign.
    assert first_to_last(maps, Saliency(), None) == [2, 1, 0]
    assert first_to_last(maps, IntegratedGradients(), None) == [0, 2, 1]
