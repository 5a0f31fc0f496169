"""One decoded shard: an Arrow file of images as a network sees them, mapped into memory and never copied as a whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from datamodules.batch import Original
from datamodules.errors import DataError
from datamodules.reading.decoding import Preprocess
from datamodules.reading.samples import Failure, Seen
from datamodules.reading.seen_boxes import SeenBoxes

SUFFIX = ".decoded.arrow"

KEY = b"decoded"
"""What has the facts of a shard in the metadata of its file."""


@dataclass(frozen=True)
class Making:
    """How the pixels of a shard were made of the files.

    Attributes:
        resize_size: Length in pixels of the shorter side before the crop.
        input_size: Height and width in pixels of the crop.
        interpolation: How images were resized.
        exif_orientation: Whether images were turned as their EXIF orientation asks.
    """

    resize_size: int
    input_size: int
    interpolation: str
    exif_orientation: bool

    @classmethod
    def by(cls, preprocess: Preprocess, exif_orientation: bool) -> Self:
        return cls(preprocess.short_side, preprocess.input_size, preprocess.interpolation, exif_orientation)

    def __str__(self) -> str:
        turned = "turned as EXIF asks" if self.exif_orientation else "as they lie"
        return (
            f"{turned}, {self.interpolation} to a shorter side of {self.resize_size}, cropped to "
            f"{self.input_size} × {self.input_size}"
        )

    @property
    def n_bytes(self) -> int:
        """Of an image's pixels."""
        return 3 * self.input_size**2


class Facts(NamedTuple):
    """What a shard says of itself.

    Attributes:
        making: How its pixels were made.
        number: Which shard it is ...
        n_shards: ... of how many.
        sha256: Of all that it holds.
    """

    making: Making
    number: int
    n_shards: int
    sha256: str


def _schema(making: Making) -> pa.Schema:
    return pa.schema(
        [
            ("path", pa.string()),
            ("error", pa.string()),  # of an image that could not be read: why; null = it could be
            ("class", pa.string()),  # where its folder does not say it; "" = it is unlabelled
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("orientation", pa.int8()),
            ("is_turned", pa.bool_()),
            ("doubt", pa.string()),
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("box_names", pa.list_(pa.string())),  # null = there is no annotation
            ("box_error", pa.string()),
            ("original", pa.binary()),  # PNG
            ("view", pa.list_(pa.float64())),
            ("image", pa.binary(making.n_bytes)),  # (3, H, W)
        ]
    )


class Shard:
    """The rows of a shard to be written.

    Args:
        making: How the pixels are made.
        n: How many rows there will be.
    """

    def __init__(self, making: Making, n: int) -> None:
        self.making = making
        self._images = np.zeros((n, making.n_bytes), np.uint8)
        self._rows: list[dict[str, Any]] = []

    def add(self, seen: Seen | Failure, class_: str | None, box_names: Iterable[str] | None) -> None:
        """Adds an image, whose pixels are copied.

        Args:
            seen: What is seen of it.
            class_: Its class, where its folder does not say it.
            box_names: What its boxes are named after, also if it could not be read; None = it has no annotation.
        """
        row: dict[str, Any] = {"class": class_, "box_names": None if box_names is None else list(box_names)}
        if "failed" in seen:
            path, error = seen["failed"]
            self._rows.append({**row, "path": path, "error": error})
            return
        self._images[len(self._rows)] = seen["image"].numpy().reshape(-1)
        boxes, original = seen["boxes"], seen["original"]
        row |= {name: seen[name] for name in ("path", "orientation", "is_turned", "doubt")}
        row["width"], row["height"] = seen["size"]
        if boxes is not None:
            row["boxes"], row["box_error"] = boxes.boxes.tolist(), boxes.error
        if original is not None:
            row["original"], row["view"] = _png(original.pixels), list(original.view)
        self._rows.append(row)

    def write(self, file: Path, number: int, n_shards: int) -> None:
        schema = _schema(self.making)
        rows = pa.Table.from_pylist(self._rows, schema.remove(schema.get_field_index("image")))
        pixels = [None, pa.py_buffer(self._images)]
        images = pa.FixedSizeBinaryArray.from_buffers(pa.binary(self.making.n_bytes), len(self._rows), pixels)
        sha256 = hashlib.sha256(self._images.data)
        sha256.update(json.dumps(rows.drop_columns("original").to_pylist()).encode())
        facts = {"making": asdict(self.making), "number": number, "n_shards": n_shards, "sha256": sha256.hexdigest()}
        table = rows.append_column(schema.field("image"), images).replace_schema_metadata({KEY: json.dumps(facts)})
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())  # in one piece, to be mapped as one


def _png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()


class OpenShard:
    """A shard that is mapped into memory: nothing of it is read before it is asked for.

    Raises:
        DataError: If it is none, or not whole.
    """

    def __init__(self, file: str) -> None:
        try:
            # The mapping outlives its file, of which a process may have few open. What is written to it, if anything
            # were, would be this process's alone: so PyTorch takes it as it is, and only a batch copies pixels.
            content = torch.from_file(file, shared=False, size=os.path.getsize(file), dtype=torch.uint8)
            reader = pa.ipc.open_file(pa.py_buffer(content.numpy()))
            found = json.loads(reader.schema.metadata[KEY])
            rows = reader.get_batch(0)
        except (OSError, pa.ArrowException, RuntimeError, TypeError, LookupError, ValueError) as error:
            raise DataError(f"{file} is no decoded shard, or is not whole: pack it again. ({error})") from error
        making = Making(**found.pop("making"))
        self.facts = Facts(making, **found)
        self.columns = {name: rows[name] for name in rows.schema.names}
        start = self.columns["image"].buffers()[1].address - content.data_ptr()
        shape = (len(rows), 3, making.input_size, making.input_size)
        self.images = content[start : start + len(rows) * making.n_bytes].view(shape)

    def __len__(self) -> int:
        return len(self.images)

    def look(self, row: int, with_original: bool) -> Seen | Failure:
        """What a network sees of the image of a row, as when it was packed."""
        path, error = self._value("path", row), self._value("error", row)
        if error is not None:
            return {"failed": (path, error)}
        names = self._value("box_names", row)
        boxes = None
        if names is not None:
            corners = torch.tensor(self._value("boxes", row), dtype=torch.float32).reshape(-1, 4)
            boxes = SeenBoxes(corners, tuple(names), self._value("box_error", row))
        return {
            "image": self.images[row],
            "path": path,
            "size": (self._value("width", row), self._value("height", row)),
            "orientation": self._value("orientation", row),
            "is_turned": self._value("is_turned", row),
            "doubt": self._value("doubt", row),
            "boxes": boxes,
            "original": self._original(row) if with_original else None,
        }

    def _value(self, name: str, row: int) -> Any:
        return self.columns[name][row].as_py()

    def _original(self, row: int) -> Original:
        """The image before resize and crop, if it was kept; else what the network sees of it."""
        content = self._value("original", row)
        if content is None:
            size = float(self.facts.making.input_size)
            return Original(self.images[row].permute(1, 2, 0).numpy().copy(), (0.0, 0.0, size, size))
        with Image.open(io.BytesIO(content)) as image:
            left, top, right, bottom = self._value("view", row)
            return Original(np.array(image), (left, top, right, bottom))


def decoded_shards_in(root: Path) -> list[str]:
    """The decoded shards in a folder, sorted."""
    return sorted(str(root / e.name) for e in os.scandir(root) if e.name.endswith(SUFFIX) and e.name[0] != ".")


def checked_together(shards: Sequence[str]) -> list[OpenShard]:
    """The shards, opened, if they belong together.

    Raises:
        DataError: If one cannot be used, or they were not packed in one go.
    """
    opened = [OpenShard(shard) for shard in shards]
    first = opened[0].facts
    for shard, other in zip(shards, opened):
        if (other.facts.making, other.facts.n_shards) != (first.making, first.n_shards):
            raise DataError(f"{shard} and {shards[0]} were not packed together: pack each folder of its own.")
    if len({shard.facts.number for shard in opened}) < len(opened):
        raise DataError(f"Some of {shards[0]}, ... were packed twice: name each shard once.")
    return opened
