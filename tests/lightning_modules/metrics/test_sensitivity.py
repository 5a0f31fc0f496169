from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from lightning_modules import (
    AttributionMethod,
    ForwardPass,
    GradCAM,
    InputError,
    Saliency,
    SmoothGrad,
    explain,
)
from lightning_modules.metrics import SensitivityMax
from lightning_modules.networks.inputs import trusted
from tests.lightning_modules.metrics.small import KEYS, small_pass
from tests.references import full_pass, noise_of_keys

BATCH: dict = {}


@pytest.mark.parametrize("method", [Saliency(), GradCAM(), SmoothGrad(3)], ids=repr)
@trusted()  # Captum leaves [0, 1]
def test_against_captum(method: AttributionMethod) -> None:
    """The noise of a method is that of the image, for all of its copies."""
    seen, metric = small_pass(), SensitivityMax(n_samples=4, radius=0.05, max_batch=3, seed=7)
    moves = 0.05 * (2 * noise_of_keys(KEYS, 7, 4, seen.images, "uniform") - 1)

    def maps_of(images: Any, target: Tensor) -> Any:
        if isinstance(images, tuple):  # so it asks for the maps of the images themselves
            return (maps_of(images[0], target),)
        keys = [key for key in KEYS for _ in range(len(images) // 2)]
        with torch.enable_grad():
            return explain(seen.network, images, [method], target, keys=keys)[repr(method)].contiguous()

    def moved(images: Tensor) -> Tensor:
        return images + moves.transpose(0, 1).flatten(0, 1)

    expected = sensitivity_max(maps_of, seen.images.detach(), moved, n_perturb_samples=4, target=seen.target)
    found = metric.score(method(seen), seen, BATCH, method)["sensitivity_max"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert (found > 0.01).all()


class Brightness(AttributionMethod):
    """The image itself: its map moves as far as the image does."""

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.images.detach()


def test_by_hand() -> None:
    """Pixels of 0.5 and one of 0: all move by at most the radius, and hardly less in the mean square."""
    images = torch.full((1, 3, 32, 32), 0.5)
    images[..., 0, 0] = 0
    seen = full_pass(small_pass(torch.float32).network, images, 0)
    found = SensitivityMax(radius=0.3).score(images, seen, BATCH, Brightness())["sensitivity_max"]
    # The deviation of what is uniform in [-0.3, 0.3] is 0.3 / sqrt(3), and of images at 0.5 none is clipped.
    assert found.item() == pytest.approx(0.3 / 3**0.5 / 0.5, rel=0.03)


@pytest.mark.parametrize("options", [{"n_samples": 0}, {"max_batch": 0}])
def test_bad_numbers(options: dict) -> None:
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        SensitivityMax(**options)


@pytest.mark.parametrize("radius", [0.0, 1.5, torch.nan])
def test_bad_radius(radius: float) -> None:
    with pytest.raises(InputError, match="radius must be above 0 and at most 1, got"):
        SensitivityMax(radius=radius)
