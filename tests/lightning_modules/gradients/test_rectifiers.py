from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_modules import (
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    InputError,
    Needs,
    Saliency,
    SmoothGrad,
    as_network,
    explain,
)
from lightning_modules.gradients.rectifiers import RectifierRule
from lightning_modules.methods.explain import joined_needs
from lightning_modules.networks.inputs import trusted
from tests.lightning_modules.networks.observed.test_nonlinearities import Own
from tests.references import relative_error

ZERO = torch.zeros((), dtype=torch.float64)


class Net(nn.Module):
    """Two layers that meet exact zeros: integer weights, and images of eighths."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rectify = rectify
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.last = nn.Linear(4, 3)
        generator = torch.Generator().manual_seed(0)
        for layer in (self.first, self.second, self.last):
            layer.weight.data = torch.randint(-2, 3, layer.weight.shape, generator=generator).float()
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectify(self.first(x))
        return self.last(self.rectify(self.second(x) - 1).mean((2, 3)))


IMAGES = torch.randint(0, 9, (2, 3, 6, 6), generator=torch.Generator().manual_seed(1)).double() / 8


def gradients(rectify: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    needs = Needs(guided_gradient=True, input_gradient=True)
    forward_pass = ForwardPass(as_network(Net(rectify), input_size=6), IMAGES, 1, needs=needs)
    guided, true = forward_pass.guided_gradient(), forward_pass.input_gradient()
    alone = ForwardPass(as_network(Net(rectify), input_size=6), IMAGES, 1, needs=Needs(guided_gradient=True))
    assert torch.equal(alone.guided_gradient(), guided)
    return guided, true


def test_the_networks_meet_exact_zeros() -> None:
    assert (Net(F.relu).first(IMAGES) == 0).any()


@pytest.mark.parametrize(
    "rectify",
    [
        nn.ReLU(inplace=True),
        torch.relu,
        lambda x: torch.ops.aten.relu(x),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_(0),
        lambda x: x.clamp(0, float("inf")),
        lambda x: x.clamp_min(0),
        lambda x: torch.clamp_min(x, ZERO),
        lambda x: x.clamp(min=ZERO),
        lambda x: torch.maximum(x, ZERO),
        lambda x: torch.maximum(ZERO, x),
        lambda x: torch.max(x, torch.zeros_like(x)),
        lambda x: torch.fmax(x, ZERO),
        # One operand is broadcast, and the sum of its gradients comes back.
        lambda x: torch.maximum(x, ZERO.expand(4, *x.shape)).mean(0),
        lambda x: F.threshold(x, 0, 0),
        nn.Threshold(0, 0, inplace=True),
        lambda x: F.leaky_relu(x, 0.0),
        lambda x: x.clamp(0, 1000),
    ],
)
def test_every_spelling_gives_the_guided_map_of_relu(rectify: Callable[[Tensor], Tensor]) -> None:
    expected, plain = gradients(nn.ReLU())
    guided, _ = gradients(rectify)
    assert expected.count_nonzero()
    assert not torch.allclose(expected, plain)
    assert torch.equal(guided, expected)


@pytest.mark.parametrize(
    "rectify", [F.relu6, nn.ReLU6(inplace=True), nn.Hardtanh(0, 6), lambda x: x.clamp(0, 6), lambda x: x.clamp_(0, 6)]
)
def test_a_rectifier_with_a_maximum_is_flat_there_too(rectify: Callable[[Tensor], Tensor]) -> None:
    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.clamp(0, 6)

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, *above: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return above[0] * (x > 0) * (x < 6) * (above[0] > 0)

    net, images = Net(ByHand.apply), (4 * IMAGES).requires_grad_()
    (expected,) = torch.autograd.grad(net(images)[:, 1].sum(), images)
    assert (net.first(images) == 6).any()
    network = as_network(Net(rectify), input_size=6)
    with trusted():  # no pixels
        ours = ForwardPass(network, 4 * IMAGES, 1, needs=Needs(guided_gradient=True)).guided_gradient()
    assert relative_error(ours, expected) <= 1e-12


def test_the_true_gradient_of_the_same_graph_stays() -> None:
    images = IMAGES.clone().requires_grad_()
    for rectify in (F.relu, lambda x: x.clamp(min=0), lambda x: torch.maximum(x, ZERO)):
        (true,) = torch.autograd.grad(Net(rectify)(images)[:, 1].sum(), images)
        assert relative_error(gradients(rectify)[1], true) <= 1e-12


def test_hooks_go_with_the_graph() -> None:
    """At once, not when Python collects garbage."""
    gc.collect()
    gc.disable()
    try:
        for rectify in (F.relu, lambda x: x.clamp(0, 6), lambda x: torch.maximum(x, ZERO)):
            rule, images = RectifierRule(), IMAGES.clone().requires_grad_()
            alive = weakref.ref(rule)
            logits = Net(rectify)(images)
            rule.put_on(logits, images)
            with rule.guided():
                torch.autograd.grad(logits.sum(), images, retain_graph=True)
            del rule
            assert alive() is not None
            del logits
            assert alive() is None
    finally:
        gc.enable()


class TestTorchScript:
    """It is optimized after its first runs, and hides its graph then."""

    @staticmethod
    def written_out(x: Tensor) -> Tensor:
        return torch.relu(x * 2) + torch.relu(x)

    @staticmethod
    def fresh() -> Callable[[Tensor], Tensor]:
        """A function of its own, which nobody has run yet."""
        return torch.jit.CompilationUnit(  # type: ignore[no-any-return]
            "def f(x):\n    return torch.relu(x * 2) + torch.clamp(x, min=0.0)\n"
        ).f

    @pytest.mark.filterwarnings("error")
    def test_a_function(self) -> None:
        """However often it ran, for maps or for predictions."""
        network, reference = as_network(Net(self.fresh()), input_size=6), gradients(self.written_out)[0]
        for _ in range(4):
            with torch.no_grad():
                network(IMAGES)
            explain(network, IMAGES, [Saliency()], 1)
            assert torch.equal(explain(network, IMAGES, [GuidedBackprop()], 1)["GuidedBackprop"], reference)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script:")
    @pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
    def test_a_part(self, kind: type[nn.Module]) -> None:
        """A part takes no hooks; the layers around it are looked at as ever."""
        part = torch.jit.script(nn.Sequential(kind(), nn.Identity()))
        network, plain = as_network(Net(part), input_size=6), as_network(Net(kind()), input_size=6)
        assert network.facts.nonlinearities == plain.facts.nonlinearities
        methods = [GuidedBackprop(), GuidedGradCAM("first")]
        for _ in range(4):
            ours, theirs = (explain(each, IMAGES, methods, 1) for each in (network, plain))
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_what_its_user_has_optimized_is_told(self) -> None:
        """PyTorch keeps it."""
        network = as_network(Net(self.fresh()), input_size=6)
        images = IMAGES.clone().requires_grad_()
        for _ in range(4):
            torch.autograd.grad(network(images).sum(), images)
        with pytest.warns(UserWarning, match="the true gradient passes optimized TorchScript, for"):
            explain(network, IMAGES, [GuidedBackprop()])


class TestCheckpoints:
    def test_relus_in_one_follow_the_rule(self) -> None:
        reference = gradients(nn.ReLU())[0]
        network = as_network(Net(lambda x: checkpoint(F.relu, x, use_reentrant=False)), input_size=6)
        assert torch.equal(explain(network, IMAGES, [GuidedBackprop()], 1)["GuidedBackprop"], reference)

    def test_of_others_the_input_is_not_seen(self) -> None:
        network = as_network(Net(lambda x: checkpoint(F.relu6, x, use_reentrant=False)), input_size=6)
        with pytest.raises(InputError, match=r"what Hardtanh is given inside torch\.utils\.checkpoint: switch"):
            explain(network, IMAGES, [GuidedBackprop()], 1)

    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
    def test_a_reentrant_one_hides_all(self) -> None:
        """PyTorch gives no gradient of it with respect to the pixels alone."""
        network = as_network(Net(lambda x: checkpoint(F.relu, x, use_reentrant=True)), input_size=6)
        assert network.facts.description()["nonlinearities"]["unknown"] == {"a reentrant checkpoint": 2}
        for method in (GuidedBackprop(), Saliency(), GradCAM("first")):
            with pytest.raises(InputError, match=r"Net runs a reentrant checkpoint.*use_reentrant=False"):
                explain(network, IMAGES, [method], 1)


def needs_of(rectify: Callable[[Tensor], Tensor]) -> Needs:
    return joined_needs(as_network(Net(rectify), input_size=6, name="MyNet"), [GuidedBackprop()])


@pytest.mark.parametrize(
    ("rectify", "named"),
    [
        (F.gelu, "GELU"),
        (lambda x: F.silu(x).sigmoid(), "SiLU and Sigmoid"),
        (nn.PReLU().double(), "PReLU"),
    ],
)
def test_where_the_rule_says_nothing_it_is_refused(rectify: Callable[[Tensor], Tensor], named: str) -> None:
    message = f"is a rule for ReLUs, and the activations of .*Net are only {named}: take Saliency"
    with pytest.raises(InputError, match=message):
        needs_of(rectify)
    network = as_network(Net(rectify), input_size=6)
    with pytest.raises(InputError, match=message):
        ForwardPass(network, IMAGES, needs=Needs(guided_gradient=True))
    assert explain(network, IMAGES, [SmoothGrad(1)])["SmoothGrad(n_samples=1)"].isfinite().all()


@pytest.mark.parametrize(
    ("rectify", "named"),
    [
        (lambda x: F.hardswish(F.relu(x)), "Hardswish"),
        (Own.apply, "Own"),
        (lambda x: x * (x > 0), "a product with a mask"),
    ],
)
def test_where_the_rule_says_nothing_of_a_part_it_is_told(rectify: Callable[[Tensor], Tensor], named: str) -> None:
    with pytest.warns(UserWarning, match=rf"In Net the true gradient passes {named}, for") as told:
        gradients(rectify)
    assert len(told) == 2  # once a network
    network = as_network(Net(rectify), input_size=6)
    assert named in network.facts.nonlinearities.without_rule
    methods = [GuidedBackprop(), GuidedGradCAM("first")]
    with pytest.warns(UserWarning, match=named):
        explain(network, IMAGES, methods)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(network, IMAGES, methods)


@pytest.mark.parametrize("rectify", [F.relu, F.relu6, lambda x: x])
def test_nothing_is_told_of_rectifiers_or_of_a_linear_network(rectify: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert needs_of(rectify).guided_gradient


def test_a_linear_networks_guided_gradient_is_the_gradient() -> None:
    guided, true = gradients(lambda x: x)
    assert torch.equal(guided, true)


def test_a_forward_without_a_graph_is_refused() -> None:
    class Detached(Net):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    network = as_network(Detached(F.relu), input_size=6)
    with pytest.raises(InputError, match=r"logits of Detached have no gradient .*no_grad"):
        ForwardPass(network, IMAGES, needs=Needs(input_gradient=True))
    assert ForwardPass(network, IMAGES).logits.shape == (2, 3)
