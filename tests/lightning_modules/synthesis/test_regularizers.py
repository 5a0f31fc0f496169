from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules import InputError
from lightning_modules.synthesis import L2, Regularizer, TotalVariation, total_variation
from tests.references import total_variation_in_loops


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 0.5, 0.5], [1.0, 0.5, 0.0]]]])
    # Down: 1 + 0 + 0.5; right: 0.5 + 0 and 0.5 + 0.5.
    assert total_variation(image).tolist() == pytest.approx([(1.5 + 0.5 + 1.0) / 6])
    assert total_variation(torch.full((2, 3, 4, 4), 0.3)).tolist() == [0, 0]


def test_total_variation_in_loops() -> None:
    images = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    expected = [total_variation_in_loops(image.numpy()) for image in images]
    np.testing.assert_allclose(total_variation(images), expected, rtol=1e-12)


def test_l2_by_hand() -> None:
    images = torch.tensor([[[[0.0, 1.0]]], [[[0.5, 0.7]]]])
    torch.testing.assert_close(L2(10)(images), torch.tensor([2.5, 0.2]))


@pytest.mark.parametrize("regularizer", [TotalVariation(3.0), L2(3.0)], ids=repr)
def test_gradient_and_weight(regularizer: Regularizer) -> None:
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(regularizer, images)
    torch.testing.assert_close(regularizer(images), 3 * type(regularizer)(1.0)(images))
    assert type(regularizer)(0)(images).tolist() == [0, 0]


@pytest.mark.parametrize("kind", [TotalVariation, L2])
def test_bad_weight(kind: type) -> None:
    with pytest.raises(InputError, match=f"weight of {kind.__name__} must be at least 0, got -1"):
        kind(-1)


def test_weights_at_which_the_pull_is_that_of_an_objective() -> None:
    """The gradient of an objective has the root mean square 1 / D once it is without scale."""
    images = torch.full((1, 3, 6, 5), 0.5, dtype=torch.float64)
    images[0, :, 2, 2] = 1.0
    images.requires_grad_()
    for regularizer in (TotalVariation(0.25), L2(1.0)):
        (gradient,) = torch.autograd.grad(regularizer(images).sum(), images)
        torch.testing.assert_close(gradient[0, :, 2, 2] * 90, torch.ones(3, dtype=torch.float64))
