from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from lightning_modules.metrics import imputed

HEIGHT, WIDTH = 45, 38


def holes() -> dict[str, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return {
        "all but a corner": (y > 0) | (x > 0),
        "all but the middle": (y - 22).abs() + (x - 19).abs() > 3,
        "a frame": (y < 9) | (x < 9) | (y > 35),
        "a disc": (y - 20) ** 2 + (x - 15) ** 2 < 150,
        "stripes": x % 4 != 0,
        "a chessboard": (x + y) % 2 == 0,
        "scattered": torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) < 0.9,
        "a maze": (x % 6 < 2) | ((y % 8 < 2) & (x % 12 < 9)),
        "nothing": x < 0,
    }


@pytest.mark.parametrize("name", holes())
def test_against_the_authors_equations_solved_directly(name: str) -> None:
    image = torch.rand(3, HEIGHT, WIDTH, dtype=torch.float64)
    hole = holes()[name]
    expected = image.clone()
    if hole.any():
        matrix, right = NoisyLinearImputer.setup_sparse_system(
            (~hole).float().numpy(), image.numpy(), neighbors_weights
        )
        expected[:, hole] = torch.from_numpy(np.asarray(spsolve(csc_matrix(matrix), right))).T
    for dtype, most in ((torch.float64, 1e-7), (torch.float32, 1e-4)):
        found = imputed(image[None].to(dtype), hole[None])[0]
        assert found.dtype == dtype
        assert (found - expected).abs().max() < most
        assert torch.equal(found[:, ~hole], image.to(dtype)[:, ~hole])


def test_what_is_not_solved_is_nan() -> None:
    images, hole = torch.rand(3, 3, 64, 64), torch.zeros(3, 64, 64, dtype=torch.bool)
    hole[0, 10:14, 10:14] = True
    hole[1, :, 3:] = True
    hole[2] = True
    assert imputed(images, hole).isnan().flatten(1).all(1).tolist() == [False, False, True]
    assert imputed(images, hole, n_steps=1).isnan().flatten(1).any(1).tolist() == [True, True, True]


def test_autocast_does_not_matter() -> None:
    images, hole = torch.rand(1, 3, 32, 32), torch.rand(1, 32, 32) < 0.8
    with torch.autocast("cpu", torch.bfloat16):
        found = imputed(images, hole)
    assert torch.equal(found, imputed(images, hole))
