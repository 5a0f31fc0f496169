"""The public front: one pass for all methods, which keeps what they need and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules import (
    AttributionMethod,
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    InputError,
    Needs,
    Network,
    Saliency,
    SmoothGrad,
    as_network,
    explain,
)
from tests.references import TinyNet, full_pass

METHODS = (GradCAM(), GuidedBackprop(), GuidedGradCAM(), Saliency(), SmoothGrad(n_samples=2))


def test_maps_are_those_of_each_method_alone(shapes_network: Network) -> None:
    images, keys = torch.rand(2, 3, 112, 112), ["a", "b"]
    maps = explain(shapes_network, images, METHODS, 3, keys=keys)
    assert list(maps) == [*(repr(method) for method in METHODS)]
    assert maps.forward_pass.target.tolist() == [3, 3]
    for method in METHODS:
        (alone,) = explain(shapes_network, images, [method], 3, keys=keys).values()
        assert torch.equal(maps[repr(method)], alone)
        assert torch.equal(alone, method(full_pass(shapes_network, images, 3, keys=keys)))
        assert not alone.requires_grad


@pytest.mark.parametrize(("methods", "forwards", "backwards"), [(METHODS[:3], 1, 2), (METHODS[:1], 1, 1), ([], 1, 0)])
def test_passes(
    methods: list[AttributionMethod], forwards: int, backwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One forward; of the backward passes, one for the layer, which ends there, and one for the pixels."""
    counts = {"forward": 0, "backward": 0}
    net, grad = TinyNet(), torch.autograd.grad
    network = as_network(net)
    net.register_forward_hook(lambda *_: counts.update(forward=counts["forward"] + 1))

    def counting(*args: Any, **options: Any) -> Any:
        counts["backward"] += 1
        return grad(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    explain(network, torch.rand(2, 3, 4, 4, dtype=torch.float64), methods)
    assert counts == {"forward": forwards, "backward": backwards}


def test_needs_are_joined(shapes_network: Network) -> None:
    needs = [method.needs(shapes_network) for method in METHODS]
    assert needs[0] == Needs(layer_gradients={"features.29"})
    assert needs[2] == needs[0] | needs[1]
    assert needs[4] == Needs()
    maps = explain(shapes_network, torch.rand(1, 3, 112, 112), METHODS, needs=Needs(activations={"features.1"}))
    assert maps.forward_pass.activation("features.1").shape == (1, 16, 112, 112)
    assert maps.forward_pass.needs.n_gradients == 3
    with pytest.raises(InputError, match="loss_gradient=True"):
        maps.forward_pass.loss_gradient(torch.sum)


class Greedy(AttributionMethod):
    """Says that it reads nothing, and reads the gradient of the pixels."""

    def needs(self, network: Network) -> Needs:
        return Needs()

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.input_gradient()


class Small(AttributionMethod):
    """Its map is of another size than the images."""

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.input_gradient()[..., :2]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([Greedy()], r"made without what is read of it.*Needs\(input_gradient=True\).*needs\(network\)"),
        ([Small()], r"The method Small gave a map of shape \(2, 3, 4, 2\).*N = 2, H = 4, W = 4"),
        ([GradCAM(), GuidedBackprop(), GradCAM()], "GradCAM is named twice among the methods"),
        ([GradCAM("features.2")], r"GradCAM needs a layer, and TinyNet has no layer 'features\.2'\. Did you mean"),
    ],
)
def test_slips_are_explained(methods: list[AttributionMethod], message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(as_network(TinyNet()), torch.rand(2, 3, 4, 4, dtype=torch.float64), methods)
