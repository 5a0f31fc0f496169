"""A few real pictures, which other packages bring along."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import matplotlib

from datamodules.errors import DataError

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
"""Of scikit-image: an astronaut, a cat, a cup, a motorcycle, a rocket."""


def write_pictures(folder: str | Path) -> list[Path]:
    """Copies six photos into a folder, which is made if need be: those of scikit-image, and matplotlib's Grace Hopper.

    Raises:
        DataError: If scikit-image is not installed; says how it is.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_pictures(folder)][:2]
        ['astronaut.png', 'chelsea.png']
    """
    found = find_spec("skimage.data") if find_spec("skimage") else None
    if found is None or found.origin is None:
        raise DataError("The pictures are scikit-image's: pip install 'vgg-lens[demo]' (that is, scikit-image).")
    sources = [Path(found.origin).with_name(name) for name in PICTURES]
    sources.append(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"))
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(source, Path(folder, source.name))) for source in sources]
