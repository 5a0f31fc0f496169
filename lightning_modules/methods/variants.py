"""Many variants of each image of a pass, such as noisy copies, points of a path or masked images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.random_numbers import RandomNumbers, seed_from

LEAST_BATCH = 32
"""So many images share a pass, where there are so many variants, even if the batch has fewer."""


def shared_batches(n_images: int, n_variants: int, max_batch: int | None) -> Iterator[tuple[slice, slice]]:
    """Which variants of which images share a pass: all variants of some images, then of the next ones.

    Args:
        n_images: How many images there are.
        n_variants: Variants of each, in their order.
        max_batch: Most images in a pass. None = as many as there are images, at least 32.

    Example:
        >>> list(shared_batches(2, 3, max_batch=4))
        [(slice(0, 2, None), slice(0, 2, None)), (slice(0, 2, None), slice(2, 3, None))]
    """
    most = max_batch or max(LEAST_BATCH, n_images)
    for first in range(0, n_images, most):
        images = slice(first, min(first + most, n_images))
        k = most // (images.stop - images.start)
        for start in range(0, n_variants, k):
            yield images, slice(start, min(start + k, n_variants))


def at_variants(forward_pass: ForwardPass, variants: Tensor, images: slice, needs: Needs | None = None) -> ForwardPass:
    """The pass of variants ``(K, n, 3, H, W)`` of n of its images, for their targets; of ``K n`` images, as flattened.

    Args:
        forward_pass: The pass.
        variants: Pixels in [0, 1], or about there.
        images: Which of the pass's images they are of.
        needs: What is going to be read. None = the logits, for which no gradient is kept.
    """
    target = forward_pass.target[images].repeat(len(variants))
    return forward_pass.at(variants.flatten(0, 1), target, Needs() if needs is None else needs)


def random_numbers(forward_pass: ForwardPass, seed: int) -> RandomNumbers:
    """Random numbers for each image, which follow from the seed and the image's key alone."""
    return RandomNumbers([seed_from(seed, key) for key in forward_pass.keys], forward_pass.images.device)


def noise(
    numbers: RandomNumbers,
    copies: slice,
    images: Tensor,
    draw: Callable[[RandomNumbers, slice, Sequence[int]], Tensor] = RandomNumbers.normal,
) -> Tensor:
    """Noise for copies of images, ``(K, n, C, H, W)``, like the n images.

    Args:
        numbers: Of the n images; see :func:`random_numbers`.
        copies: Which copies of each, by their numbers.
        images: Whose shape and dtype the noise has. In float64 it is that of float32.
        draw: ``RandomNumbers.normal`` or ``RandomNumbers.uniform``.
    """
    return draw(numbers, copies, images.shape[1:]).to(images.dtype)
