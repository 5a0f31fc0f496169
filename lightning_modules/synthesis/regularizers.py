"""What an image should have little of, beside the objective."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.text import NamedByOptions


class Regularizer(NamedByOptions, ABC):
    """What a regularizer is: a call from images to a penalty for each, which pulls against the objective.

    The objective's gradient is brought to one length before a penalty's is subtracted (see
    :func:`~lightning_modules.synthesis.maximization.without_scale`), so a weight means the same for every network.

    Args:
        weight: Factor on the penalty, at least 0.
    """

    def __init__(self, weight: float) -> None:
        if not weight >= 0:
            raise InputError(f"The weight of {type(self).__name__} must be at least 0, got {weight}.")
        self.weight = weight

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """The weighted penalty of each image ``(N, 3, H, W)`` in [0, 1]: ``(N,)``, at least 0."""


class TotalVariation(Regularizer):
    """:func:`total_variation`, weighted.

    Args:
        weight: Factor on it, at least 0. At 0.25, a pixel that stands out from its four neighbours is pulled at as
            strongly as the objective pulls at a pixel (in root mean square).

    Reference: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015, who raise
    it to a power; here the power is 1.
    """

    def __init__(self, weight: float = 0.05) -> None:
        super().__init__(weight)

    def __call__(self, images: Tensor) -> Tensor:
        return self.weight * total_variation(images)


class L2(Regularizer):
    """The mean squared distance of the pixels from grey (0.5), weighted.

    Args:
        weight: Factor on it, at least 0. At 1, black and white are pulled at as strongly as the objective pulls at a
            pixel (in root mean square).

    Reference: Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR 2014 workshop, who measure from
    the mean image of the training data and take the sum.

    Example:
        >>> import torch
        >>> L2(weight=10.0)(torch.ones(1, 3, 8, 8))  # white is half a unit from grey: 10 * 0.5 ** 2
        tensor([2.5000])
    """

    def __init__(self, weight: float = 0.03) -> None:
        super().__init__(weight)

    def __call__(self, images: Tensor) -> Tensor:
        return self.weight * (images - 0.5).square().mean((1, 2, 3))


def total_variation(images: Tensor) -> Tensor:
    r"""Anisotropic total variation for each pixel and channel, so that sizes compare: ``(N, C, H, W) -> (N,)``.

    .. math:: \frac{1}{C H W} \sum_{c,i,j} |x_{c,i+1,j} - x_{c,i,j}| + |x_{c,i,j+1} - x_{c,i,j}|

    Example:
        >>> import torch
        >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]]))
        tensor([0.5000])
    """
    vertical = images.diff(dim=2).abs().sum((1, 2, 3))
    horizontal = images.diff(dim=3).abs().sum((1, 2, 3))
    return (vertical + horizontal) / images[0].numel()
