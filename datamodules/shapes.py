"""The embedded data set: generated images with an object of known class in a known box, in ImageNet's layout."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pytorch_lightning.utilities import rank_zero_info

from datamodules.boxes import Annotation, write_annotation
from datamodules.errors import DataError
from datamodules.modules import ImageFolderDataModule
from datamodules.writing import written_whole

INPUT_SIZE = 112
RESIZE_SIZE = 128
_SUPERSAMPLING = 4


def _regular(n: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """A regular polygon of ``n`` corners, every second of them at the radius ``inner``."""
    radii = [1.0, inner] if inner != 1 else [1.0]
    return [
        (radii[i % len(radii)] * math.sin(2 * math.pi * i / n), -radii[i % len(radii)] * math.cos(2 * math.pi * i / n))
        for i in range(n)
    ]


def _circle(radius: float = 1.0, x: float = 0.0) -> list[tuple[float, float]]:
    return [(x + radius * a, radius * b) for a, b in _regular(48)]


def _cross(arm: float = 0.33) -> list[tuple[float, float]]:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    return [p for k in range(4) for p in (_rotate(quarter, k * math.pi / 2))]


def _heart() -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in angles
    ]


def _rotate(points: Sequence[tuple[float, float]], angle: float) -> list[tuple[float, float]]:
    c, s = math.cos(angle), math.sin(angle)
    return [(c * x - s * y, s * x + c * y) for x, y in points]


# Class name -> (outline, hole cut out of it or None), in units of the object's radius.
_OUTLINES: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]] | None]] = {
    "arrow": ([(0, -1), (0.8, 0), (0.3, 0), (0.3, 1), (-0.3, 1), (-0.3, 0), (-0.8, 0)], None),
    "circle": (_circle(), None),
    "crescent": (_circle(), _circle(0.85, 0.55)),
    "cross": (_cross(), None),
    "heart": (_heart(), None),
    "ring": (_circle(), _circle(0.55)),
    "square": ([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], None),
    "star": (_regular(10, 0.42), None),
}
SHAPE_NAMES = sorted(_OUTLINES)
"""The eight classes, in the order of the embedded model's outputs."""


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random colour with smooth coloured noise of several scales over it: float ``(height, width, 3)`` in [0, 1]."""
    canvas = np.full((height, width, 3), rng.uniform(0.15, 0.85, 3))
    for cells, strength in ((3, 0.16), (8, 0.10), (24, 0.06)):
        brightness, colour = rng.normal(0, strength, (cells, cells, 1)), rng.normal(0, strength, (cells, cells, 3))
        noise = ((0.8 * brightness + 0.4 * colour) * 127 + 128).clip(0, 255).astype(np.uint8)
        smooth = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        canvas += (np.asarray(smooth, dtype=np.float64) - 128) / 127
    return (canvas + rng.normal(0, 0.04, canvas.shape)).clip(0, 1)


def _draw_object(
    canvas: np.ndarray, name: str, center: tuple[float, float], radius: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draws an object into ``canvas`` and returns its box (left, top, right, bottom)."""
    height, width = canvas.shape[:2]
    angle = rng.uniform(-0.35, 0.35)
    mask = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    outline, hole = _OUTLINES[name]
    for points, fill in ((outline, 255), (hole, 0)):
        if points is not None:
            draw.polygon(
                [
                    ((center[0] + radius * x) * _SUPERSAMPLING, (center[1] + radius * y) * _SUPERSAMPLING)
                    for x, y in _rotate(points, angle)
                ],
                fill=fill,
            )
    alpha = np.asarray(mask.resize((width, height), Image.Resampling.BOX), dtype=np.float64)[..., None] / 255
    surface = _texture(rng, width, height)
    # An object as bright as its surroundings could not be told from them.
    inside = alpha[..., 0] > 0.5
    contrast = surface[inside].mean() - canvas[inside].mean()
    surface = (surface + np.sign(contrast) * max(0.0, 0.35 - abs(contrast))).clip(0, 1)
    canvas[:] = canvas * (1 - alpha) + surface * alpha
    rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _one_object(name: str, rng: np.random.Generator) -> tuple[Image.Image, Annotation]:
    """An image of one object, which lies in the part that the centre crop keeps."""
    width, height = (int(v) for v in rng.integers(128, 171, 2))
    radius = rng.uniform(18, 34)
    margin = (min(width, height) * INPUT_SIZE / RESIZE_SIZE) / 2 - radius - 1
    center = (width / 2 + rng.uniform(-margin, margin), height / 2 + rng.uniform(-margin, margin))
    return _compose(width, height, [(name, center, radius)], rng)


def _two_objects(names: Sequence[str], rng: np.random.Generator) -> tuple[Image.Image, Annotation]:
    """An image of two objects in opposite corners of the part that the centre crop keeps."""
    size, radius = 136, rng.uniform(19, 25, 2)
    # Along this diagonal the objects cannot touch; the flip chooses which diagonal, and who sits where.
    flips = rng.choice([-1, 1], 2)
    offsets = [(-30 * flips[0], -30 * flips[1]), (30 * flips[0], 30 * flips[1])]
    objects = [
        (name, (size / 2 + dx + rng.uniform(-3, 3), size / 2 + dy + rng.uniform(-3, 3)), r)
        for name, (dx, dy), r in zip(names, offsets, radius)
    ]
    return _compose(size, size, objects, rng)


def _compose(
    width: int, height: int, objects: Sequence[tuple[str, tuple[float, float], float]], rng: np.random.Generator
) -> tuple[Image.Image, Annotation]:
    canvas = _texture(rng, width, height)
    boxes = tuple(_draw_object(canvas, *item, rng) for item in objects)
    image = Image.fromarray((canvas * 255 + 0.5).astype(np.uint8))
    return image, Annotation(width, height, tuple(name for name, _, _ in objects), boxes)


class ShapesDataModule(ImageFolderDataModule):
    """Generated images of eight shapes over textured backgrounds, with boxes, written once as an ImageNet-style folder.

    ``root/train``, ``root/val`` and ``root/pairs`` hold class folders, ``root/annotations/...`` the boxes in ILSVRC's
    XML layout. An image of ``pairs`` has two objects of different classes and is filed under both. The images follow
    from the seed alone: image ``i`` of a split is the same however many there are.

    Args:
        root: Folder to write, or written before with the same settings.
        n_train: Training images.
        n_val: Held-out images.
        n_pairs: Images with two objects, each filed twice.
        seed: Seed of the generator.
        split: What testing reads: ``val`` or ``pairs``.
        **reading: ``batch_size``, ``num_workers`` and ``n_originals``, as of any folder.
    """

    def __init__(
        self,
        root: str = "data/shapes",
        n_train: int = 3600,
        n_val: int = 800,
        n_pairs: int = 200,
        seed: int = 0,
        split: str = "val",
        **reading: Any,
    ) -> None:
        # Smaller crops might leave the object out.
        super().__init__(
            root, class_names=SHAPE_NAMES, input_size=INPUT_SIZE, resize_size=RESIZE_SIZE, min_crop=0.85, **reading
        )
        if split not in ("val", "pairs"):
            raise DataError(f"data.split must be val or pairs, got {split!r}.")
        self.test_root, self.boxes = self.root / split, self.root / "annotations" / split
        self.prepare_data_per_node = True
        self.settings = {"n_train": n_train, "n_val": n_val, "n_pairs": n_pairs, "seed": seed, "version": 1}

    def prepare_data(self) -> None:
        write_shapes(self.root, **self.settings)
        super().prepare_data()


def write_shapes(root: Path, n_train: int, n_val: int, n_pairs: int, seed: int, version: int = 1) -> None:
    """Writes the data set of :class:`ShapesDataModule` to ``root``; does nothing if it is there.

    Raises:
        DataError: If ``root`` holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_shapes(Path(folder, "shapes"), n_train=0, n_val=8, n_pairs=0, seed=0)
        ...     len(list(Path(folder, "shapes").glob("val/*/*.JPEG")))
        8
    """
    settings = {"n_train": n_train, "n_val": n_val, "n_pairs": n_pairs, "seed": seed, "version": version}
    marker = root / "shapes.json"
    if root.exists():
        found = json.loads(marker.read_text()) if marker.exists() else None
        if found == settings:
            return
        raise DataError(f"{root} holds {found or 'no generated shapes'}, not {settings}. Name another folder.")
    rank_zero_info(f"Writing {n_train + n_val + 2 * n_pairs} generated images to {root}")
    with written_whole(root) as aside:
        aside.mkdir()
        for number, (split, count) in enumerate((("train", n_train), ("val", n_val), ("pairs", n_pairs))):
            for index in range(count):
                _write_image(aside, split, index, np.random.default_rng([seed, number, index]))
        (aside / "shapes.json").write_text(json.dumps(settings))


def _write_image(root: Path, split: str, index: int, rng: np.random.Generator) -> None:
    if split == "pairs":
        first, second = (int(k) for k in rng.choice(len(SHAPE_NAMES), 2, replace=False))
        names = [SHAPE_NAMES[first], SHAPE_NAMES[second]]
        image, annotation = _two_objects(names, rng)
    else:
        names = [SHAPE_NAMES[index % len(SHAPE_NAMES)]]
        image, annotation = _one_object(names[0], rng)
    stem = f"{'_'.join(names)}_{index:05d}"
    for name in names:
        picture, boxes = root / split / name / f"{stem}.JPEG", root / "annotations" / split / name / f"{stem}.xml"
        for file in (picture, boxes):
            file.parent.mkdir(parents=True, exist_ok=True)
        image.save(picture, quality=95)
        write_annotation(boxes, annotation)
