"""Maps that explain nothing: what they are, and that they do not depend on how the work is split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from datamodules import ShapesDataModule
from datamodules.batch import with_pixels
from lightning_modules import (
    CentreGaussian,
    EdgeFilter,
    ForwardPass,
    GradCAM,
    InputError,
    IntegratedGradients,
    Network,
    OtherImage,
    Random,
    Saliency,
    SmoothGrad,
    explain,
)
from lightning_modules.methods.uninformed import UninformedMethod
from lightning_modules.metrics import rank_correlation, structural_similarity
from lightning_modules.random_numbers import seed_from
from tests.lightning_modules.metrics.small import KEYS, small_network, small_pass
from tests.references import full_pass, numbers_of

ALL = [Random(), CentreGaussian(), EdgeFilter(), OtherImage(), OtherImage(SmoothGrad(2), seed=3)]


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_the_split_does_not_matter(method: UninformedMethod) -> None:
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    keys = [f"{k}.png" for k in range(4)]
    (together,) = explain(small_network(), images, [method], 1, keys=keys).values()
    assert together.shape[2:] == (16, 16)
    for k in (3, 0):
        (alone,) = explain(small_network(), images[k : k + 1], [method], 1, keys=keys[k : k + 1]).values()
        torch.testing.assert_close(alone[0], together[k])
    (none,) = explain(small_network(), images[:0], [method], 1, keys=[]).values()
    assert len(none) == 0


def test_random_is_uniform_and_follows_from_seed_and_key() -> None:
    seen = small_pass(torch.float32, 64)
    maps = Random(seed=5)(seen)
    expected = torch.cat([numbers_of(seed_from(5, key), "uniform", (1, 64, 64)) for key in KEYS])
    torch.testing.assert_close(maps[:, 0], expected)
    assert maps.mean().item() == pytest.approx(0.5, abs=0.02)
    assert rank_correlation(maps[:1], maps[1:]).abs().item() < 0.06
    assert not torch.equal(maps, Random()(seen))


def test_centre_gaussian_by_hand() -> None:
    images = torch.rand(2, 3, 5, 9, dtype=torch.float64)
    maps = CentreGaussian(0.4)(full_pass(small_network(), images, 0))
    assert maps.shape == (2, 1, 5, 9)
    assert maps[0, 0, 2, 4] == 1
    # Two rows and one column from the middle; the deviation is 0.4 of 5 pixels.
    assert maps[1, 0, 4, 5].item() == pytest.approx(np.exp(-5 / 8))
    with pytest.raises(InputError, match="width must be above 0, got 0"):
        CentreGaussian(0)


def test_edges_are_scipys() -> None:
    images = torch.rand(2, 3, 7, 6, dtype=torch.float64)
    maps = EdgeFilter()(full_pass(small_network(), images, 0))
    for image, found in zip(images.mean(1).numpy(), maps[:, 0]):
        expected = np.hypot(ndimage.sobel(image, 0, mode="nearest"), ndimage.sobel(image, 1, mode="nearest"))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shape", "n_ways"), [((6, 6), 7), ((6, 4), 3)])
def test_the_other_image_is_this_one_turned(shape: tuple[int, int], n_ways: int) -> None:
    """Each image becomes one of the ways to turn it, each way about as often; none stays as it is."""
    image = torch.rand(3, *shape, dtype=torch.float64)
    turns = [image.rot90(k, (1, 2)) for k in range(4)]
    ways = [way for way in (*turns[1:], *(turn.flip(1) for turn in turns)) if way.shape == image.shape]
    assert len(ways) == n_ways

    class Pixels(Saliency):
        def __call__(self, forward_pass: ForwardPass) -> Tensor:
            return forward_pass.images.detach()

    keys = [f"{k}.png" for k in range(350)]
    seen = full_pass(small_network(), image.expand(350, -1, -1, -1), 0, keys=keys)
    others = OtherImage(Pixels())(seen)
    counts = [sum(torch.equal(other, way) for other in others) for way in ways]
    assert sum(counts) == 350
    # A count's deviation is at most 9.
    assert min(counts) > 350 / n_ways - 30


def test_what_is_drawn_for_the_other_image_is_other_noise() -> None:
    seen = small_pass()
    assert rank_correlation(Random()(seen), OtherImage(Random())(seen)).abs().max() < 0.3


def test_how_their_pixels_are_read() -> None:
    assert {method.sign for method in (Random(), CentreGaussian(), EdgeFilter(), OtherImage())} == {"positive"}
    assert OtherImage(IntegratedGradients()).sign == "signed"
    assert SmoothGrad(method=GradCAM()).sign == "positive"


@pytest.mark.slow
@pytest.mark.parametrize("method", [GradCAM(), Saliency()], ids=repr)
@pytest.mark.parametrize("split", ["val", "pairs"])
def test_as_alike_as_maps_of_images_that_are_others(
    shapes: Path, shapes_network: Network, method: GradCAM, split: str
) -> None:
    """Over 32 images, and a sixth of their pairs: the mean rank correlation within 0.15, the SSIM within 0.08."""
    data = ShapesDataModule(str(shapes), 64, 80, 60, split=split, batch_size=32, num_workers=0)
    data.setup("test")
    batch = with_pixels(next(iter(data.test_dataloader())))
    seen = full_pass(shapes_network, batch["image"], batch["label"], keys=batch["path"])
    maps, turned = method(seen), OtherImage(method)(seen)
    rolled = [maps.roll(k, 0) for k in range(1, 32, 6)]
    for score, margin in ((rank_correlation, 0.15), (structural_similarity, 0.08)):
        others = torch.stack([score(maps, other).nanmean() for other in rolled]).mean()
        assert float(score(maps, turned).nanmean()) == pytest.approx(float(others), abs=margin)
