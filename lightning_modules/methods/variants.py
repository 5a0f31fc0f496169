"""Many variants of each image of a pass, such as noisy copies, points of a path or masked images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.options import seed_from

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


def generators(forward_pass: ForwardPass, seed: int) -> list[torch.Generator]:
    """A source of random numbers for each image, which follow from the seed and the image's key alone."""
    device = forward_pass.images.device
    return [torch.Generator(device).manual_seed(seed_from(seed, key)) for key in forward_pass.keys]


def noise(
    drawn: Sequence[torch.Generator], k: int, images: Tensor, draw: Callable[..., Tensor] = torch.randn
) -> Tensor:
    """The next ``k`` images of noise of each source, ``(K, n, C, H, W)``, like n images.

    It is drawn image by image, so that it does not depend on how many share a pass.

    Args:
        drawn: The sources of the n images; see :func:`generators`.
        k: How many of each.
        images: Whose shape, device and dtype the noise has.
        draw: ``torch.randn`` or ``torch.rand``.
    """
    # In float32 whatever the images are: in float64 other numbers are drawn.
    like = {"device": images.device, "dtype": torch.float32}
    rows = [torch.stack([draw(images.shape[1:], generator=of, **like) for of in drawn]) for _ in range(k)]
    return torch.stack(rows).to(images.dtype)
