"""The bare pass layer by layer: what each layer takes alone, forward and backward."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.setting import Setting
from benchmarks.timing import Result, seconds
from lightning_modules.results.tables import Table

WHOLE = "the pass as a whole"


class LayerTime(NamedTuple):
    """What a layer takes alone, or all layers together of a kind that multiplies nothing.

    Attributes:
        name: Its name and kind.
        flops: Floating-point operations of its forward pass, and as many of its backward pass to its input.
        forward: Seconds, of each round.
        backward: Seconds, of each round.
    """

    name: str
    flops: float
    forward: list[float]
    backward: list[float]


def layer_times(setting: Setting, rounds: int) -> tuple[list[LayerTime], list[float]]:
    """Layers in their order, each on what it gets in a pass, those that multiply nothing at the end; and in turns with
    them the pass as a whole, in seconds.
    """
    images, target = setting.images(setting.batch_size), setting.target(setting.batch_size)
    inputs, found, whole = layer_inputs(setting, images), dict[str, LayerTime](), []
    for turn in range(rounds + 1):
        whole.append(seconds(lambda: setting.bare_gradient(images, target)))
        for name, (layer, x) in inputs.items():
            words, flops = _described(name, layer, x)
            time = found.setdefault(words, LayerTime(words, flops, [0.0] * (rounds + 1), [0.0] * (rounds + 1)))
            forward, backward = _seconds_alone(layer, x)
            time.forward[turn] += forward
            time.backward[turn] += backward
    # In the first round kernels are chosen.
    layers = [time._replace(forward=time.forward[1:], backward=time.backward[1:]) for time in found.values()]
    return sorted(layers, key=lambda layer: not layer.flops), whole[1:]


def layer_inputs(setting: Setting, images: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """The layers that compute anything, and what each gets of these images."""
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    layers = {
        name: layer
        for name, layer in setting.network.layers.items()
        if not (list(layer.children()) or isinstance(layer, nn.Dropout))
    }
    handles = []
    for name, layer in layers.items():

        def keep(layer: nn.Module, args: Any, name: str = name) -> None:
            found[name] = layer, args[0].detach().clone()

        handles.append(layer.register_forward_pre_hook(keep))
    try:
        setting.bare_forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _described(name: str, layer: nn.Module, x: Tensor) -> tuple[str, float]:
    """A layer in words, and the floating-point operations of its forward pass on ``x``."""
    kind = type(layer).__name__
    if isinstance(layer, nn.Conv2d):
        positions = x.shape[0] * x.shape[2] * x.shape[3]  # stride 1, and as many as there were
        size = f"{layer.in_channels} → {layer.out_channels} at {x.shape[2]} × {x.shape[3]}"
        return f"{name}, {kind} {size}", 2.0 * layer.weight.numel() * positions
    if isinstance(layer, nn.Linear):
        return f"{name}, {kind} {layer.in_features} → {layer.out_features}", 2.0 * layer.weight.numel() * len(x)
    return f"{kind}, all of them", 0.0


def _seconds_alone(layer: nn.Module, x: Tensor) -> tuple[float, float]:
    """Seconds of one forward pass, and of one backward pass to the layer's input."""
    forward = seconds(lambda: layer(x))
    leaf = x.clone().requires_grad_()
    y = layer(leaf.clone())  # a ReLU writes to what it is given, which must not be a leaf
    above = torch.ones_like(y)
    return forward, seconds(lambda: torch.autograd.grad(y, leaf, above))


def layer_table(lines: Sequence[Result]) -> Table:
    """The lines of the row ``layers`` with both directions side by side; the whole pass is the last of them."""
    *alone, whole = lines
    of_whole = statistics.median(whole.ours)
    rows: list[list[str]] = []
    total = {"forward": 0.0, "backward": 0.0}
    for forward, backward in zip(alone[::2], alone[1::2], strict=True):
        cells: list[str] = []
        both = 0.0
        for line in (forward, backward):
            time = statistics.median(line.ours)
            total[line.against] += time
            both += time
            cells += [_milliseconds(time), *_rate_and_share(line)]
        gigaflops = f"{forward.flops / 1e9:.2f}" if forward.flops else ""
        rows.append([forward.work, gigaflops, *cells, f"{both / of_whole:.1%}"])
    gigaflops = f"{sum(line.flops or 0.0 for line in alone[::2]) / 1e9:.2f}"
    share = f"{sum(total.values()) / of_whole:.1%}"
    times = [cell for time in total.values() for cell in (_milliseconds(time), "", "")]
    rows.append(["all of these, one by one", gigaflops, *times, share])
    both_ways = f"{_milliseconds(of_whole)} forward and backward"
    rows.append([WHOLE, f"{(whole.flops or 0.0) / 1e9:.2f}", both_ways, *_rate_and_share(whole), "", "", "", "100.0%"])
    directions = [name for way in ("forward", "backward") for name in (way, "GFLOP/s", "of the limit")]
    return Table(["layer", "GFLOP", *directions, "of the pass"], rows)


def _milliseconds(time: float) -> str:
    return f"{time * 1e3:.1f} ms"


def _rate_and_share(line: Result) -> list[str]:
    if not line.flops or line.ratio is None:
        return ["", ""]
    return [f"{line.flops / statistics.median(line.ours) / 1e9:.0f}", f"{line.ratio:.0%}"]
