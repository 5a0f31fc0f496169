"""What changes from step to step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_modules import InputError
from lightning_modules.synthesis import (
    CoarseToFine,
    FourierImage,
    LogitMargin,
    PixelImage,
    Progress,
    RandomColor,
    RandomView,
    Recipe,
    Schedule,
    maximize,
)
from tests.references import TinyNet


class Nothing(Schedule):
    """Changes nothing."""

    def view_size(self, step: int, steps: int, size: int) -> int:
        return size

    def cutoff(self, step: int, steps: int) -> float:
        return math.inf

    def rate(self, step: int, steps: int) -> float:
        return 1.0


def made(schedule: Schedule | None, keys: tuple[str, ...] = ("a",), **changes: Any) -> list[torch.Tensor]:
    """The images after each step."""
    seen: list[torch.Tensor] = []

    def keep(progress: Progress) -> None:
        seen.append(progress.images)

    options: dict[str, Any] = {"parametrization": FourierImage(), "transforms": [RandomView(2), RandomColor()]}
    recipe = Recipe(
        **options | {"regularizers": [], "steps": 12, "learning_rate": 0.05, "schedule": schedule} | changes
    )
    target = torch.tensor([2] * len(keys))
    final = maximize(TinyNet(), LogitMargin(), target, recipe, (24, 24), keys, keep)
    return [*seen, final]


def test_numbers_of_each_step() -> None:
    schedule = CoarseToFine((0.5, 0.75, 1.0), first_cutoff=0.1, opened=0.5, last_rate=0.2)
    assert [schedule.view_size(step, 6, 100) for step in range(1, 7)] == [50, 50, 75, 75, 100, 100]
    cutoffs = [schedule.cutoff(step, 8) for step in range(1, 9)]
    assert cutoffs == pytest.approx([0.1, 0.2, 0.3, 0.4, math.inf, math.inf, math.inf, math.inf])
    rates = [schedule.rate(step, 5) for step in range(1, 6)]
    assert rates == pytest.approx(
        [1, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, 0.6, 0.2 + 0.8 * (1 - math.sqrt(0.5)) / 2, 0.2]
    )
    assert CoarseToFine().view_size(1, 1, 32) == 16


def test_without_changes_it_is_as_if_there_were_none() -> None:
    for ours, plain in zip(made(Nothing()), made(None), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)


def test_frequencies_above_the_cutoff_stand_still() -> None:
    """Those of the image before its sigmoid: at first the low ones alone move, at the end all have."""
    schedule = CoarseToFine((1.0,), first_cutoff=0.2, opened=1.0)
    images = made(schedule, parametrization=FourierImage(decorrelate_colors=False))
    spectra = [torch.fft.rfft2(image.double().logit()) for image in images]
    frequencies = FourierImage().frequencies((24, 24))[..., 0]
    moved = [(after - spectra[0]).abs().amax((0, 1)) > 1e-3 for after in spectra[1:]]
    assert moved[0][frequencies <= 0.2].all()
    assert not moved[0][frequencies > 0.25].any()
    assert moved[-1][frequencies <= 0.45].all()


def test_an_image_follows_from_its_key_alone() -> None:
    alone, together = made(CoarseToFine())[-1], made(CoarseToFine(), ("b", "a"))[-1]
    torch.testing.assert_close(alone[0], together[1], rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_pixels_have_no_frequencies() -> None:
    with pytest.raises(InputError, match="CoarseToFine moves low frequencies first, and PixelImage has none"):
        made(CoarseToFine(), parametrization=PixelImage())
    made(Nothing(), parametrization=PixelImage())


@pytest.mark.parametrize(
    "options", [{"sizes": ()}, {"sizes": (0.5, 1.2)}, {"first_cutoff": 0}, {"opened": 0}, {"last_rate": -0.1}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="CoarseToFine"):
        CoarseToFine(**options)
