"""Whether a network is a function of an image, and what its layers give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from lightning_modules import (
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    InputError,
    Needs,
    Network,
    Saliency,
    as_network,
    explain,
)
from lightning_modules.networks.observed.layouts import observed_layout, probe_images
from lightning_modules.synthesis import Channel
from lightning_modules.synthesis.objectives import respond
from tests.lightning_modules.networks.strangers import (
    DrawsInVain,
    DropsAlways,
    HasIdleBranches,
    NormalizesByTheBatch,
    ReadsTheClassToken,
    RunsTwice,
    SaysSizesAsLists,
    Small,
    WritesToItsInput,
)

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_rows_that_depend_on_the_batch_are_refused() -> None:
    with pytest.raises(InputError, match=r"alone and in a batch .* up to \d.*body\.1 keeps no running statistics"):
        as_network(NormalizesByTheBatch().eval(), input_size=16)


def test_chance_is_refused() -> None:
    with pytest.raises(InputError, match=r"logits that differ by up to [\d.e-]+ from one run to the next"):
        as_network(DropsAlways().eval(), input_size=16)


def test_chance_that_changes_nothing_is_told() -> None:
    assert "draws random numbers" in as_network(DrawsInVain().eval(), input_size=16).facts.oddities[0]


def test_one_that_writes_to_its_input_gets_a_copy() -> None:
    """Its numbers are those of the same network that does not, and the images stay as they were."""
    module, plain = WritesToItsInput().eval(), Small().eval()
    plain.load_state_dict(module.state_dict())
    network = as_network(module, input_size=16)
    expected = as_network(plain, input_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    images = IMAGES.clone()
    methods = [Saliency(), GuidedBackprop(), GradCAM("body")]
    ours, theirs = (explain(each, images, methods, 1) for each in (network, expected))
    assert torch.equal(images, IMAGES)
    for name, found in ours.items():
        torch.testing.assert_close(found, theirs[name])


def test_nan_is_told() -> None:
    module = Small().eval()
    nn.init.constant_(module.head.bias, torch.nan)
    assert "NaN" in as_network(module, input_size=16).facts.oddities[0]


def test_a_part_in_training_mode_is_refused() -> None:
    """Not the whole alone: the statistics of a batch norm that trains would change."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    network = as_network(module, input_size=16)
    module[1].train()
    with pytest.raises(InputError, match=r"^1 is in training mode"):
        explain(network, IMAGES, [Saliency()])


def test_sizes_as_lists() -> None:
    network = as_network(SaysSizesAsLists().eval())
    assert (network.input_size, network.resize_size) == (32, 40)


@pytest.mark.parametrize("size", [[3, 32, 48], 0, -1, 32.5, "32", [], True])
def test_sizes_that_are_none(size: Any) -> None:
    module = Small().eval()
    module.input_size = size
    with pytest.raises(InputError, match=r"model\.input_size should be the side of a square"):
        as_network(module)


@pytest.fixture
def twice() -> Network:
    return as_network(RunsTwice().eval(), input_size=16)


class TestCalls:
    def test_labels(self, twice: Network) -> None:
        assert list(twice.facts.by_label) == ["first", "second", "relu@0", "relu@1", "head"]
        assert twice.layer_channels == {"first": 4, "second": 8, "relu@0": 4, "relu@1": 8, "head": 3}

    @pytest.mark.parametrize(("label", "same_as"), [("relu@0", "first"), ("relu@1", "second"), ("first@0", "first")])
    def test_grad_cam_looks_at_the_call(self, twice: Network, label: str, same_as: str) -> None:
        """The ReLU's call gives what the convolution before it gives, rectified."""
        images = IMAGES.clone().requires_grad_()
        layers = dict(twice.module.named_modules())
        kept: list[torch.Tensor] = []
        handle = layers[label.partition("@")[0]].register_forward_hook(lambda *args: kept.append(args[-1]))
        logits = twice(images)
        handle.remove()
        activation = kept[int(label[-1])]
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), activation)
        cam = (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True).relu()
        found = explain(twice, IMAGES, [GradCAM(label)], 1)[repr(GradCAM(label))]
        torch.testing.assert_close(found, cam.detach())

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ("relu", r"runs the layer 'relu' 2 times\. Name one of its calls: relu@0 4×16×16, relu@1 8×16×16"),
            ("relu@2", r"runs the layer 'relu' 2 times"),
            ("first@1", r"runs the layer 'first' once, so there is no 'first@1'"),
            ("idle", r"has the layer 'idle', but does not run it"),
            ("relo@1", r"has no layer 'relo'\. Did you mean relu"),
            ("", r"does not say which layer to look at"),
            ("head", r"needs a layer with positions, and 'head' of RunsTwice has none"),
        ],
    )
    def test_what_names_no_call_is_refused(self, twice: Network, label: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            explain(twice, IMAGES, [GradCAM(label)])

    def test_synthesis_takes_the_same_call(self, twice: Network) -> None:
        target = torch.tensor([7, 7])
        output = respond(twice, IMAGES, "relu@1")
        expected = twice.module.second(twice.module.first(IMAGES).relu()).relu()
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(Channel("relu@1")(output, target), expected[:, 7].mean((1, 2)))
        with pytest.raises(InputError, match="2 times"):
            respond(twice, IMAGES, "relu")

    def test_the_end_of_a_name_will_do(self) -> None:
        """Where no other layer's name ends so."""
        network = as_network(nn.Sequential(RunsTwice()).eval(), input_size=16)
        assert network.label("second") == "0.second"
        assert network.label("relu@1") == "0.relu@1"
        (full,), (short,) = (explain(network, IMAGES, [GradCAM(at)], 1).values() for at in ("0.second", "second"))
        assert torch.equal(full, short)
        both = as_network(
            nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), Small()).eval(), input_size=16
        )
        with pytest.raises(InputError, match=r"no layer 'conv'\. It has 0, 0\.0, 0\.1, 1, 1\.body"):
            both.label("conv")
        with pytest.raises(InputError, match=r"has no layer 'ody'\. Did you mean 1\.body"):
            both.label("ody")


class TestLayouts:
    """Channels are channels, and positions are positions, in every layout."""

    @pytest.fixture(scope="class")
    def vit(self) -> Network:
        torch.manual_seed(0)
        module = models.VisionTransformer(
            image_size=64, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
        )
        nn.init.normal_(module.heads.head.weight)
        return as_network(module.eval(), input_size=64)

    @pytest.fixture(scope="class")
    def swin(self) -> Network:
        torch.manual_seed(0)
        module = models.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=5)
        return as_network(module.eval(), input_size=64)

    def test_tokens(self, vit: Network) -> None:
        layout = vit.layout("encoder_layer_1")
        assert (layout.axes, layout.channels, layout.height, layout.width, layout.extra) == ("NTC", 16, 8, 8, 1)

    def test_channels_last(self, swin: Network) -> None:
        layout = swin.layout("features.3")
        assert (layout.axes, layout.channels, layout.height, layout.width) == ("NhwC", 24, 8, 8)

    @pytest.mark.parametrize("layer", ["encoder_layer_0", "encoder_layer_2.mlp", "encoder.ln"])
    def test_a_channel_of_tokens(self, vit: Network, layer: str) -> None:
        """Not the token of that number; without the class token."""
        images = torch.rand(2, 3, 64, 64)
        kept: list[torch.Tensor] = []
        handle = vit.layers[vit.label(layer)].register_forward_hook(lambda *args: kept.append(args[-1]))
        vit(images)
        handle.remove()
        found = Channel(layer)(respond(vit, images, layer), torch.tensor([15, 3]))
        expected = torch.stack([kept[0][0, 1:, 15].mean(), kept[0][1, 1:, 3].mean()])
        torch.testing.assert_close(found, expected)

    def test_a_channel_of_a_container_of_swins(self, swin: Network) -> None:
        images = torch.rand(1, 3, 64, 64)
        found = Channel("features.1")(respond(swin, images, "features.1"), torch.tensor([7]))
        torch.testing.assert_close(found, swin.module.features[:2](images)[:, :, :, 7].mean((1, 2)))

    def test_a_layer_of_which_the_class_token_alone_is_read(self, vit: Network) -> None:
        with pytest.raises(InputError, match=r"would be zero everywhere: .* do not depend on its positions"):
            explain(vit, torch.rand(1, 3, 64, 64), [GradCAM("encoder_layer_2")])

    @pytest.mark.parametrize("layer", ["encoder_layer_0.self_attention", "heads.head"])
    def test_layers_without_positions(self, vit: Network, layer: str) -> None:
        with pytest.raises(InputError, match="needs a layer with positions"):
            explain(vit, torch.rand(1, 3, 64, 64), [GradCAM(layer)])

    def test_grad_cam_at_another_size(self, swin: Network) -> None:
        (cam,) = explain(swin, torch.rand(1, 3, 96, 96), [GradCAM("features.3")], 1).values()
        assert cam.shape == (1, 1, 96, 96)

    @pytest.mark.parametrize(
        ("shape", "layout"),
        [
            ((7,), "7"),
            ((5, 1, 1), "5×1×1"),
            ((1, 1, 5), "5×1×1 (N, h, w, C)"),
            ((2, 3, 4, 5), "None"),
            ((2, 3), "None"),
        ],
    )
    def test_where_nothing_answers_the_shape_decides(self, shape: tuple[int, ...], layout: str) -> None:
        assert str(observed_layout(nn.Identity(), torch.zeros(5, *shape))) == layout

    def test_attention_is_no_map(self) -> None:
        """``(heads, T, T)`` looks like channels of a square grid."""
        tokens = probe_images(64).unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).permute(0, 2, 3, 1, 4).reshape(5, 64, -1)
        attention = (tokens @ tokens.transpose(1, 2)).softmax(2)[:, None].repeat(1, 3, 1, 1)
        assert observed_layout(nn.Softmax(2), attention) is None


@pytest.mark.parametrize(
    ("kind", "idle"),
    [
        (
            ReadsTheClassToken,
            {"blocks.1.query", "blocks.1.after", "blocks.1.mlp", "blocks.1.drop@1", "blocks.1", "blocks", "norm"}
            | {f"blocks.1.mlp.{k}" for k in range(3)},
        ),
        (HasIdleBranches, {"thrown", "muted", "lost"}),
    ],
)
def test_no_layer_is_offered_of_which_every_map_is_black(kind: type[nn.Module], idle: set[str]) -> None:
    """Whichever call of it: a dropout runs twice in a block, and the class token alone goes on from the last one."""
    network = as_network(kind().eval(), input_size=32)
    offered, images = network.layers_with_positions, torch.rand(2, 3, 32, 32)
    labels = {label for label, call in network.facts.by_label.items() if call.layout and call.layout.has_positions}
    assert labels - offered.keys() == idle
    needs, found = Needs(layer_gradients=labels), dict.fromkeys(labels, False)
    for target in range(len(network.class_names)):
        forward_pass = ForwardPass(network, images, target, needs=needs)
        for label in labels:
            maps = network.layout(label).maps(forward_pass.layer_gradient(label))
            found[label] |= bool(maps.flatten(1).any(1).all())
    assert {label for label, is_read in found.items() if is_read} == offered.keys()
    with pytest.raises(InputError, match=r"would be zero everywhere: the logits of .* do not depend") as error:
        explain(network, images, [GradCAM(sorted(idle)[0])])
    assert not [label for label in idle if f" {label} " in str(error.value).partition("the last first")[2]]
