"""Image files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_images(root: Path, *names: str) -> Path:
    """Writes small grey images, each of another grey, under ``root`` and returns it."""
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 50, 3), 10 * k % 256, np.uint8)).save(path, format="PNG")
    return root
