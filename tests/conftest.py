from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # before PyTorch starts its threads: of several processes, each has a core
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import VGG16_Weights

from datamodules import write_shapes
from lightning_modules import VGG16, Network, load_vgg16
from lightning_modules.networks.built_in import vgg16
from tests.browser import find_browser


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what starts processes and what trains, by what the test's module imports to do so."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        used = {value.__name__ if inspect.ismodule(value) else value.__module__ for value in imported(item)}
        if "run" in item.fixturenames or used & {"subprocess", "tests.browser", "tests.scripts.processes"}:
            item.add_marker(pytest.mark.process)
        if "train_classifier" in used:
            item.add_marker(pytest.mark.training)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available() and "VGG_LENS_GPU" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


def imported(test: pytest.Function) -> list[Any]:
    """The modules, functions and classes that a test's module names."""
    return [v for v in vars(test.module).values() if inspect.ismodule(v) or inspect.isroutine(v) or inspect.isclass(v)]


@pytest.fixture(scope="session", autouse=True)
def _embedded_model_is_observed_once() -> Iterator[None]:
    """Where it is loaded without options, hundreds of times, each gets a copy: 0.01 s in place of 0.3 s."""
    load, embedded = vgg16._from_file, load_vgg16("shapes")

    def load_or_copy(path: Path, part: str, options: Any) -> Network[VGG16]:
        is_plain = options == type(options)() and torch.get_default_dtype() == torch.float32
        return copy.deepcopy(embedded) if path == vgg16.EMBEDDED_WEIGHTS and is_plain else load(path, part, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg16, "_from_file", load_or_copy)
        yield


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
    """VGG16 of ImageNet's classes and full width, but for its hidden layers of 256 features in place of 4096, with
    seeded random weights. Shared: tests must leave it as it is."""
    return VGG16(VGG16_Weights.IMAGENET1K_V1.meta["categories"], hidden_features=256).initialize(0).network().freeze()


@pytest.fixture(scope="session")
def photos() -> Path:
    """A folder of real photos in folders named by WordNet ids."""
    folder = os.environ.get("VGG_LENS_PHOTOS")
    if not folder:
        pytest.skip("VGG_LENS_PHOTOS is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def browser() -> str:
    """A chromium."""
    found = find_browser()
    if found is None:
        pytest.skip("there is no chromium in PATH")
    return found


@pytest.fixture(scope="session")
def squeezenet_weights() -> Path:
    """torchvision's file of SqueezeNet 1.0: a real network for the photos."""
    weights = Path(os.environ.get("VGG_LENS_SQUEEZENET", ""))
    if not weights.is_file():
        pytest.skip("needs the weights of squeezenet1_0, in the file that VGG_LENS_SQUEEZENET names")
    return weights


@pytest.fixture(scope="session")
def plain_squeezenet(squeezenet_weights: Path) -> nn.Module:
    """It as torchvision has it, of normalized images. Shared: tests must leave it as it is."""
    plain = models.squeezenet1_0()
    plain.load_state_dict(torch.load(squeezenet_weights, weights_only=True))
    return plain.eval()


@pytest.fixture
def double_by_default() -> Callable[[], AbstractContextManager[None]]:
    """Makes float64 the default dtype inside, as Lightning does in the steps of ``trainer.precision`` 64-true."""

    @contextmanager
    def double() -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    return double


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
