"""Random numbers that follow from a seed and a place alone: the same on every device and in any batch."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

GENERATOR = "SplitMix64"
"""What runs say of where their random numbers come from."""

_BITS = 64


def seed_from(*parts: object) -> int:
    """A seed of 63 bits from what is to decide it, such as a run's seed and an image's key."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class RandomNumbers:
    """Random numbers of N images, of each from a seed of its own, as many as are asked for, in any order.

    PyTorch's generators give other numbers on a GPU than on a CPU, and are asked image by image. These are the words of
    SplitMix64, each of which is computed from its number c in the stream of an image,

    .. math:: w_c = \\text{mix}(\\text{start} + c \\cdot \\text{step})

    by sums, products and shifts of whole numbers, so for all images at once, and to the same bits on every device. An
    image's seed decides both start and step. On a CPU, normal numbers take no more time than those of ``torch.randn``.

    Args:
        seeds: Of each image.
        device: Where the numbers are made.

    Example:
        >>> numbers = RandomNumbers([7, 8], torch.device("cpu"))
        >>> first = numbers.normal(slice(0, 3), (2, 2))  # of three copies
        >>> first.shape, torch.equal(numbers[1:].normal(slice(2, 3), (2, 2)), first[2:, 1:])
        (torch.Size([3, 2, 2, 2]), True)

    Reference: Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        streams = torch.tensor([(seed_from(seed, "start"), _signed(_step(seed))) for seed in seeds], dtype=torch.int64)
        # A copy that a GPU does not wait for.
        self._streams = streams.view(-1, 2).to(device, non_blocking=True)

    def __getitem__(self, images: slice) -> RandomNumbers:
        """Those of some of the images."""
        part = RandomNumbers.__new__(RandomNumbers)
        part._streams = self._streams[images]
        return part

    def words(self, copies: slice, n: int) -> Tensor:
        """The words of copies of n words each, int64 ``(K, N, n)``."""
        place = torch.arange(copies.start * n + 1, copies.stop * n + 1, device=self._streams.device)
        start, step = self._streams.unsqueeze(2).unbind(1)
        words = torch.addcmul(start, step, place.view(-1, 1, n))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            # Without the copies of the sign that are shifted in: no device has all of this for words without sign.
            words ^= (words >> shift).bitwise_and_(2 ** (_BITS - shift) - 1)
            if factor > 1:
                words *= _signed(factor)
        return words

    def normal(self, copies: slice, shape: Sequence[int]) -> Tensor:
        """Normally distributed numbers, float32 ``(K, N, *shape)``: copies ``copies`` of such tensors of each image.

        A quarter of a word gives a number: one of 65,536 values, which are equally probable, and of which 4.3 is the
        largest. They are looked up, since devices do not agree in the last bit of a logarithm or a cosine.
        """
        quarters = self._pieces(copies, shape, torch.int16).int().add_(2**15)
        values = _normal_values(quarters.device)
        return values.index_select(0, quarters.view(-1)).view(quarters.shape)

    def uniform(self, copies: slice, shape: Sequence[int]) -> Tensor:
        """Numbers uniform in [0, 1), likewise: multiples of 2^-24, of half a word each."""
        halves = self._pieces(copies, shape, torch.int32)
        return (halves >> 8).add_(2**23).to(torch.float32).mul_(2.0**-24)

    def _pieces(self, copies: slice, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Words in pieces of fewer bits, ``(K, N, *shape)``. Each copy begins with a word of its own."""
        n = math.prod(shape)
        words = self.words(copies, math.ceil(n * dtype.itemsize * 8 / _BITS))
        return words.view(dtype)[..., :n].reshape(*words.shape[:2], *shape)


def _step(seed: int) -> int:
    """An odd number of which neighbouring bits differ often enough, as the authors ask."""
    step = seed_from(seed, "step") << 1 | 1
    return step if (step ^ step >> 1).bit_count() >= 24 else step ^ 0xAAAAAAAAAAAAAAAA


def _signed(word: int) -> int:
    """The number that an int64 of these 64 bits is."""
    return word - 2**_BITS if word >= 2 ** (_BITS - 1) else word


@functools.cache
def _normal_values(device: torch.device) -> Tensor:
    """The middles of 65,536 equally probable parts of the normal distribution, in their order."""
    with torch.inference_mode(False):
        probability = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
        return torch.special.ndtri(probability).float().to(device)
