"""What is going to be read of a forward pass."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from lightning_modules.errors import InputError
from lightning_modules.networks.network import Network


@dataclass(frozen=True)
class Needs:
    """What a method, a metric or an attack reads of a forward pass, beside the images, targets and logits.

    The one place where such wishes stand: a pass keeps what its needs name, and nothing else. ``a | b`` is what both
    read.

    Attributes:
        activations: Names of the layers whose output is read.
        layer_gradients: Names of the layers of which the gradient is read, and the output.
        input_gradient: Whether the gradient of the target's logit with respect to the pixels is read.
        guided_gradient: Whether the same under the rule of Guided Backpropagation is read.
        loss_gradient: Whether the gradient of a loss of the logits with respect to the pixels is read.

    Example:
        >>> both = Needs(layer_gradients={"layer4"}) | Needs(input_gradient=True)
        >>> sorted(both.layer_gradients), both.input_gradient, both.n_gradients
        (['layer4'], True, 2)
    """

    activations: Set[str] = frozenset()
    layer_gradients: Set[str] = frozenset()
    input_gradient: bool = False
    guided_gradient: bool = False
    loss_gradient: bool = False

    def __post_init__(self) -> None:
        for name in ("activations", "layer_gradients"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.activations | other.activations,
            self.layer_gradients | other.layer_gradients,
            self.input_gradient or other.input_gradient,
            self.guided_gradient or other.guided_gradient,
            self.loss_gradient or other.loss_gradient,
        )

    @property
    def layers(self) -> Set[str]:
        """All layers whose output is kept."""
        return self.activations | self.layer_gradients

    @property
    def reaches_input(self) -> bool:
        """Whether a gradient goes down to the pixels. If none does, nothing is kept of what runs before the layers."""
        return self.input_gradient or self.guided_gradient or self.loss_gradient

    @property
    def n_gradients(self) -> int:
        """How many backward passes that takes: one serves all layers. What a single one needs is freed on the way."""
        return bool(self.layer_gradients) + self.input_gradient + self.guided_gradient + self.loss_gradient


def check_gradient(network: Network) -> None:
    """Refuses a network whose logits have no gradient.

    Raises:
        InputError: If it has none; says why, and what explains it all the same.
    """
    if network.facts.has_gradient:
        return
    why = "somewhere its forward leaves PyTorch's autograd (no_grad, detach, NumPy, a network frozen for inference)"
    if network.facts.quantized:
        why = f"it is quantized (its layer {network.facts.quantized}), and whole numbers have no gradients"
    raise InputError(
        f"The logits of {network.name} have no gradient with respect to the pixels: {why}. Occlusion, RISE and "
        "ScoreCAM need none."
    )
