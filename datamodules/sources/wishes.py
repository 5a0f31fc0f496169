"""What a person may ask of a listing, beside where the images lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datamodules.sources.label_files import LabelFile
from datamodules.sources.subsets import Subset


@dataclass(frozen=True)
class Wishes:
    """Where labels come from, and which images are wanted.

    Args:
        labels: What says the class of each image. None = the folders do.
        boxes: Folder of box annotations, which label what nothing else does.
        subset: Which of the images are wanted.
    """

    labels: LabelFile | None = None
    boxes: Path | None = None
    subset: Subset = field(default_factory=Subset)


NO_WISHES = Wishes()
