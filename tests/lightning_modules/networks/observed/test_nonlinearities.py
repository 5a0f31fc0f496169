from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.observed.nonlinearities import Nonlinearities, nonlinearities_of

ZERO = torch.zeros(())


def found(function: Callable[[Tensor], Tensor]) -> Nonlinearities:
    images = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return nonlinearities_of(function(images * 1).flatten(1), images)


def scripted() -> Callable[[Tensor], Tensor]:
    """A function of TorchScript that has not run yet."""

    def function(x: Tensor) -> Tensor:
        return torch.relu(x * 2) + torch.clamp(x, min=0.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


class Own(torch.autograd.Function):
    """A ReLU that nobody can see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "ReLU"),
        (lambda x: torch.relu_(x), "ReLU"),
        (lambda x: torch.ops.aten.relu(x), "ReLU"),
        (lambda x: x.clamp(min=0), "ReLU"),
        (lambda x: x.clamp_(0), "ReLU"),
        (lambda x: x.clamp(0, float("inf")), "ReLU"),
        (lambda x: x.clamp_min(0), "ReLU"),
        (lambda x: x.clamp(min=ZERO), "ReLU"),
        (lambda x: torch.clamp_min(x, ZERO), "ReLU"),
        (lambda x: torch.maximum(x, ZERO), "ReLU"),
        (lambda x: torch.maximum(ZERO, x), "ReLU"),
        (lambda x: torch.max(x, torch.zeros_like(x)), "ReLU"),
        (lambda x: torch.fmax(x, ZERO), "ReLU"),
        (lambda x: F.threshold(x, 0, 0), "ReLU"),
        (lambda x: F.leaky_relu(x, 0.0), "ReLU"),
        (F.relu6, "ReLU6"),
        (nn.ReLU6(inplace=True), "ReLU6"),
        (lambda x: x.clamp(0, 6), "ReLU6"),
        (lambda x: x.clamp(ZERO, torch.tensor(6.0)), "ReLU6"),
        (nn.Hardtanh(0, 20), "ReLU20"),
    ],
)
def test_rectifiers(function: Callable[[Tensor], Tensor], name: str) -> None:
    assert found(function) == Nonlinearities(rectifiers={name: 1})


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.silu, "SiLU"),
        (F.gelu, "GELU"),
        (F.hardswish, "Hardswish"),
        (F.hardsigmoid, "Hardsigmoid"),
        (F.leaky_relu, "LeakyReLU"),
        (nn.PReLU(), "PReLU"),
        (F.rrelu, "RReLU"),
        (F.elu, "ELU"),
        (F.celu, "CELU"),
        (F.selu, "SELU"),
        (F.mish, "Mish"),
        (F.softplus, "Softplus"),
        (torch.tanh, "Tanh"),
        (torch.sigmoid, "Sigmoid"),
        (lambda x: F.glu(x, 1), "GLU"),
        (lambda x: torch.maximum(x, 0.1 * x), "Maximum"),
        (lambda x: x.clamp(max=0), "Clamp"),
        (lambda x: x.clamp(min=torch.tensor([0.0, 1.0, 2.0])), "Clamp"),
        (F.hardtanh, "Hardtanh"),
        (lambda x: F.threshold(x, 1, 0), "Threshold"),
        (lambda x: x.square(), "Pow"),
        (lambda x: x * x, "Pow"),
        (lambda x: 1 / (1 + (-x).exp()), "Exp"),
        (lambda x: x * F.relu6(x + 3) / 6, "Hardsigmoid"),
        (lambda x: (F.relu6(x + 3) / 6).mul(x), "Hardsigmoid"),
    ],
)
def test_others(function: Callable[[Tensor], Tensor], name: str) -> None:
    assert found(function) == Nonlinearities(others={name: 1})


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Own.apply, "Own"),
        (lambda x: (x + x.abs()) / 2, "abs"),
        (lambda x: torch.where(x > 0, x, 0), "torch.where"),
        (lambda x: x.masked_fill(x <= 0, 0), "masked_fill"),
        (lambda x: x * (x > 0), "a product with a mask"),
        (lambda x: x * (x > 0).float(), "a product with a mask"),
        (lambda x: (x[:, :2].relu_(), x)[1], "an operation in place on a view"),
    ],
)
def test_unknown(function: Callable[[Tensor], Tensor], name: str) -> None:
    assert found(function) == Nonlinearities(unknown={name: 1})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: F.conv2d(x, torch.ones(3, 4, 1, 1)),
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)),
        lambda x: F.layer_norm(x, [3, 3]),
        lambda x: F.normalize(x, dim=1),
        lambda x: (x - x.mean()) / (x - x.mean()).pow(2).mean().add(1e-6).sqrt(),
        lambda x: x.softmax(1),
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: F.max_pool2d(x, 2),
        lambda x: x * torch.ones(4, 1, 1),
        lambda x: x.detach(),
    ],
)
def test_none(function: Callable[[Tensor], Tensor]) -> None:
    assert found(function) == Nonlinearities()


def test_inside_torchscript() -> None:
    seen, hidden = scripted(), scripted()
    for _ in range(4):
        with torch.jit.optimized_execution(False):
            assert found(seen) == Nonlinearities(rectifiers={"ReLU": 2})
        found(hidden)
    # PyTorch keeps what it has optimized.
    with torch.jit.optimized_execution(False):
        assert found(hidden) == Nonlinearities(unknown={"optimized TorchScript": 1})


def test_what_parameters_go_through_alone_does_not_count() -> None:
    weight = torch.randn(4, 1, 1, requires_grad=True)
    assert found(lambda x: (x * weight.sigmoid()).relu()) == Nonlinearities(rectifiers={"ReLU": 1})


def test_each_call_counts_once_however_many_ways_lead_through_it() -> None:
    def shared(x: Tensor) -> Tensor:
        y = x.relu()
        return y.relu() + y.sigmoid() + y

    assert found(shared) == Nonlinearities(rectifiers={"ReLU": 2}, others={"Sigmoid": 1})
