"""Decoded images: as a network sees them, in one array that is mapped into memory, and a table beside it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from datamodules.batch import Original
from datamodules.boxes import boxes_in_view, find_annotation
from datamodules.errors import DataError
from datamodules.folder import top_folders
from datamodules.labelling import label_images
from datamodules.preprocess import Preprocess
from datamodules.reader import NO_LABELS, Failure, Sample, SampleReader
from datamodules.source import ListingOptions, Source, chunked, require_classes
from datamodules.walk import holds_images

IMAGES, TABLE = "images.npy", "images.parquet"
"""Pixels, uint8 ``(N, 3, H, W)``, and a row for each image."""

EARLIER = ".decoded.arrow"
"""How files of an earlier version end."""

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("error", pa.string()),  # of an image that could not be read: why; null = it could be
        ("class", pa.string()),  # where its folder does not give it; "" = it is unlabelled
        ("box_names", pa.list_(pa.string())),  # null = there is no annotation
        ("facts", pa.string()),  # what else a Sample holds, as JSON
        ("original", pa.binary()),  # PNG
        ("view", pa.list_(pa.float64())),
    ]
)


def how_prepared(preprocess: Preprocess, exif_orientation: bool) -> str:
    """What decides the pixels of an image beside its file, in words."""
    size = preprocess.input_size
    crop = "" if preprocess.crop == "center" else f" by {preprocess.crop}"
    return (
        f"{'turned as EXIF asks' if exif_orientation else 'as they lie'}, {preprocess.interpolation} to a shorter side "
        f"of {preprocess.short_side}, cropped to {size} × {size}{crop}"
    )


def write_decoded(
    folder: Path,
    images: Iterable[tuple[Sample | Failure, str | None, Sequence[str] | None]],
    n: int,
    size: int,
    how: str,
) -> None:
    """Writes N images.

    Args:
        folder: Where to.
        images: What is seen of each, or why it could not be read; its class, where its folder does not give it, "" = it
            is unlabelled; what its boxes are named after, None = it has no annotation.
        n: How many.
        size: Height and width of what is seen.
        how: How they were prepared, see :func:`how_prepared`.
    """
    pixels = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, (n, 3, size, size))
    sha256 = hashlib.sha256()

    def rows() -> Iterator[dict[str, Any]]:
        for k, (image, class_, names) in enumerate(images):
            if "failed" not in image:
                pixels[k] = image["image"].numpy()
                sha256.update(pixels[k].data)
            row = {**_row(image), "class": class_, "box_names": names}
            sha256.update(json.dumps({**row, "original": None}).encode())
            yield row

    with pq.ParquetWriter(folder / TABLE, _SCHEMA) as writer:
        for some in chunked(rows()):
            writer.write_table(pa.Table.from_pylist(some, _SCHEMA))
        facts = {"how": how, "shape": pixels.shape, "sha256": sha256.hexdigest()}
        writer.add_key_value_metadata({"decoded": json.dumps(facts)})
    pixels.flush()


def _row(image: Sample | Failure) -> dict[str, Any]:
    if "failed" in image:
        return dict(zip(("path", "error"), image["failed"]))
    original = image["original"]
    facts: dict[str, Any] = {
        name: image[name] for name in ("size", "orientation", "is_turned", "file_columns", "box_error")
    }
    facts["boxes"] = image["boxes"].tolist()
    row: dict[str, Any] = {"path": image["path"], "facts": json.dumps(facts)}
    if original is not None:
        with io.BytesIO() as file:
            Image.fromarray(original.pixels).save(file, "PNG", compress_level=1)
            row |= {"original": file.getvalue(), "view": original.view}
    return row


class DecodedSource(Source):
    """Images that were decoded once, each copied out of the array when it is asked for."""

    kind = "decoded"

    @classmethod
    def matches(cls, root: Path | str) -> bool:
        root = Path(root)
        if str(root).endswith(EARLIER) or (root / IMAGES).exists():
            return True
        return any(root.glob(f"*{EARLIER}")) and not holds_images(root)

    @classmethod
    def list_images(cls, root: Path | str, options: ListingOptions) -> Self:
        root = Path(root)
        require_classes(root, options.class_names)
        if not (root / IMAGES).exists():
            raise DataError(
                f"{root} holds images that an earlier version decoded. Pack them anew from the original images: "
                "python scripts/pack_shards.py --decoded --data.root FOLDER --network NETWORK --out OUT"
            )
        table, facts = _opened(root)
        paths = table["path"].combine_chunks().cast(pa.large_string()).cast(pa.large_binary())
        texts, box_names = table["class"].combine_chunks(), table["box_names"]
        labels, _, notes = label_images(
            root,
            options,
            paths,
            top_folders(paths),
            texts,
            lambda numbers: box_names.take(pa.array(numbers, pa.int64())).to_pylist(),
        )
        facts |= {"root": str(root), "has_boxes": bool(pc.any(box_names.is_valid()).as_py())}
        return cls.make(paths, labels, facts, notes, row=np.arange(len(table)))

    @property
    def may_have_boxes(self) -> bool:
        return self.facts["has_boxes"]

    def check(self, reader: SampleReader) -> None:
        wanted = how_prepared(reader.preprocess, reader.exif_orientation)
        if wanted != self.facts["how"]:
            raise DataError(
                f"{self.facts['root']} holds images {self.facts['how']}, and the network is to see them {wanted}: pack "
                "them for it (pack_shards.py --decoded), or read the original images."
            )

    def content_fingerprint(self) -> dict[str, Any]:
        return {"content_sha256": self.facts["sha256"]}

    @cached_property
    def _content(self) -> tuple[torch.Tensor, dict[str, pa.Array]]:
        """The pixels and the columns of all that was packed."""
        root = Path(self.facts["root"])
        # What is written to it, if anything were, would be this process's alone: so PyTorch takes it as it is.
        pixels = torch.from_numpy(np.load(root / IMAGES, mmap_mode="c"))
        table, _ = _opened(root)
        return pixels, {name: table[name].combine_chunks() for name in table.column_names}

    def read_one(self, i: int, reader: SampleReader) -> Sample | Failure:
        sample = self.prepared(i, with_original=i < reader.n_originals)
        if "failed" in sample:
            return sample
        if sample["box_names"] is None and (file := find_annotation(reader.boxes, sample["path"])) is not None:
            how = sample["size"], sample["orientation"], sample["is_turned"]
            boxes, names, error = boxes_in_view(reader.preprocess, file, None, *how)
            sample = {**sample, "boxes": boxes, "box_names": names, "box_error": error}
        return reader.labelled(sample, int(self.labels[i]))

    def prepared(self, i: int, with_original: bool) -> Sample | Failure:
        """The i-th image as it was packed, of which nothing is labelled."""
        pixels, columns = self._content
        row = self.columns["row"][i].as_py()

        def value(name: str) -> Any:
            return columns[name][row].as_py()

        if (error := value("error")) is not None:
            return {"failed": (value("path"), error)}
        facts = json.loads(value("facts"))
        original = None
        if with_original and (content := value("original")) is not None:
            with Image.open(io.BytesIO(content)) as image:
                original = Original(np.array(image), tuple(value("view")))
        elif with_original:
            size = float(pixels.shape[-1])
            original = Original(pixels[row].permute(1, 2, 0).numpy().copy(), (0.0, 0.0, size, size))
        return {
            "image": pixels[row],
            "path": value("path"),
            "label": -1,
            "index": i,
            "boxes": torch.tensor(facts["boxes"], dtype=torch.float32).reshape(-1, 4),
            "box_names": value("box_names"),
            "box_labels": NO_LABELS,
            "box_error": facts["box_error"],
            "size": tuple(facts["size"]),
            "orientation": facts["orientation"],
            "is_turned": facts["is_turned"],
            "file_columns": facts["file_columns"],
            "original": original,
        }


def _opened(root: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table of what was packed, and how and how much it was.

    Raises:
        DataError: If it is not whole.
    """
    try:
        table = pq.read_table(root / TABLE)
        facts = json.loads(pq.read_metadata(root / TABLE).metadata[b"decoded"])
        pixels = np.load(root / IMAGES, mmap_mode="r")
        if [*pixels.shape] != facts["shape"] or len(table) != len(pixels):
            raise ValueError(f"{len(table)} rows, and an array of {pixels.shape}")
        table.select(_SCHEMA.names)
    except (OSError, pa.ArrowException, TypeError, LookupError, ValueError, EOFError) as error:
        raise DataError(f"{root} holds no decoded images, or not all of them: pack them again. ({error})") from error
    return table, facts
