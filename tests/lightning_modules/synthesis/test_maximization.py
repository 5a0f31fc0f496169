from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_modules import InputError, Network, as_network
from lightning_modules.synthesis import (
    L2,
    VARIANTS,
    Channel,
    ClassLogit,
    FourierImage,
    LogitMargin,
    Objective,
    PixelImage,
    Progress,
    RandomRotation,
    RandomScale,
    RandomShift,
    Recipe,
    TotalVariation,
    generators,
    maximize,
)
from tests.references import TinyNet

RECIPE = Recipe(FourierImage(), [TotalVariation()], [RandomShift(), RandomScale(), RandomRotation()], 40, 0.05, 0.5)


def make(network: Network, targets: list[int], recipe: Recipe = RECIPE) -> Tensor:
    keys = [f"0|{k}" for k in targets]
    return maximize(network, LogitMargin(), torch.tensor(targets), recipe, (112, 112), keys)


@pytest.mark.parametrize("penalties", [[], [TotalVariation(0)]])
@pytest.mark.parametrize("transforms", [[], [RandomShift(0)]])
def test_without_penalties_and_transforms_it_is_plain_ascent(penalties: list, transforms: list) -> None:
    """Adam on the logit, written out, of a network that is differentiated by autograd alone.

    The gradient of the pixels has the root mean square 1 / D, whatever the network's scale.
    """
    net = TinyNet()
    recipe = Recipe(PixelImage(std=0.5), penalties, transforms, 5, 0.1)
    image = maximize(net, ClassLogit(), torch.tensor([2]), recipe, (4, 5), ["a"])

    z = PixelImage(std=0.5).start((4, 5), generators(["a"], 0)[0]).double()
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    for step in range(1, 6):
        pixels = z.sigmoid().requires_grad_()
        (slope,) = torch.autograd.grad(net(pixels)[0, 2], pixels)
        gradient = slope / slope.square().mean().sqrt() / 60 * pixels.detach() * (1 - pixels.detach())
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        update = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        z = (z + 0.1 * update).detach()
    torch.testing.assert_close(image, z.sigmoid(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("objective", [ClassLogit(), LogitMargin("mean")], ids=repr)
def test_the_scale_of_a_network_does_not_matter(objective: Objective) -> None:
    """Logits four times as large (a power of two, which rounds nothing) give the same image to the bit."""

    class Louder(TinyNet):
        def forward(self, images: Tensor) -> Tensor:
            return 4 * super().forward(images)

    recipe = replace(RECIPE, regularizers=[TotalVariation(0.5), L2(0.5)], steps=8)
    torch.manual_seed(0)
    quiet, louder = TinyNet(), Louder()
    louder.load_state_dict(quiet.state_dict())
    size, keys = (16, 20), ["a", "b"]
    images = [maximize(net, objective, torch.tensor([1, 2]), recipe, size, keys) for net in (quiet, louder)]
    assert torch.equal(*images)
    assert (
        images[0] - maximize(quiet, objective, torch.tensor([1, 2]), replace(recipe, regularizers=[]), size, keys)
    ).abs().max() > 0.01


@pytest.mark.slow
def test_one_class_alone_equals_it_on_another_day_and_other_classes_do_not(shapes_network: Network) -> None:
    first, again, other = (make(shapes_network, [k], replace(RECIPE, steps=10)) for k in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


@pytest.mark.slow
def test_place_and_neighbours_in_a_pass_do_not_matter(shapes_network: Network) -> None:
    """Only how many share a pass may: that changes the sums, and the steps amplify it."""
    recipe = replace(RECIPE, steps=10)
    together = make(shapes_network, [0, 1, 2, 3], recipe)
    other = make(shapes_network, [3, 5, 5, 0], recipe)
    assert (other[0] - together[3]).abs().max() <= 1e-4
    assert (other[3] - together[0]).abs().max() <= 1e-4


@pytest.mark.slow
def test_threads_do_not_matter(shapes_network: Network) -> None:
    """In float64 and a few steps: other threads are other sums, and steps amplify a rounding into another image."""
    recipe, network = replace(RECIPE, steps=2), copy.deepcopy(shapes_network).double()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = make(network, [3], recipe)
        torch.set_num_threads(2)
        two = make(network, [3], recipe)
    finally:
        torch.set_num_threads(threads)
    assert (one - two).abs().max() <= 1e-9


def test_progress(shapes_network: Network) -> None:
    seen: list[Progress] = []
    recipe = replace(RECIPE, steps=12, transforms=[], regularizers=[])
    maximize(shapes_network, ClassLogit(), torch.tensor([1]), recipe, (48, 64), ["a"], seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert seen[0].images.shape == (1, 3, 48, 64)
    assert not seen[0].images.requires_grad
    assert seen[-1].activation > seen[0].activation


class Sum(ClassLogit):
    """What grows with each pixel, or with none."""

    def __init__(self, grows: bool) -> None:
        self.grows = grows

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        values = super().__call__(output, target)
        return values if self.grows else values.clamp(max=-1e9)


@pytest.mark.parametrize("transforms", [[], [RandomShift(2)]])
@pytest.mark.parametrize("grows", [True, False])
def test_progress_says_whether_the_objectives_own_gradient_reached(grows: bool, transforms: list) -> None:
    """Not that of the penalties, which moves the image here in any case."""
    seen: list[Progress] = []
    recipe = Recipe(PixelImage(std=0.5), [TotalVariation(100)], transforms, 3, 0.1)
    maximize(as_network(TinyNet()), Sum(grows), torch.tensor([2, 1]), recipe, (4, 5), ["a", "b"], seen.append)
    assert [progress.reached.tolist() for progress in seen] == [[grows, grows]] * 3
    assert not torch.equal(seen[0].images, seen[-1].images)


def test_the_network_is_left_alone_also_in_inference_mode(shapes_network: Network) -> None:
    before = copy.deepcopy(shapes_network.state_dict())
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.inference_mode():
        image = maximize(
            shapes_network, Channel("features.28"), torch.tensor([5]), replace(RECIPE, steps=2), (64, 64), ["a"]
        )
    assert image.min() >= 0
    assert image.max() <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in shapes_network.state_dict().items())
    assert all(parameter.grad is None for parameter in shapes_network.parameters())
    assert cudnn == (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)


def test_ablated() -> None:
    recipes = RECIPE.ablated()
    assert tuple(recipes) == VARIANTS
    contents = {name: (bool(recipe.regularizers), bool(recipe.transforms)) for name, recipe in recipes.items()}
    assert list(contents.values()) == [(False, False), (True, False), (False, True), (True, True)]
    assert recipes["both"] == RECIPE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"warm_up": 1.5}, r"warm_up must lie in \[0, 1\], got 1.5"),
    ],
)
def test_bad_recipes(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(RECIPE, **options)
