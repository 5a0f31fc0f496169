from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

from lightning_modules import InputError, Network, Saliency, as_network
from lightning_modules.metrics import WeightRandomization, cascade, forgetting, weighted_layers
from tests.references import full_pass


def test_order_is_from_the_output_down(shapes_network: Network) -> None:
    layers = weighted_layers(shapes_network)
    assert layers[:4] == ["classifier.6", "classifier.3", "classifier.0", "features.28"]
    assert layers[-1] == "features.0"
    assert len(layers) == 16


class TestCascade:
    def test_layers_are_randomized_one_after_the_other(self, shapes_network: Network) -> None:
        before = copy.deepcopy(shapes_network.state_dict())
        changed: set[str] = set()
        for name, random in cascade(shapes_network, ["classifier.6", "features.28"]):
            changed.add(name)
            for key, tensor in random.state_dict().items():
                same = torch.equal(tensor, before[key])
                assert same == (key.rpartition(".")[0] not in changed), key
        assert changed == {"classifier.6", "features.28"}
        for key, tensor in shapes_network.state_dict().items():
            assert torch.equal(tensor, before[key])

    def test_seed_decides(self, shapes_network: Network) -> None:
        first, again, other = (
            next(cascade(shapes_network, ["features.0"], seed))[1].state_dict()["features.0.weight"].clone()
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_under_inference_mode(self, shapes_network: Network) -> None:
        images = torch.rand(1, 3, 112, 112)
        with torch.inference_mode():
            for _, random in cascade(shapes_network, ["classifier.6"]):
                assert full_pass(random, images).input_gradient().isfinite().all()


def forgotten(network: Network) -> Network:
    """The network at the end of the cascade."""
    *_, (_, random) = cascade(network, weighted_layers(network))
    return random


def with_learnt_parameters(network: Network) -> Network:
    """The network with nothing as it begins: all parameters and statistics are moved by a little."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.01 + 0.1 * torch.rand_like(tensor)
    return network


class Attending(nn.Module):
    """A small ViT: a patch layer, tokens, two blocks of attention, and a head for training alone."""

    input_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.blocks = Blocks()
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.head_for_training = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        features = self.norm(tokens[:, 0])
        return self.head(features) + (self.head_for_training(features) if self.training else 0)


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.rand(1, 5, 8))
        self.first, self.second = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.positions
        # Not in the order in which they are declared.
        tokens = tokens + self.second(tokens, tokens, tokens)[0]
        return tokens + self.scale * self.first(tokens, tokens, tokens)[0]


class TestAttention:
    @pytest.fixture
    def network(self) -> Network:
        return with_learnt_parameters(as_network(Attending().eval()))

    def test_order_is_that_in_which_layers_ran(self, network: Network) -> None:
        """What modules hold beside layers comes after these; attention reads out_proj without running it."""
        expected = ["head", "norm", "blocks.first", "blocks.second", "blocks", "patches", "Attending"]
        assert weighted_layers(network) == expected

    def test_each_step_changes_all_that_its_layer_holds(self, network: Network) -> None:
        before = copy.deepcopy(network.state_dict())
        kept = dict(before)
        prefixes = ["head.", "norm.", "blocks.first.", "blocks.second.", "blocks.", "patches.", "token"]
        for prefix, (_, random) in zip(prefixes, cascade(network, weighted_layers(network)), strict=True):
            for name in [name for name in kept if name.startswith(prefix)]:
                tensor = random.state_dict()[name]
                assert not tensor.is_floating_point() or (tensor != kept.pop(name)).all(), name
            assert all(torch.equal(random.state_dict()[name], tensor) for name, tensor in kept.items())
        left = {name for name, tensor in kept.items() if tensor.is_floating_point()}
        assert left == {"head_for_training.weight", "head_for_training.bias"}

    def test_what_each_begins_from(self, network: Network) -> None:
        state = forgotten(network).state_dict()
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            assert (state[f"norm.{name}"] == value).all()
        assert not state["blocks.first.in_proj_bias"].any()
        # 24 x 8 by He: the deviation is sqrt(2 / 8).
        assert float(state["blocks.first.in_proj_weight"].std()) == pytest.approx(0.5, rel=0.2)
        assert float(state["blocks.positions"].std()) == pytest.approx(0.02, rel=0.4)
        assert float(state["blocks.scale"].abs().max()) < 0.08

    def test_double_precision_draws_the_same(
        self, network: Network, double_by_default: Callable[[], AbstractContextManager[None]]
    ) -> None:
        expected = forgotten(network).state_dict()
        with double_by_default():
            found = forgotten(copy.deepcopy(network).double()).state_dict()
        assert all(torch.equal(found[name].float(), expected[name].float()) for name in expected if "train" not in name)


def test_convolutions_and_linear_layers_are_drawn_as_ever(shapes_network: Network) -> None:
    """By He, each from a generator of its own, so that scores of VGG16 stay what they were, to the bit."""
    state, layers = forgotten(shapes_network).state_dict(), weighted_layers(shapes_network)
    for seed, layer in enumerate(layers):
        weight = torch.empty_like(state[f"{layer}.weight"], memory_format=torch.contiguous_format)
        nn.init.kaiming_normal_(weight, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(state[f"{layer}.weight"], weight)
        assert not state[f"{layer}.bias"].any()


def test_what_layers_share_is_drawn_once() -> None:
    class Tied(nn.Module):
        input_size = 8

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x.mean((2, 3))).relu())

    network = as_network(Tied().eval())
    assert weighted_layers(network) == ["second", "first"]
    weights = [random.state_dict()["first.weight"].clone() for _, random in cascade(network, ["second", "first"])]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], network.module.first.weight)


class Raw(nn.Module):
    """All is held by the network itself, in lists, or by a head that is never used."""

    input_size = 8

    def __init__(self, is_learnt: bool = True) -> None:
        super().__init__()
        self.idle = nn.Linear(2, 2)
        if is_learnt:
            self.matrices = nn.ParameterList([torch.rand(3, 4), torch.rand(4, 2)])
            self.offset = nn.Parameter(torch.rand(2))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return means @ self.matrices[0] @ self.matrices[1] + self.offset if hasattr(self, "offset") else means


def test_what_a_network_holds_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each batch, method and seed: where parameters lie beside layers, the network has to run for it."""
    looked, used = [], forgetting._used
    monkeypatch.setattr(forgetting, "_used", lambda network: looked.append(network) or used(network))
    first, second = (as_network(Attending().eval()) for _ in range(2))
    for network in (first, first, second):
        seen = full_pass(network, torch.rand(1, 3, 16, 16), 0)
        metric = WeightRandomization(layers=["head"], n_seeds=2)
        metric.needs(network)
        metric.score(torch.rand(1, 1, 16, 16), seen, {}, Saliency())
    assert [len([network for network in looked if network is each]) for each in (first, second)] == [1, 1]


def test_raw_parameters_are_the_networks_own() -> None:
    network = as_network(Raw().eval())
    assert weighted_layers(network) == ["Raw"]
    state = forgotten(network).state_dict()
    kept = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, state[name])}
    assert kept == {"idle.weight", "idle.bias"}


def test_a_network_that_has_learnt_nothing_is_refused() -> None:
    network = as_network(Raw(is_learnt=False).eval())
    assert weighted_layers(network) == []
    with pytest.raises(InputError, match=r"cannot randomize Raw: its logits depend on no parameters"):
        WeightRandomization().layers_of(network)


TORCHVISIONS: dict[str, tuple[type[nn.Module], dict[str, Any], int]] = {
    "ViT": (
        models.VisionTransformer,
        {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16},
        32,
    ),
    "Swin": (
        models.SwinTransformer,
        {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": [4, 4]},
        32,
    ),
    "ConvNeXt": (
        models.ConvNeXt,
        {"block_setting": [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]},
        32,
    ),
    "MaxViT": (
        models.MaxVit,
        {
            "input_size": (32, 32),
            "stem_channels": 8,
            "partition_size": 4,
            "block_channels": [8, 16],
            "block_layers": [1, 1],
            "head_dim": 4,
            "stochastic_depth_prob": 0.0,
        },
        32,
    ),
    "GoogLeNet": (models.GoogLeNet, {"init_weights": False}, 64),
    "DenseNet": (models.DenseNet, {"growth_rate": 4, "block_config": (2, 2), "num_init_features": 8}, 32),
}
"""Classes of torchvision's, arguments that make small ones, and the size of their images."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISIONS)
def test_nothing_of_torchvisions_is_left(name: str) -> None:
    """But GoogLeNet's heads for training, and Swin's tables of indices."""
    make, arguments, size = TORCHVISIONS[name]
    network = with_learnt_parameters(as_network(make(**arguments).eval(), input_size=size))
    state = forgotten(network).state_dict()
    kept = {at for at, tensor in network.state_dict().items() if torch.equal(tensor, state[at])}
    assert {at for at in kept if not at.endswith(("_index", "num_batches_tracked")) and at[:3] != "aux"} == set()
    assert any(at.startswith("aux") for at in kept) == (name == "GoogLeNet")


def test_a_layer_may_have_the_name_of_the_networks_class() -> None:
    class head(nn.Module):
        input_size = 8

        def __init__(self) -> None:
            super().__init__()
            self.tint = nn.Parameter(torch.rand(3, 1, 1))
            self.head = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x * self.tint).mean((2, 3)))

    network = as_network(head().eval())
    assert weighted_layers(network) == ["head", "head itself"]
    state = forgotten(network).state_dict()
    assert not any(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_parameter_that_is_detached_is_forgotten_too() -> None:
    class Detaching(nn.Module):
        input_size = 8

        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.rand(3))
            self.mix = nn.Linear(3, 3, bias=False)
            self.unused = nn.Linear(3, 3)
            self.head = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            mixed = nn.functional.linear(x.mean((2, 3)) + self.shift.detach(), self.mix.weight.data)
            return self.head(mixed)

    network = as_network(Detaching().eval())
    assert weighted_layers(network) == ["head", "Detaching"]
    state = forgotten(with_learnt_parameters(network)).state_dict()
    kept = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, state[name])}
    assert kept == {"unused.weight", "unused.bias"}
