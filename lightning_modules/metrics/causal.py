"""Does the network need the pixels that the map marks? Insertion and deletion, average drop, increase in confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import Batch
from lightning_modules.errors import check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import Sign, relative_magnitude
from lightning_modules.metrics.base import AttributionMetric, CurveAxes, without_degenerate
from lightning_modules.metrics.order import check_sign, note_of_signs, pixel_order
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network

Predict = Callable[[Tensor, Tensor], Tensor]
"""(images ``(M, 3, H, W)``, targets ``(M,)``) -> probability of the target, ``(M,)``."""


def probability_curve(
    predict: Predict, start: Tensor, finish: Tensor, place: Tensor, target: Tensor, step: int, max_batch: int = 64
) -> Tensor:
    """Probability of the target as pixels of ``start`` become those of ``finish``, most important first: ``(N, K)``.

    ``K = ceil(H W / step) + 1``, from no pixel to all; the last step may be of fewer, see :func:`shares_of_pixels`.
    Steps of several images share a batch.

    Args:
        predict: Gives the probability of the target.
        start: Images ``(N, 3, H, W)`` to begin with.
        finish: Images ``(N, 3, H, W)`` to end with.
        place: When each pixel's turn comes, from 0 on: long ``(N, H, W)``, see :func:`pixel_order`.
        target: long ``(N,)``.
        step: Pixels that change at once.
        max_batch: Most images in one forward pass.

    Reference: Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation", BMVC 2018.

    Example:
        >>> start, finish = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        >>> place = torch.tensor([[[0, 1], [2, 3]]])
        >>> mean = lambda images, target: images.mean((1, 2, 3))
        >>> probability_curve(mean, start, finish, place, torch.tensor([0]), step=3)
        tensor([[0.0000, 0.7500, 1.0000]])
    """
    n, _, height, width = start.shape
    n_points = -(-height * width // step) + 1
    image = torch.arange(n, device=start.device).repeat_interleave(n_points)
    point = torch.arange(n_points, device=start.device).repeat(n)
    probabilities = []
    for i, k in zip(image.split(max_batch), point.split(max_batch)):
        mixed = torch.where(place[i, None] < (k * step).view(-1, 1, 1, 1), finish[i], start[i])
        probabilities.append(predict(mixed, target[i]))
    return torch.cat(probabilities).view(n, n_points)


def shares_of_pixels(n_pixels: int, step: int, device: torch.device | None = None) -> Tensor:
    """Which share of the pixels has changed at each point of a curve, from 0 to 1: ``(K,)``.

    Example:
        >>> shares_of_pixels(10, 4)
        tensor([0.0000, 0.4000, 0.8000, 1.0000])
    """
    return (torch.arange(-(-n_pixels // step) + 1, device=device) * step).clamp_max(n_pixels) / n_pixels


def area_under_curve(curve: Tensor, shares: Tensor | None = None) -> Tensor:
    """Area under curves ``(N, K)`` over [0, 1] by the trapezoid rule, ``(N,)``.

    Args:
        curve: The curves.
        shares: Where their points lie, from 0 to 1, ``(K,)``. None = all as far from each other.

    Example:
        >>> curve = torch.tensor([[0.0, 0.7, 1.0]])
        >>> area_under_curve(curve), area_under_curve(curve, shares_of_pixels(10, 7))
        (tensor([0.6000]), tensor([0.5000]))
    """
    shares = torch.linspace(0, 1, curve.shape[1], device=curve.device) if shares is None else shares
    return torch.trapezoid(curve, shares.to(curve.dtype), dim=1)


def rise_blur(images: Tensor, mean: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """RISE's blurred image, from which insertion starts: ``(N, 3, H, W)``.

    The kernel is RISE's own: scipy's ``gaussian_filter`` of an impulse in an 11 × 11 image, which with reflected
    borders is nearly flat. RISE pads normalized images with zeros, that is, with the mean.

    Args:
        images: Pixels in [0, 1], ``(N, 3, H, W)``.
        mean: What the network subtracts, ``(3, 1, 1)``.
        size: Side of the kernel in pixels, odd.
        sigma: Standard deviation in pixels.
    """
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    kernel = torch.from_numpy(gaussian_filter(impulse, sigma)).to(images)
    kernel = kernel.expand(images.shape[1], 1, size, size)
    return F.conv2d(images - mean, kernel, padding=size // 2, groups=images.shape[1]) + mean


class InsertionDeletion(AttributionMetric):
    """Area under the probability of the target as the marked pixels appear in a blurred image, or leave the image.

    A map that finds what the network needs has high insertion and low deletion. Both curves stand in the rows.
    ``tied_pixels`` is the share of the pixels that are worth as much as another one. Among these chance decides which
    goes first, so where it is near 1 the score is largely that of a random map; see :func:`pixel_order`.

    Args:
        step: Pixels that change at once. null = eight rows of the image: 224·8 at 224 px, 29 points a curve.
        max_batch: Most images in one forward pass.
        sign: What a pixel is worth: positive (its channels' sum; all that are negative come last, in a random order),
            absolute (the sum of the channels' magnitudes), signed (their sum). null = as each method's ``sign`` says.
        seed: Seed of the draws that decide among pixels that are worth the same.

    Raises:
        InputError: If an option is out of its range.

    Reference: Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation", BMVC 2018. RISE follows the
    predicted class; here it is the pass's target.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "insertion": "How soon the network knows the class when the marked pixels appear first. Higher is better.",
        "deletion": "How long the network knows the class when the marked pixels vanish first. Lower is better.",
        "tied_pixels": "Share of the pixels that a map marks as much as another. Chance decides which of them goes "
        "first.",
    }
    columns = ("insertion", "deletion", "tied_pixels")
    curves = ("insertion_curve", "deletion_curve")
    lower_is_better = ("deletion", "deletion_curve")
    neutral = ("tied_pixels",)

    def __init__(self, step: int | None = None, max_batch: int = 64, sign: Sign | None = None, seed: int = 0) -> None:
        check_at_least_one(step=step, max_batch=max_batch)
        check_sign(sign)
        self.step = step
        self.max_batch = max_batch
        self.sign = sign
        self.seed = seed

    def curve_axes(self, curve: str, network: Network) -> CurveAxes:
        shares = self.shares(network.input_size, network.input_size).tolist()
        return CurveAxes("share of the pixels", "probability of the target", positions=shares)

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        n_points = -(-(network.input_size**2) // (self.step or 8 * network.input_size)) + 1
        return 2 * n_points * len(methods)

    def shares(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """Which share of the pixels of an image has changed at each point of its curves, ``(K,)``."""
        return shares_of_pixels(height * width, self.step or 8 * width, device)

    def notes(self, methods: Mapping[str, AttributionMethod]) -> list[str]:
        return [note_of_signs(type(self).__name__, self.sign, methods)]

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        images = forward_pass.images.detach()
        mean = forward_pass.network.mean_pixel
        height, width = images.shape[2:]
        step, shares = self.step or 8 * width, self.shares(height, width, images.device)
        place, tied, worth = pixel_order(attribution, forward_pass, method, self.sign, self.seed)
        scores = {"tied_pixels": tied}
        ends = {"insertion": (rise_blur(images, mean), images), "deletion": (images, mean.expand_as(images))}
        for name, (start, finish) in ends.items():
            curve = probability_curve(
                _predict(forward_pass), start, finish, place, forward_pass.target, step, self.max_batch
            )
            scores |= {name: area_under_curve(curve, shares), f"{name}_curve": curve}
        return without_degenerate(scores, worth)


class AverageDrop(AttributionMetric):
    r"""How the probability of the target changes when only what the map marks is shown.

    The map, scaled to [0, 1], fades the image to the network's mean. With ``Y`` the probability before and ``O`` after:

    .. math:: \text{average_drop} = \frac{\max(0, Y - O)}{Y}, \quad \text{increase_in_confidence} = [O > Y]

    Both in [0, 1] (the paper gives percent). The paper multiplies image and map without saying where zero lies; here,
    as in the peers' code, it is where the network's normalization puts it. Both are NaN where ``O`` is.

    Reference: Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations", WACV 2018.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "average_drop": "How much probability is lost when only what the map marks is shown. Lower is better.",
        "increase_in_confidence": "Share of images of which the class becomes more probable then. Higher is better.",
    }
    columns = ("average_drop", "increase_in_confidence")
    lower_is_better = ("average_drop",)

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        return len(methods)

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        images, mean = forward_pass.images.detach(), forward_pass.network.mean_pixel
        strength = relative_magnitude(attribution)[:, None]
        mask = (strength / strength.amax((2, 3), keepdim=True)).nan_to_num(0, 0, 0)
        predict = _predict(forward_pass)
        before = forward_pass.target_probability
        after = predict(mean + mask.to(images.dtype) * (images - mean), forward_pass.target)
        drop = (before - after).clamp_min(0) / before.where(before > 0, 1)
        increase = (after > before).to(drop).where(after.isfinite(), torch.nan)
        return without_degenerate({"average_drop": drop, "increase_in_confidence": increase}, strength)


def _predict(forward_pass: ForwardPass) -> Predict:
    def predict(images: Tensor, target: Tensor) -> Tensor:
        with trusted(), torch.no_grad():
            logits = forward_pass.network(images.contiguous(memory_format=torch.channels_last))
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        return forward_pass.network.probabilities(logits).gather(1, target[:, None])[:, 0]

    return predict
