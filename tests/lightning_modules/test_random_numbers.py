"""Random numbers: the words of SplitMix64, as many as are asked for in any order, and of the right distributions."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_modules import random_numbers
from lightning_modules.random_numbers import RandomNumbers
from tests.lightning_modules.fakes import DEVICES, fake_device
from tests.references import numbers_of, split_mix

CPU = torch.device("cpu")
DRAWS = [RandomNumbers.normal, RandomNumbers.uniform]


def test_words_are_those_that_are_published() -> None:
    """Of seed 1234567, as Rosetta Code lists them for all languages; the authors' step."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert split_mix(1234567, 0x9E3779B97F4A7C15, 4).tolist() == published
    numbers = RandomNumbers([0], CPU)
    numbers._streams = torch.tensor([[1234567, 0x9E3779B97F4A7C15 - 2**64]])
    assert [word % 2**64 for word in numbers.words(slice(0, 2), 2).flatten().tolist()] == published


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_numbers_are_those_of_a_slow_way(kind: Any) -> None:
    """Also where a copy does not end with a word."""
    seeds, shape = [3, 2**63 - 1], (3, 5, 3)
    ours = getattr(RandomNumbers(seeds, CPU), kind)(slice(0, 4), shape)
    assert ours.dtype == torch.float32
    for of_image, seed in zip(ours.unbind(1), seeds):
        assert torch.equal(of_image, numbers_of(seed, kind, (4, *shape)))


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_an_image_has_its_numbers_in_any_batch_and_order(draw: Any) -> None:
    together = draw(RandomNumbers([5, 6, 7, 8], CPU), slice(0, 6), (3, 7, 5))
    for k, seed in enumerate([5, 6, 7, 8]):
        assert torch.equal(draw(RandomNumbers([seed], CPU), slice(4, 6), (3, 7, 5))[:, 0], together[4:, k])
    assert torch.equal(draw(RandomNumbers([5, 6, 7, 8], CPU)[1:3], slice(2, 3), (3, 7, 5))[0], together[2, 1:3])
    assert len({tuple(of.flatten().tolist()) for of in together.flatten(0, 1)}) == 24
    assert draw(RandomNumbers([], CPU), slice(0, 2), (3, 4, 4)).shape == (2, 0, 3, 4, 4)


def test_distributions() -> None:
    numbers = RandomNumbers(range(8), CPU)
    normal, uniform = (draw(numbers, slice(0, 4), (3, 64, 64)).double() for draw in DRAWS)
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 0.01
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 0.01
    assert float(normal.std()) == pytest.approx(1, abs=0.005)
    assert float(normal.abs().max()) > 4
    assert 0 <= uniform.min() < 1e-4 < 1 - 1e-4 < uniform.max() < 1
    # Neither neighbours nor images nor copies know of each other: a correlation of noise is within four deviations.
    for sample in (normal, uniform - 0.5):
        flat = sample / sample.std()
        pairs = [(flat[..., lag:], flat[..., :-lag]) for lag in (1, 2, 3, 4, 8)]
        pairs += [(flat[:, 1:], flat[:, :-1]), (flat[1:], flat[:-1])]
        for one, other in pairs:
            assert abs(float((one * other).mean())) < 4 / one.numel() ** 0.5


def test_steps_are_odd_and_uneven() -> None:
    """A step of too few changes between neighbouring bits is given more, as the authors ask."""
    steps = [random_numbers._step(seed) for seed in range(2000)]
    assert all(step % 2 and 0 < step < 2**64 for step in steps)
    with mock.patch.object(random_numbers, "seed_from", return_value=0):
        assert random_numbers._step(0) == 1 ^ 0xAAAAAAAAAAAAAAAA
    assert min((step ^ step >> 1).bit_count() for step in steps) >= 24


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_they_are_made_where_they_are_asked_for(device: str, draw: Any) -> None:
    with fake_device(device):
        assert draw(RandomNumbers([1, 2], torch.device(device)), slice(0, 3), (3, 5, 5)).device.type == device


def test_values_are_equally_probable() -> None:
    values = random_numbers._normal_values(CPU).double().numpy()
    np.testing.assert_allclose(stats.norm.cdf(values), (np.arange(2**16) + 0.5) / 2**16, rtol=1e-5)
