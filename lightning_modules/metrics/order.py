"""In which order pixels go when the most important ones are removed, or shown, first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from lightning_modules.errors import check_is_one_of
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import Sign, relative_worth
from lightning_modules.random_numbers import RandomNumbers, seed_from


def check_sign(sign: Sign | None) -> None:
    """Refuses an option that is no way to read maps; None = as each method says.

    Raises:
        InputError: If it is none.
    """
    if sign is not None:
        check_is_one_of(Sign, sign=sign)


def note_of_signs(metric: str, sign: Sign | None, methods: Mapping[str, AttributionMethod]) -> str:
    """A sentence on how each method's maps are read.

    Example:
        >>> from lightning_modules import GradCAM, Occlusion
        >>> note_of_signs("ROAD", None, {"GradCAM": GradCAM(), "Occlusion": Occlusion()})
        'ROAD reads maps as positive (GradCAM), signed (Occlusion); by its option sign all in one way.'
        >>> note_of_signs("ROAD", "absolute", {"GradCAM": GradCAM()})
        'ROAD reads maps as absolute (all methods).'
    """
    if sign is not None:
        return f"{metric} reads maps as {sign} (all methods)."
    by_sign: dict[str, list[str]] = {}
    for name, method in methods.items():
        by_sign.setdefault(method.sign, []).append(name)
    read = ", ".join(f"{of} ({', '.join(names)})" for of, names in by_sign.items())
    return f"{metric} reads maps as {read}; by its option sign all in one way."


class PixelOrder(NamedTuple):
    """The order of the pixels of maps.

    Attributes:
        place: Of each pixel, 0 = the most important one: long ``(N, H, W)``.
        tied: The share of the pixels that are worth as much as another one, float32 ``(N,)``.
        worth: What they are worth, ``(N, H, W)``.
    """

    place: Tensor
    tied: Tensor
    worth: Tensor


def pixel_order(
    attribution: Tensor, forward_pass: ForwardPass, method: AttributionMethod, sign: Sign | None, seed: int
) -> PixelOrder:
    """The order of the pixels of maps ``(N, C, H, W)``; what is not finite counts as 0.

    Grad-CAM is 0 over much of an image, and Occlusion the same over whole windows. In reading order such pixels would
    go from the top to the bottom of the image, where skies are above objects. Here chance decides among them: it
    follows from the seed and the image's key alone, so it is the same in any batch, and for all methods.

    Args:
        attribution: The maps.
        forward_pass: The pass that they explain, whose keys decide ties.
        method: The method that made them.
        sign: How they are read. None = as the method says.
        seed: Seed of the draws.
    """
    read: Sign = sign or method.sign
    worth = relative_worth(attribution, read)
    flat = worth.nan_to_num(0, 0, 0).flatten(1)
    draws = RandomNumbers([seed_from("ties", seed, key) for key in forward_pass.keys], worth.device)
    # No two words of an image are equal.
    shuffle = draws.words(slice(0, 1), flat.shape[1])[0].argsort(1)
    ordered, order = flat.gather(1, shuffle).sort(dim=1, descending=True, stable=True)
    place = shuffle.gather(1, order).argsort(1).view(worth.shape)
    is_equal = ordered[:, 1:] == ordered[:, :-1]
    beside = F.pad(is_equal, (1, 1))
    return PixelOrder(place, (beside[:, 1:] | beside[:, :-1]).float().mean(1), worth)
