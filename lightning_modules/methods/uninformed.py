"""Maps that explain nothing, and so tell what a score is worth: a method should beat them.

Their directions are those of a good map, so a score that they reach says little: a Gaussian in the middle of the image
has what comes of objects being there, edges what comes of a network seeing edges, another image's map what comes of how
smooth or sparse a method's maps are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import GradCAM
from lightning_modules.methods.maps import Sign
from lightning_modules.methods.variants import random_numbers
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import seed_from


class UninformedMethod(AttributionMethod):
    """A map that does not explain what the network sees where. Reports say of each score which methods do not beat it.

    To add one of your own, derive it from this class.
    """

    sign: Sign = "positive"

    def needs(self, network: Network) -> Needs:
        return Needs()


class Random(UninformedMethod):
    """A random number for each pixel, uniform in [0, 1), ``(N, 1, H, W)``.

    It follows from the seed and the image's key alone. It costs nothing.

    Args:
        seed: Seed of the numbers.
    """

    meaning = "A map of random numbers. A method that does not beat it explains nothing."

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images
        return random_numbers(forward_pass, self.seed).uniform(slice(0, 1), (1, *images.shape[2:]))[0].to(images.dtype)


class CentreGaussian(UninformedMethod):
    r"""A Gaussian in the middle of the image, ``(N, 1, H, W)``: the same for all images, with a maximum of 1.

    .. math:: L_{ij} = \exp\left(-\frac{(i - \bar i)^2 + (j - \bar j)^2}{2 \, (w \min(H, W))^2}\right)

    It costs nothing.

    Args:
        width: Its standard deviation as a share of the image's shorter side, above 0.

    Raises:
        InputError: If ``width`` is not above 0.
    """

    meaning = "A bright spot in the middle, the same for all images. It is what a score gives for nothing."

    def __init__(self, width: float = 0.25) -> None:
        if not width > 0:
            raise InputError(f"width must be above 0, got {width}.")
        self.width = width

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images.detach()
        sides = images.shape[2:]
        y, x = (torch.arange(side, device=images.device, dtype=images.dtype) - (side - 1) / 2 for side in sides)
        squared = (y[:, None].square() + x.square()) / (2 * (self.width * min(sides)) ** 2)
        return (-squared).exp().expand(len(images), 1, -1, -1)


class EdgeFilter(UninformedMethod):
    """The edges of the image, ``(N, 1, H, W)``, at least 0: the size of the Sobel filter's gradient of its grey values.

    Beyond the border the image goes on as it is there. It costs nothing.

    Reference: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, which compares maps with edges.
    """

    meaning = "The edges of the image. They do not depend on the network, so a method should beat them."

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        padded = F.pad(forward_pass.images.detach().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = padded[..., 2:] - padded[..., :-2]
        down = padded[..., 2:, :] - padded[..., :-2, :]
        across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
        down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
        return (across.square() + down.square()).sqrt()


class OtherImage(UninformedMethod):
    """A method's map of another image for the same target, taken for this one's.

    The other image is this one turned or mirrored: in one of the seven ways that a square has, three of them turns, or
    in one of the three that any image has, by a draw that follows from the seed and the image's key. Its map is not
    turned back. So it is a picture of the same kind with its parts elsewhere, and one that every process can make: no
    score depends on how the work is split, as it would by the next image of the data. What the two maps have in common
    is how smooth or sparse the method's maps are, and what lies in the middle. Of 24 photos in SqueezeNet, and of 24
    images of shapes, this is on average what maps of images have in common that are really others, to within 0.08 in
    rank correlation and SSIM. It costs a forward pass and what the method does.

    Args:
        method: Whose map. null = GradCAM.
        seed: Seed of the draws.
    """

    meaning = "The map of another picture, this one turned or mirrored. A map that explains this one beats it."

    def __init__(self, method: AttributionMethod | None = None, seed: int = 0) -> None:
        self.method = method
        self.seed = seed
        self.sign = (method or GradCAM()).sign

    def needs(self, network: Network) -> Needs:
        (self.method or GradCAM()).needs(network)  # refuses what cannot be, before the first batch
        return Needs()

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        method, images = self.method or GradCAM(), forward_pass.images.detach()
        ways = _TURNS if images.shape[2] == images.shape[3] else _TURNS[:3]
        draws = [seed_from("other image", self.seed, key) % len(ways) for key in forward_pass.keys]
        others = [ways[draw](image) for draw, image in zip(draws, images)]
        turned = torch.stack(others) if others else images
        keys, needs = [f"other image {key}" for key in forward_pass.keys], method.needs(forward_pass.network)
        return method(forward_pass.at(turned, forward_pass.target, needs, keys))


_TURNS: tuple[Callable[[Tensor], Tensor], ...] = (
    *(lambda image: image.flip(1, 2), lambda image: image.flip(1), lambda image: image.flip(2)),
    *(lambda image: image.rot90(1, (1, 2)), lambda image: image.rot90(3, (1, 2))),
    *(lambda image: image.transpose(1, 2), lambda image: image.transpose(1, 2).flip(1, 2)),
)
"""All ways to turn or mirror a square ``(C, H, W)``, those first that keep the sides of any image."""
