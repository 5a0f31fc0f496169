"""What was found out about a network by looking at it once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from lightning_modules.errors import InputError
from lightning_modules.networks.observed.layouts import Layout
from lightning_modules.networks.observed.nonlinearities import Nonlinearities


class Call(NamedTuple):
    """One call of a layer, in a forward pass.

    Attributes:
        shape: Shape of its output without the batch; None = no tensor of one entry an image.
        layout: How the output is read; None = not known.
        is_read: Whether the logits depend on its positions: not on its other tokens alone, nor on nothing of it.
    """

    shape: tuple[int, ...] | None
    layout: Layout | None
    is_read: bool = True

    def __str__(self) -> str:
        """``512×7×7``, ``768×14×14 (N, T, C: 196 tokens after 1 more)``, ..."""
        if self.layout is not None:
            return str(self.layout)
        return "no tensor" if self.shape is None else f"{self.shape}, of unknown layout"


@dataclass(frozen=True)
class Facts:
    """What a network showed when it ran.

    Attributes:
        calls: The calls of each layer that ran, by its name, in the order in which the last of them ended.
        oddities: What a person should know before believing the numbers, a sentence each.
        nonlinearities: The activations that an image meets on its way to the output.
        has_gradient: Whether the logits have a gradient with respect to the pixels.
        quantized: The first layer that gives whole numbers for a float's; empty = none does.
    """

    calls: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()
    nonlinearities: Nonlinearities = field(default_factory=Nonlinearities)
    has_gradient: bool = True
    quantized: str = ""

    @cached_property
    def by_label(self) -> dict[str, Call]:
        """All calls by what a person writes: the layer's name or, where it runs several times, ``name@0``, ..."""
        return {
            (name if len(calls) == 1 else f"{name}@{number}"): call
            for name, calls in self.calls.items()
            for number, call in enumerate(calls)
        }

    @property
    def with_positions(self) -> dict[str, Layout]:
        """Layouts of the calls that a class activation map can be made of."""
        found = {label: call.layout for label, call in self.by_label.items() if call.is_read}
        return {label: layout for label, layout in found.items() if layout is not None and layout.has_positions}

    def description(self) -> dict[str, Any]:
        """All of it, as plain values: of each call of a layer the shape, and how it is read."""
        return {
            "oddities": list(self.oddities),
            "has_gradient": self.has_gradient,
            "nonlinearities": asdict(self.nonlinearities),
            "layers": {label: str(call) for label, call in self.by_label.items()},
        }


def last_first(labels: Mapping[str, Any], most: int = 12) -> str:
    """``layer4 512×7×7, ...``, the last first."""
    words = [f"{label} {output}" for label, output in labels.items()][::-1]
    return ", ".join(words[:most]) + ", ..." * (len(words) > most)


def split_call(label: str) -> tuple[str, int]:
    """The layer's name and the number of its call, of a label such as ``layer1.0.relu@2``."""
    found = re.fullmatch(r"(.+)@(\d+)", label)
    return (found[1], int(found[2])) if found else (label, 0)


def layer_named(text: Any, layers: Mapping[str, Any], network: str) -> str:
    """The name, among those of ``layers``, that a person means: it, or the end of it, if no other ends so.

    Raises:
        InputError: If there is no such layer, or it is no name.
    """
    if not isinstance(text, str):
        names = [name for name, layer in layers.items() if layer is text] or [*layers]
        raise InputError(f"layers of {network} are named by text, such as {names[0]!r}, and it got {text!r:.60}.")
    if text in layers:
        return text
    ends = [layer for layer in layers if layer.endswith(f".{text}")]
    if len(ends) == 1:
        return ends[0]
    near = ends[:4] or difflib.get_close_matches(text, layers, n=1)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(list(layers)[:40])}."
    raise InputError(f"{network} has no layer {text!r}. {hint}")


def label_of(facts: Facts, text: str, layers: Mapping[str, Any], network: str) -> str:
    """The label, among those of ``facts``, of the call that a person means.

    Args:
        facts: Of the network.
        text: The layer's name, or the end of it, if no other layer's name ends so; where it runs several times,
            ``name@0``, ``name@1``, ... in the order of its calls.
        layers: All layers by their names.
        network: What messages call the network.

    Raises:
        InputError: If there is no such layer or call, the layer does not run, or several of its calls could be meant.
    """
    written, number = split_call(text) if isinstance(text, str) else (text, 0)
    name = layer_named(written, layers, network)
    calls = facts.calls.get(name, ())
    if not calls:
        raise InputError(f"{network} has the layer {name!r}, but does not run it.")
    if number < len(calls) and len(calls) == 1:
        return name
    if number < len(calls) and "@" in text:
        return f"{name}@{number}"
    if len(calls) == 1:
        raise InputError(f"{network} runs the layer {name!r} once, so there is no {text!r}. Name it {name!r}.")
    choices = ", ".join(f"{name}@{i} {call}" for i, call in enumerate(calls))
    raise InputError(f"{network} runs the layer {name!r} {len(calls)} times. Name one of its calls: {choices}.")
