"""Attacked images as a run stores them: pictures of 8 bits for eyes and other programs, and the exact pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.results.arrays import OVERHEAD, StoredArrays, array_column, as_tensor, table_of_arrays
from lightning_modules.text import plain_name

FOLDER = "adversarial"
OPTION = "model.save_adversarial"

LONGEST_NAME = 200
"""Bytes of a name of a file or folder; file systems take 255, and a file is written aside under a longer name."""


def in_bytes(images: Tensor) -> Tensor:
    """Pixels in [0, 1] of any shape, rounded to 8 bits as a picture's file holds them: uint8."""
    return (images * 255).round().to(torch.uint8)


def picture_file(path: str, eps: float) -> str:
    """The file, in RUN, of the image at ``path`` under a budget: its own folders and name below that of the budget.

    A path that leads elsewhere, as one in a tar file may, and a name that no file may have become one of its hash.

    Example:
        >>> picture_file("n01440764/a.JPEG", 0.25)
        'adversarial/0.25/n01440764/a.JPEG.png'
    """
    parts = PurePosixPath(path).parts
    leaves = path.startswith("/") or ".." in parts
    if leaves or any(len(part.encode()) > LONGEST_NAME for part in parts):
        parts = (hashlib.sha256(path.encode()).hexdigest(),)
    return "/".join([FOLDER, plain_name(format_eps(eps)), *parts]) + ".png"


def pictures_of(
    paths: Sequence[str], eps: Sequence[float], pictures: Sequence[Tensor], failed: set[str]
) -> dict[str, np.ndarray]:
    """File -> uint8 ``(H, W, 3)``, of each image that did not fail, under each budget.

    Args:
        paths: Of N images.
        eps: The k budgets.
        pictures: Under each, uint8 ``(N, 3, H, W)``; on the host.
        failed: The paths of the images that failed.
    """
    return {
        picture_file(path, budget): image.permute(1, 2, 0).contiguous().numpy()
        for budget, images in zip(eps, pictures, strict=True)
        for path, image in zip(paths, images)
        if path not in failed
    }


def table_of_pixels(paths: Sequence[str], eps: Sequence[float], pixels: Sequence[Tensor], failed: set[str]) -> pa.Table:
    """A row for each image that did not fail: its pixels as the networks saw them, clean and under each budget.

    Args:
        paths: Of N images.
        eps: The k budgets.
        pixels: Of the clean images, and under each budget: 1 + k times ``(N, 3, H, W)``; on the host.
        failed: The paths of the images that failed.
    """
    good = [i for i, path in enumerate(paths) if path not in failed]
    columns = [
        array_column(format_eps(budget) if budget else "0", images[good].contiguous().numpy())
        for budget, images in zip([0.0, *eps], pixels, strict=True)
    ]
    return table_of_arrays([paths[i] for i in good], columns)


def bytes_of_image(n_pixels: int, n_budgets: int, n_bytes: int = 4) -> int:
    """How many bytes an image takes at the most.

    Args:
        n_pixels: Of one image, all channels.
        n_budgets: How many there are.
        n_bytes: Of a pixel as the network sees it.
    """
    picture = n_pixels + n_pixels // 100 + 1024  # of noise, which PNG cannot compress
    return (1 + n_budgets) * n_pixels * n_bytes + n_budgets * picture + OVERHEAD


class AttackedImages(Mapping[str, dict[str, Tensor]]):
    """The images that a run attacked, by their paths: of each, by budget as it was typed, its pixels.

    ``"0"`` is the clean image. They are those that the networks saw, to the bit: in [0, 1], float32 ``(3, H, W)``.
    What the attack added is the difference.
    """

    def __init__(self, run: Path) -> None:
        self.stored = StoredArrays(run, FOLDER, OPTION)

    def __len__(self) -> int:
        return len(self.stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __getitem__(self, path: str) -> dict[str, Tensor]:
        return {eps: as_tensor(values) for eps, values in self.stored[path].items()}


def read_adversarial(run: str | Path) -> AttackedImages:
    """The images that a run attacked and stored; each is read when it is asked for.

    Args:
        run: The run's folder.

    Raises:
        InputError: If it stored none.
    """
    return AttackedImages(Path(run))
