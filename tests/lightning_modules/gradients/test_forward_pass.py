from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import ForwardPass, GradCAM, GuidedBackprop, InputError, Needs, Network, SmoothGrad, as_network
from lightning_modules.gradients.rectifiers import RectifierRule
from lightning_modules.networks.inputs import trusted
from tests.references import TinyNet, full_pass


def snapshot(model: nn.Module) -> tuple:
    """Everything of a model that a method might leave changed."""
    return (
        [(name, id(module), type(module), module.training) for name, module in model.named_modules()],
        [
            (name, len(module._forward_hooks), len(module._backward_hooks), len(module._forward_pre_hooks))
            for name, module in model.named_modules()
        ],
        [
            (name, id(p), p.grad, p.requires_grad, p.detach().clone().sum().item())
            for name, p in model.named_parameters()
        ],
    )


class TestModelIsUnchanged:
    @pytest.fixture(params=[False, True], ids=["frozen", "trainable"])
    def network(self, request: pytest.FixtureRequest, shapes_network: Network) -> Network:
        return copy.deepcopy(shapes_network).requires_grad_(request.param)

    def test_after_methods_have_run(self, network: Network) -> None:
        images = torch.rand(2, 3, 112, 112)
        before, logits = snapshot(network), network(images)
        forward_pass = full_pass(network, images)
        for method in (GradCAM(), GuidedBackprop(), SmoothGrad(n_samples=2)):
            method(forward_pass)
        assert snapshot(network) == before
        assert torch.equal(network(images), logits)

    def test_after_an_exception(self, network: Network) -> None:
        class Broken(Exception):
            pass

        def fail(*_: object) -> None:
            raise Broken

        images = torch.rand(2, 3, 112, 112)
        handle = network.layers["classifier.0"].register_forward_hook(fail)
        before = snapshot(network)
        with pytest.raises(Broken):
            full_pass(network, images)
        assert snapshot(network) == before
        handle.remove()
        # No mode is left on: an ordinary gradient is the true one again.
        images.requires_grad_()
        assert torch.equal(torch.autograd.grad(-F.relu(images).sum(), images)[0], -(images > 0).float())

    def test_images_are_left_alone(self, network: Network) -> None:
        images = torch.rand(2, 3, 112, 112)
        before = images.clone()
        GradCAM()(full_pass(network, images))
        assert torch.equal(images, before)
        assert not images.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_whatever_grad_mode_is_on(shapes_network: Network, context: Callable) -> None:
    """Lightning runs test and predict under inference mode, gloo under no_grad."""
    images = torch.rand(2, 3, 112, 112)
    expected = SmoothGrad(n_samples=2)(full_pass(shapes_network, images, keys=["a", "b"]))
    with context():
        made_inside = images.clone()
        maps = SmoothGrad(n_samples=2)(full_pass(shapes_network, made_inside, keys=["a", "b"]))
    torch.testing.assert_close(maps, expected)


def test_logits_are_the_models(shapes_network: Network) -> None:
    images = torch.rand(3, 3, 112, 112)
    forward_pass = full_pass(shapes_network, images)
    torch.testing.assert_close(forward_pass.logits, shapes_network(images))
    assert torch.equal(forward_pass.target, forward_pass.logits.argmax(1))
    assert torch.equal(forward_pass.prediction, forward_pass.target)
    torch.testing.assert_close(forward_pass.probabilities.sum(1), torch.ones(3))


def test_gradients_are_computed_once(shapes_network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: calls.append(1) or grad(*args, **options))
    forward_pass = full_pass(shapes_network, torch.rand(1, 3, 112, 112))
    assert not calls
    for _ in range(3):
        forward_pass.layer_gradient()
        forward_pass.guided_gradient()
    assert len(calls) == 2


def test_layer_gradient_does_not_reach_the_layers_below(shapes_network: Network) -> None:
    """The gradient of the target layer is short: its backward pass stops at the layer."""
    reached = []
    needs = Needs(activations={"features.1"}, layer_gradients={"features.29"}, input_gradient=True)
    forward_pass = ForwardPass(shapes_network, torch.rand(1, 3, 112, 112), needs=needs)
    forward_pass._activations["features.1"].register_hook(lambda gradient: reached.append(gradient))
    forward_pass.layer_gradient("features.29")
    assert not reached
    forward_pass.input_gradient()
    assert reached


OF_THE_LAYER = Needs(layer_gradients={"features.29"})


class TestWithoutInputGradients:
    """What Grad-CAM needs, without a graph of the layers before."""

    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(5))

    # features.28 is a convolution that a ReLU overwrites; features.1 and features.29 lie on one path.
    @pytest.mark.parametrize("layers", [["features.29"], ["features.28"], ["features.1", "features.29"]])
    @pytest.mark.parametrize("trainable", [False, True])
    def test_layers_are_the_same(self, shapes_network: Network, layers: list[str], trainable: bool) -> None:
        network = copy.deepcopy(shapes_network).requires_grad_(trainable)
        before = snapshot(network)
        full = full_pass(network, self.images, 3, layers=layers)
        short = ForwardPass(network, self.images, 3, needs=Needs(layer_gradients=set(layers)))
        assert torch.equal(short.logits, full.logits)
        for layer in layers:
            assert torch.equal(short.activation(layer), full.activation(layer))
            assert torch.equal(short.layer_gradient(layer), full.layer_gradient(layer))
            assert short.layer_gradient(layer).count_nonzero()
        assert snapshot(network) == before

    def test_nothing_is_kept_before_the_layer(self, shapes_network: Network) -> None:
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.shape[1:]) or x, lambda x: x):
            saved: list = []
            full_pass(shapes_network, self.images)
            full, saved = saved, []
            ForwardPass(shapes_network, self.images, needs=OF_THE_LAYER)
        assert (3, 112, 112) in full
        assert saved
        assert all(len(shape) < 2 or shape[1:].numel() <= 49 or len(shape) == 1 for shape in saved)

    def test_input_gradients_are_refused(self, shapes_network: Network) -> None:
        forward_pass = ForwardPass(shapes_network, self.images, needs=OF_THE_LAYER)
        for wish, ask in (
            ("input_gradient=True", forward_pass.input_gradient),
            ("guided_gradient=True", forward_pass.guided_gradient),
            ("loss_gradient=True", lambda: forward_pass.loss_gradient(torch.sum)),
        ):
            with pytest.raises(InputError, match=rf"Needs\({wish}\).*needs\(network\)"):
                ask()

    def test_smooth_grad_makes_its_own_passes(self, shapes_network: Network) -> None:
        method = SmoothGrad(n_samples=2)
        short = ForwardPass(shapes_network, self.images)
        assert torch.equal(method(short), method(full_pass(shapes_network, self.images)))

    def test_a_layer_that_the_logits_do_not_depend_on(self) -> None:
        class Aside(TinyNet):
            def forward(self, x: Tensor) -> Tensor:
                self.features(x)
                return self.readout(x.mean((2, 3))[:, :2])

        net = Aside().requires_grad_(False)
        needs = Needs(layer_gradients={"features.1"})
        forward_pass = ForwardPass(as_network(net), torch.rand(1, 3, 4, 4).double(), 0, needs=needs)
        assert torch.equal(forward_pass.layer_gradient(), torch.zeros(1, 2, 4, 4).double())

    def test_what_follows_may_work_in_place(self) -> None:
        class InPlace(TinyNet):
            def forward(self, x: Tensor) -> Tensor:
                return self.readout(self.features(x).mul_(2).mean((2, 3)))

        net, images = InPlace().requires_grad_(False), torch.rand(1, 3, 4, 4).double()
        forward_pass = ForwardPass(as_network(net), images, 0, needs=Needs(layer_gradients={"features.1"}))
        assert torch.equal(forward_pass.activation(), net.features(images))
        expected = torch.tensor([1.0, -1.0]).double().view(1, 2, 1, 1).expand(1, 2, 4, 4) * 2 / 16
        torch.testing.assert_close(forward_pass.layer_gradient(), expected)


def _module(inplace: bool) -> Callable[[Tensor], Tensor]:
    return nn.ReLU(inplace)


@pytest.mark.parametrize(
    "relu",
    [
        _module(False),
        _module(True),
        F.relu,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
        lambda x: F.relu(x, True),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.relu(input=x),
    ],
)
def test_every_spelling_of_relu_follows_the_rule(relu: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (relu(x * 1) * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)).sum((2, 3))[:, :1].repeat(1, 2) - relu(
                x * 1
            ).sum((1, 2, 3))[:, None] * torch.tensor([0.0, 1.0])

    images = torch.rand(1, 3, 2, 2) - 0.5
    with trusted():  # no pixels
        forward_pass = full_pass(Net().eval(), images, 1)
    positive = (images > 0).float()
    true = positive * torch.tensor([0.0, -1.0, -1.0]).view(3, 1, 1)
    assert torch.equal(forward_pass.input_gradient(), true)
    # The first ReLU's gradient from above is 1, 0, 0 and passes; the second's is -1 and is cut.
    guided = positive * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    assert torch.equal(forward_pass.guided_gradient(), guided)


def test_without_the_guided_gradient_the_network_runs_as_it_is(shapes_network: Network) -> None:
    images = torch.rand(1, 3, 112, 112)
    needs = Needs(layer_gradients={"features.29"}, input_gradient=True)
    with_rule, without = full_pass(shapes_network, images, 3), ForwardPass(shapes_network, images, 3, needs=needs)
    assert torch.equal(without.input_gradient(), with_rule.input_gradient())
    assert torch.equal(without.layer_gradient(), with_rule.layer_gradient())
    with pytest.raises(InputError, match="guided_gradient=True"):
        without.guided_gradient()
    seen = []
    handle = shapes_network.layers["features.1"].register_forward_hook(
        lambda module, args, output: seen.append(output.grad_fn)
    )
    for needs in (Needs(guided_gradient=True), Needs(input_gradient=True)):
        with_rule.at(images, torch.tensor([3]), needs)
    handle.remove()
    assert [type(node).__name__ for node in seen] == ["ReluBackward0", "ReluBackward0"]


class TestGradientsOfOthersAreLeftAlone:
    """Whoever else has the gradient that comes into a ReLU's backward pass must not find it changed."""

    @staticmethod
    def ruled(x: Tensor, leaf: Tensor, rule: RectifierRule) -> Tensor:
        output = F.relu(x)
        rule.put_on(output, leaf)
        return output

    x = torch.tensor([-1.0, 2.0, -3.0])

    @pytest.mark.parametrize("guided", [False, True])
    @pytest.mark.parametrize("kept_by", ["hook", "view", "output", "storage", "numpy"])
    def test_where_it_is_kept(self, kept_by: str, guided: bool) -> None:
        kept: list[Tensor] = []
        x, rule = self.x.clone().requires_grad_(), RectifierRule()
        rule.is_guided = guided
        output = self.ruled(x * 1, x, rule)
        if kept_by == "hook":
            output.register_hook(lambda gradient: kept.append(gradient))
        elif kept_by == "view":
            output.register_hook(lambda gradient: kept.append(gradient[:]))
        elif kept_by == "storage":
            output.register_hook(lambda gradient: kept.append(torch.tensor([]).set_(gradient.untyped_storage())))
        elif kept_by == "numpy":
            output.register_hook(lambda gradient: kept.append(torch.from_numpy(gradient.numpy())))
        weights = torch.tensor([3.0, 3.0, -3.0])
        grads = torch.autograd.grad((output * weights).sum(), [x, output] if kept_by == "output" else x)
        assert grads[0].tolist() == [0, 3, 0]
        assert (grads[1] if kept_by == "output" else kept[0]).tolist() == [3, 3, -3]

    def test_where_two_branches_share_it(self) -> None:
        x = self.x.clone().requires_grad_()
        branch = x * 1
        assert torch.autograd.grad(((self.ruled(branch, x, RectifierRule()) + branch) * 3).sum(), x)[0].tolist() == [
            3,
            6,
            3,
        ]

    def test_the_callers_own(self) -> None:
        x, cotangent = self.x.clone().requires_grad_(), torch.ones(3)
        torch.autograd.grad(self.ruled(x * 1, x, RectifierRule()), x, cotangent)
        assert cotangent.tolist() == [1, 1, 1]

    def test_graph_of_the_gradient(self) -> None:
        x = self.x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.ruled(x * x, x, RectifierRule()).square().sum(), x, create_graph=True)
        assert torch.autograd.grad(gradient.sum(), x)[0].tolist() == (12 * self.x**2).tolist()


def test_keys_default_to_the_pixels() -> None:
    images = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    images[2] = images[0]
    keys = full_pass(TinyNet(), images).keys
    assert keys[0] == keys[2] != keys[1]
    assert full_pass(TinyNet(), images[1:2]).keys == keys[1:2]


def test_no_images(shapes_network: Network) -> None:
    forward_pass = full_pass(shapes_network, torch.zeros(0, 3, 112, 112))
    assert GradCAM()(forward_pass).shape == (0, 1, 112, 112)


class TestBadInput:
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": torch.rand(3, 4, 4)}, r"\(N, 3, H, W\), got \(3, 4, 4\): .*images\[None\]"),
            ({"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "pixels_of makes pixels of bytes"),
            ({"target": 3}, r"\[0, 3\), got 3"),
            ({"target": torch.tensor([0, -1])}, r"\[0, 3\)"),
            ({"target": torch.tensor([0])}, r"integer \(2,\)"),
            ({"target": torch.tensor([0.0, 1.0])}, "integer"),
            ({"layers": ["features.9"]}, r"no layer 'features.9'. Did you mean features.1?"),
            ({"keys": ["one"]}, "1 keys for 2 images"),
        ],
    )
    def test_arguments(self, change: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            full_pass(TinyNet(), **{"images": self.images, **change})

    def test_training_mode(self) -> None:
        with pytest.raises(InputError, match="training mode"):
            full_pass(TinyNet().train(), self.images)

    def test_layer_that_was_not_kept(self) -> None:
        with pytest.raises(InputError, match=r"activations=\{'features.0'\}"):
            GradCAM("features.0")(full_pass(TinyNet(), self.images))

    def test_model_without_target_layer(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
        forward_pass = full_pass(net, self.images)
        with pytest.raises(InputError, match=r"Sequential does not say which layer to look at"):
            GradCAM()(forward_pass)
        assert GradCAM("0")(full_pass(net, self.images, layers=["0"])).shape == (2, 1, 4, 4)

    def test_model_without_logits(self) -> None:
        net = as_network(TinyNet())
        net.module.readout = nn.Unflatten(1, (1, 2)).eval()
        with pytest.raises(InputError, match=r"logits \(N, n_classes\), got \(2, 1, 2\)"):
            full_pass(net, self.images)

    def test_a_module_that_does_not_say_how_it_is_normalized(self) -> None:
        with pytest.raises(InputError, match=r"A TinyNet does not say how its images are normalized: .*as_network\("):
            ForwardPass(TinyNet(), self.images)  # type: ignore[arg-type]


def test_bf16_maps_are_float32_and_near(shapes_network: Network) -> None:
    images = torch.rand(2, 3, 112, 112)
    exact = full_pass(shapes_network, images, 0)
    with torch.autocast("cpu", torch.bfloat16):
        forward_pass = full_pass(shapes_network, images, 0)
        cam, gradient = GradCAM()(forward_pass), GuidedBackprop()(forward_pass)
    assert cam.dtype == gradient.dtype == forward_pass.logits.dtype == torch.float32
    for ours, reference in ((cam, GradCAM()(exact)), (gradient, GuidedBackprop()(exact))):
        correlation = torch.corrcoef(torch.stack([ours.flatten(), reference.flatten()]))[0, 1]
        assert correlation > 0.95


class Residual(nn.Module):
    """A network that goes by its target layer, the second of the two times that it runs."""

    target_layer = "again@1"

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, 5)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=generator)
        self.double().eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(images))
        x = x + F.relu(self.again(x))
        x = F.relu_(x + self.again(x))
        return self.last(F.relu(x).mean((2, 3)))


@pytest.mark.parametrize("kind", ["vgg16", "residual"])
def test_gradients_of_one_pass_are_those_of_passes_for_each(kind: str, shapes_network: Network) -> None:
    network, size = (shapes_network, 112) if kind == "vgg16" else (as_network(Residual()), 12)
    dtype = network.mean.dtype
    images = torch.rand(3, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    together, cotangent = full_pass(network, images), torch.randn(3, len(network.class_names), dtype=dtype)
    layer = str(network.target_layer)
    for needs, compute in (
        (Needs(), lambda forward_pass: forward_pass.logits),
        (Needs(), lambda forward_pass: forward_pass.target),
        (Needs(activations={layer}), lambda forward_pass: forward_pass.activation()),
        (Needs(layer_gradients={layer}), lambda forward_pass: forward_pass.layer_gradient()),
        (Needs(guided_gradient=True), lambda forward_pass: forward_pass.guided_gradient()),
        (Needs(input_gradient=True), lambda forward_pass: forward_pass.input_gradient()),
        (Needs(loss_gradient=True), lambda forward_pass: forward_pass.loss_gradient(lambda y: (y * cotangent).sum())),
    ):
        apart = ForwardPass(network, images, needs=needs)
        assert torch.equal(compute(together), compute(apart))
    assert (together.guided_gradient() - together.input_gradient()).abs().max() > 1e-4


def test_a_pass_for_a_single_gradient_frees_what_it_needs(shapes_network: Network) -> None:
    images = torch.rand(1, 3, 112, 112)
    single = ForwardPass(shapes_network, images, needs=Needs(input_gradient=True))
    gradient = single.input_gradient()
    assert torch.equal(gradient, full_pass(shapes_network, images).input_gradient())
    assert single.input_gradient() is gradient
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(single._attached_logits.sum(), single.images)


def test_a_pass_without_needs_keeps_no_graph(shapes_network: Network) -> None:
    forward_pass = ForwardPass(shapes_network, torch.rand(1, 3, 112, 112))
    assert not forward_pass._attached_logits.requires_grad
    with pytest.raises(InputError, match=r"activations=\{'features.29'\}"):
        forward_pass.activation()


def test_activations_alone_keep_no_graph(shapes_network: Network) -> None:
    forward_pass = ForwardPass(shapes_network, torch.rand(1, 3, 112, 112), needs=Needs(activations={"features.29"}))
    assert not forward_pass._attached_logits.requires_grad
    with pytest.raises(InputError, match=r"layer_gradients=\{'features.29'\}"):
        forward_pass.layer_gradient()
