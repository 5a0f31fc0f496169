"""What people hand over: a network, images, classes. What cannot be used is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from lightning_modules.errors import InputError, told_from
from lightning_modules.networks.class_names import find_class

ROUNDING = 1e-4
"""How far beyond [0, 1] a pixel may lie, as one that was rounded does."""

Target = Tensor | Sequence[int | str] | int | str | None
"""Classes of N images: indices ``(N,)``, or indices, names or WordNet ids; one for all; None = the predicted ones."""

_trusted: ContextVar[bool] = ContextVar("_trusted", default=False)


@contextmanager
def trusted() -> Iterator[None]:
    """Inside, the values of images and targets are not looked at, for which a GPU would be waited for.

    For images of our own loaders, and for what is made of images that were looked at, such as noisy copies.
    """
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    return _trusted.get()


def check_images(images: Any, mean: Tensor, dtype: torch.dtype | None) -> None:
    """Refuses what are no pixels in [0, 1], ``(N, 3, H, W)``, of a network's device and precision.

    Args:
        images: What somebody gave.
        mean: Of the network, ``(3, 1, 1)``: it lies where the network does.
        dtype: What the network computes in; None = in that of the images.

    Raises:
        InputError: If they are something else; says how to make them.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"images should be a tensor (N, 3, H, W) of pixels in [0, 1], got {_remedy(images)}.")
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != len(mean):
        raise InputError(f"images should be (N, 3, H, W), got {shape}{_other_shape(shape)}.")
    if not images.is_floating_point():
        remedy = "datamodules.batch.pixels_of makes pixels of bytes"
        if images.dtype != torch.uint8:
            remedy = "if they count from 0 to 255, images / 255"
        raise InputError(f"images should be floating-point pixels in [0, 1], got {images.dtype}: {remedy}.")
    if images.device != mean.device:
        raise InputError(
            f"The network lies on {mean.device}, the images on {images.device}: images.to('{mean.device}')."
        )
    if dtype not in (None, images.dtype) and not torch.is_autocast_enabled(images.device.type):
        wider = " make the network of module.float(), or" if dtype in (torch.float16, torch.bfloat16) else ""
        raise InputError(
            f"The network computes in {_name(dtype)}, and images are {_name(images.dtype)}:{wider} give "
            f"images.to({dtype})."
        )
    if not is_trusted():
        check_range(images)


def check_range(images: Tensor) -> None:
    """Reads whether images are pixels in [0, 1], but for rounding; also of images that are trusted.

    Raises:
        InputError: If some are not; says which, and what to do.
    """
    is_wrong = ~are_pixels(images)
    if not is_wrong.any():
        return
    wrong = is_wrong.nonzero()[:, 0].tolist()
    which = ", ".join(map(str, wrong[:8])) + ", ..." * (len(wrong) > 8)
    some = images.detach()[is_wrong]
    if not some.isfinite().all():
        raise InputError(f"images should be pixels in [0, 1], but NaN or infinite are some of number {which}.")
    least, greatest = float(some.min()), float(some.max())
    if least < -0.2 and greatest - least < 10:
        remedy = (
            "If they are normalized, leave that out: the network normalizes by itself, and images * network.std + "
            "network.mean undoes it (as_network(module, mean=..., std=...) sets what it subtracts)"
        )
    elif least >= -ROUNDING and greatest > 2:
        remedy = (
            "If they count from 0 to 255, datamodules.batch.pixels_of makes pixels of bytes, and images / 255 of floats"
        )
    else:
        remedy = "If a resize or noise took them there, images.clamp(0, 1)"
    raise InputError(
        f"images should be pixels in [0, 1], but those of number {which} (of {len(images)}) reach from "
        f"{told_from(least, 0)} to {told_from(greatest, 1)}. {remedy}."
    )


def are_pixels(images: Tensor) -> Tensor:
    """Of which images ``(N, C, H, W)`` all pixels lie in [0, 1], but for rounding; bool ``(N,)``, not read."""
    if 0 in images.shape[1:]:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    # Both are NaN where a pixel is.
    return (images.amin((1, 2, 3)) >= -ROUNDING) & (images.amax((1, 2, 3)) <= 1 + ROUNDING)


def target_classes(target: Any, class_names: Sequence[str], n: int) -> Tensor | int | None:
    """The classes to explain: None = the predicted ones; one for all; or long ``(N,)`` on the host or where it lay.

    Args:
        target: None, or a class or a list, array or tensor of N. A class is an index, or a name or WordNet id.
        class_names: Of the network.
        n: How many images there are.

    Raises:
        InputError: If it is something else, or names no class.
    """
    if target is None:
        return None
    if isinstance(target, str):
        return find_class(target, class_names)
    n_classes = len(class_names)
    if isinstance(target, SupportsIndex) and not isinstance(target, bool) and not getattr(target, "ndim", 0):
        target = target.__index__()
        if not 0 <= target < n_classes:
            raise InputError(f"target must lie in [0, {n_classes}), got {target}.")
        return target
    if isinstance(target, list | tuple) and any(isinstance(each, str) for each in target):
        target = [find_class(each, class_names) for each in target]
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"target should be a class, or one of each of the {n} images, got {target!r}.") from None
    if classes.shape != (n,) or (n and (classes.is_floating_point() or classes.dtype == torch.bool)):
        raise InputError(f"target must be integer ({n},), or one class, got {classes.dtype} {tuple(classes.shape)}.")
    if not is_trusted() and bool(((classes < 0) | (classes >= n_classes)).any()):
        raise InputError(f"target must lie in [0, {n_classes}), got {classes.tolist()}.")
    return classes.long()


def _remedy(images: Any) -> str:
    """What somebody gave in place of a tensor, and what makes one of it."""
    if isinstance(images, list | tuple):
        if images and isinstance(images[0], Tensor):
            return "a list of tensors: torch.stack(images)"
        return f"a {type(images).__name__}" + (f" of which the first is {_remedy(images[0])}" if images else "")
    kind = type(images)
    if kind.__module__.partition(".")[0] == "PIL":
        return "a PIL image: datamodules.Preprocess(**network.preprocessing)(image)[None] makes pixels of it"
    if kind.__module__ == "numpy":
        bytes_first = "datamodules.batch.pixels_of(torch.from_numpy(images))"
        return f"a NumPy array: {bytes_first} makes pixels of bytes, torch.from_numpy(images).float() of floats"
    if isinstance(images, str | Path):
        return f"{str(images)!r}: datamodules.decode_image reads an image, datamodules.Preprocess makes pixels of it"
    return f"a {kind.__name__}"


def _other_shape(shape: tuple[int, ...]) -> str:
    """What makes images of tensors of another shape; empty = nothing known."""
    match shape:
        case (3, _, _):
            return ": one image without a batch; images[None]"
        case (_, _, 3):
            return ": one image, its channels last; images.permute(2, 0, 1)[None]"
        case (_, _, _, 3):
            return ": the channels lie last; images.permute(0, 3, 1, 2)"
        case (_, 4, _, _):
            return ": four channels; images[:, :3] leaves alpha out"
        case (_, 1, _, _):
            return ": one channel; images.expand(-1, 3, -1, -1) shows grey images"
        case (_, _):
            return ": one grey image; images.expand(1, 3, -1, -1)"
    return ""


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
