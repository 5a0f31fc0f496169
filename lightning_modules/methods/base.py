"""What an attribution method is: a small callable object from a forward pass to one map for each image.

Maps are raw: at the size of the input, one channel for a class activation map and three for gradients, not rescaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs, check_gradient
from lightning_modules.methods.maps import Sign
from lightning_modules.networks.network import Network
from lightning_modules.text import NamedByOptions


class AttributionMethod(NamedByOptions, ABC):
    """What an attribution method is: a call from a :class:`ForwardPass` to maps ``(N, 1 or 3, H, W)``.

    To add one, derive a class in a file of your own, keep each option of ``__init__`` as the attribute of its name, and
    name the class on the command line by its import path.

    Example:
        >>> import torch
        >>> from lightning_modules import explain, load_vgg16
        >>> class InputTimesGradient(AttributionMethod):
        ...     def __call__(self, forward_pass):
        ...         return forward_pass.images.detach() * forward_pass.input_gradient()
        >>> maps = explain(load_vgg16("shapes"), torch.rand(2, 3, 112, 112), [InputTimesGradient()])
        >>> maps["InputTimesGradient"].shape
        torch.Size([2, 3, 112, 112])
    """

    columns: tuple[str, ...] = ()
    """Names of the numbers that the rows hold of each of its maps, beside the scores; see :meth:`extra_columns`."""

    column_meanings: ClassVar[Mapping[str, str]] = {}
    """Column -> what it means, in one line."""

    lower_is_better: tuple[str, ...] | None = None
    """Those columns of which less is better; of all others more is. None = the method does not say it."""

    sign: Sign = "absolute"
    """How scores that remove pixels read its maps, unless they are asked to read all maps in one way."""

    def needs(self, network: Network) -> Needs:
        """What the method reads of a pass of ``network``; unless a method says otherwise, the gradient of the pixels.

        Raises:
            InputError: If the network has not what the method needs.
        """
        check_gradient(network)
        return Needs(input_gradient=True)

    def n_passes(self, network: Network) -> int:
        """How many images it shows ``network`` for each one beside the image itself, so that a run can say how long."""
        return 0

    @abstractmethod
    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        """The maps of all images of the pass, which keeps what :meth:`needs` names and nothing else."""

    def extra_columns(self, attribution: Tensor, forward_pass: ForwardPass) -> dict[str, Tensor]:
        """What the method itself says of its maps: ``(N,)`` for each of :attr:`columns`, NaN where there is nothing.

        So Integrated Gradients say how far they are from what they should add up to.

        Args:
            attribution: The maps that it gave, ``(N, C, H, W)``.
            forward_pass: The pass that they explain.
        """
        return {}
