from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before PyTorch starts its threads: of several processes, each has a core
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from datamodules import write_shapes
from lightning_modules import VGG16, Network, load_vgg16


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of generated shapes: 80 held-out images and 60 with two objects."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, n_train=64, n_val=80, n_pairs=60, seed=0)
    return root


@pytest.fixture(scope="session")
def shapes_network() -> Network[VGG16]:
    """The embedded model. Shared: tests must leave it as it is."""
    return load_vgg16("shapes")


@pytest.fixture(scope="session")
def random_vgg16() -> Network[VGG16]:
    """Full-size VGG16 with seeded random weights. Shared: tests must leave it as it is."""
    return load_vgg16("random")


@pytest.fixture(scope="session")
def photos() -> Path:
    """A folder of real photos in folders named by WordNet ids."""
    folder = os.environ.get("VGG_LENS_PHOTOS")
    if not folder:
        pytest.skip("VGG_LENS_PHOTOS is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
