from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import InputError, as_network
from lightning_modules.synthesis import Channel, ClassLogit, LogitMargin, Objective, respond, responses
from tests.references import TinyNet

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 3.0]], dtype=torch.float64)
TARGET = torch.tensor([2, 0])


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (ClassLogit(), [4.0, 0.0]),
        (LogitMargin("mean"), [4 - 1.5, 0 - 1.0]),
        (
            LogitMargin(),
            [4 - math.log(math.exp(1) + math.exp(2)), 0 - math.log(math.exp(-1) + math.exp(3))],
        ),
    ],
    ids=repr,
)
def test_by_hand(objective: Objective, expected: list[float]) -> None:
    torch.testing.assert_close(objective(LOGITS, TARGET), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda logits: objective(logits, TARGET), LOGITS.clone().requires_grad_())


def test_margin_is_the_log_odds() -> None:
    p = LOGITS.softmax(1).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(LogitMargin("logsumexp")(LOGITS, TARGET), (p / (1 - p)).log())


def test_channel_is_a_mean_over_positions() -> None:
    output = torch.arange(24.0).view(2, 3, 2, 2)
    assert Channel("x")(output, torch.tensor([1, 2])).tolist() == [(4 + 5 + 6 + 7) / 4, (20 + 21 + 22 + 23) / 4]
    assert Channel("x")(LOGITS, TARGET).tolist() == [4.0, 0.0]


class TestRespond:
    @pytest.mark.parametrize("inplace", [True, False])
    def test_output_before_an_inplace_relu(self, inplace: bool) -> None:
        net, images = as_network(TinyNet(inplace)), torch.rand(2, 3, 4, 5, dtype=torch.float64)
        output = respond(net, images, "features.0")
        torch.testing.assert_close(output, nn.functional.conv2d(images, net.module.features[0].weight))
        assert (output < 0).any()
        torch.testing.assert_close(respond(net, images, None), net(images))

    def test_the_pass_ends_at_the_layer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net = as_network(TinyNet())

        def above(images: Tensor) -> Tensor:
            raise AssertionError("the layer above ran")

        monkeypatch.setattr(net.module.readout, "forward", above)
        assert respond(net, torch.rand(1, 3, 4, 4).double(), "features.1").shape == (1, 2, 4, 4)

    @pytest.mark.parametrize("inplace", [True, False])
    def test_several_layers_in_one_pass(self, inplace: bool) -> None:
        net, images = as_network(TinyNet(inplace)), torch.rand(2, 3, 4, 5, dtype=torch.float64)
        wanted = ["features.1", "features.0", None]
        alone = {layer: respond(net, images, layer) for layer in wanted}
        together = responses(net, images, wanted)
        assert list(together) == wanted
        for layer, output in alone.items():
            assert torch.equal(together[layer], output)

    def test_no_hook_is_left(self) -> None:
        net = as_network(TinyNet())
        respond(net, torch.rand(1, 3, 4, 4).double(), "features.0")
        with pytest.raises(RuntimeError):
            respond(net, torch.rand(1, 5, 4, 4).double(), "features.0")
        assert not any(module._forward_hooks for module in net.modules())

    def test_unknown_layer(self) -> None:
        with pytest.raises(InputError, match=r"no layer 'features.9'\. Did you mean features.1"):
            respond(as_network(TinyNet()), torch.rand(1, 3, 4, 4).double(), "features.9")
