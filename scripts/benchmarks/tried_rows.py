"""Other ways to compute what the bare pass spends its time on, on a CPU: what was tried, and whether it gains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.layer_rows import layer_inputs
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Outputs, Result, Row, assert_close, measure

Ways = dict[str, Callable[[], Tensor]]
"""By their names, the first of them what PyTorch does by itself."""


def tried(setting: Setting, rounds: int) -> list[Result]:
    """Each way in turns with what PyTorch does by itself, which is ours; all give the same."""
    inputs = layer_inputs(setting, setting.images(setting.batch_size))
    kinds: dict[str, tuple[str, Callable[[Any, Tensor], Ways]]] = {
        "features.0": ("first convolution, backward to the pixels", _first_convolution),
        "features.2": ("second convolution, backward", _convolution),
        "features.28": ("last convolution, backward", _convolution),
        "features.1": ("first ReLU, backward", _relu),
        "classifier.0": ("first linear layer, forward", _linear),
    }
    results = []
    with torch.no_grad():
        for name, (work, ways_of) in kinds.items():
            layer, x = inputs[name]
            results += measure(_row(f"{work}, batch {len(x)}", ways_of(layer, x)), rounds)
    return results


def _row(work: str, ways: Ways) -> Row:
    contenders = [Contender(OURS if k == 0 else name, way) for k, (name, way) in enumerate(ways.items())]
    others = [contender.name for contender in contenders[1:]]

    def check(outputs: Outputs) -> str:
        for name in others:
            said = assert_close(outputs[name], outputs[OURS], 1e-5, "results")
        return said

    return Row("tried", work, lambda n: contenders, 1, [Goal(name) for name in others], check)


def _convolution(layer: nn.Conv2d, x: Tensor) -> Ways:
    """The gradient of what a layer is given, ``x``."""
    weight, above = layer.weight.detach(), _above(layer, x)
    # It is a convolution of the gradient above.
    flipped = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
    contiguous = [tensor.contiguous() for tensor in (above, x, weight)]
    ways: Ways = {
        "autograd": lambda: _gradient(above, x, weight),
        "as a convolution with flipped weights": lambda: F.conv2d(above, flipped, padding=1),
        "an image at a time": lambda: torch.cat(
            [_gradient(*both, weight) for both in zip(above.split(1), x.split(1), strict=True)]
        ),
        "contiguous memory": lambda: _gradient(*contiguous),
    }
    if x.shape[1] > 3 and torch.backends.mkldnn.is_available():
        ones = [1, 1]
        laid_out = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            flipped.to_mkldnn(), ones, ones, ones, 1, above.shape
        )
        by_onednn = torch.mkldnn_convolution
        ways["weights laid out beforehand"] = lambda: by_onednn(above, laid_out, None, ones, ones, ones, 1)
    return ways


def _first_convolution(layer: nn.Conv2d, x: Tensor) -> Ways:
    """The same of three channels, where a vector has room for 8 or 16."""
    ways, above = _convolution(layer, x), _above(layer, x)
    weight, channels = layer.weight.detach(), x.shape[1]

    def padded(to: int) -> Callable[[], Tensor]:
        wide = [_with_channels(tensor, to) for tensor in (x, weight)]
        return lambda: _gradient(above, *wide)[:, :channels]

    def by_columns() -> Tensor:
        """A matrix product to 9 shifts of each channel, which are added up."""
        n, _, height, width = above.shape
        matrix = weight.permute(0, 2, 3, 1).flatten(1)
        columns = (above.permute(0, 2, 3, 1).flatten(0, 2) @ matrix).view(n, height, width, 3, 3, channels)
        total = above.new_zeros(n, height + 2, width + 2, channels)
        for i in range(3):
            for j in range(3):
                total[:, i : i + height, j : j + width] += columns[:, :, :, i, j]
        return total[:, 1:-1, 1:-1].permute(0, 3, 1, 2)

    return {**ways, **{f"padded to {to} channels": padded(to) for to in (4, 8, 16)}, "by columns": by_columns}


def _relu(layer: nn.ReLU, x: Tensor) -> Ways:
    y, above = x.relu(), _above(layer, x.clone())
    written = above.clone()  # by itself the same each time
    backward = torch.ops.aten.threshold_backward
    return {
        "autograd": lambda: backward(above, y, 0),
        "written over the gradient above": lambda: backward.grad_input(written, y, 0, grad_input=written),
    }


def _linear(layer: nn.Linear, x: Tensor) -> Ways:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    ways: Ways = {
        "autograd": lambda: layer(x),
        "weights times images": lambda: torch.addmm(bias[:, None], weight, x.T).T,
    }
    if torch.backends.mkldnn.is_available():
        ways["oneDNN"] = lambda: torch._C._nn.mkldnn_linear(x.to_mkldnn(), weight, bias).to_dense()
    return ways


def _above(layer: nn.Module, x: Tensor) -> Tensor:
    """A gradient of what the layer gives, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn_like(layer(x)).normal_(generator=generator)


def _with_channels(tensor: Tensor, n: int) -> Tensor:
    """Zeros for the channels that are missing to ``n``."""
    return F.pad(tensor, (0, 0, 0, 0, 0, n - tensor.shape[1])).contiguous(memory_format=torch.channels_last)


def _gradient(above: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """What autograd calls for the gradient of what a convolution is given."""
    ones, zeros, of_input = [1, 1], [0, 0], [True, False, False]
    found = torch.ops.aten.convolution_backward(above, x, weight, None, ones, ones, ones, False, zeros, 1, of_input)
    return found[0]
