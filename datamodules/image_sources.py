"""Images from anywhere: files, folders, addresses, and images that lie in the memory."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import requests
import urllib3
from PIL import Image

from datamodules.batch import Batch
from datamodules.errors import DataError, DecodingError, UnreachableError
from datamodules.loader import ThreadedLoader
from datamodules.modules import BytesDataModule
from datamodules.preprocess import Preprocess, PreprocessOptions
from datamodules.reader import Failure, Sample, SampleReader, collate, failed
from datamodules.remote import is_address, read_range, remote_file
from datamodules.walk import LeftOut, images_below

logger = logging.getLogger(__name__)

MAX_BYTES = 50_000_000
"""Largest download, in bytes."""
TIMEOUT = 20.0
"""Longest download, in seconds."""


ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A file, a folder or an address; the content of a file; an image; or its levels, uint8 ``(H, W, 3)`` or ``(H, W)``."""


def download(address: str, max_bytes: int = MAX_BYTES, timeout: float = TIMEOUT) -> bytes:
    """The content at an http(s) address.

    Raises:
        DecodingError: If it cannot be had within ``timeout`` seconds and ``max_bytes`` bytes.
    """
    deadline = time.monotonic() + timeout
    try:
        # requests' own timeout is for each read; a server that drips bytes would hold us forever.
        with requests.get(address, stream=True, timeout=timeout, headers={"User-Agent": "vgg-lens"}) as response:
            response.raise_for_status()
            content = bytearray()
            # Not iter_content: it waits until a whole chunk has come.
            while chunk := response.raw.read1(1 << 16, decode_content=True):
                content += chunk
                if len(content) > max_bytes:
                    raise DecodingError(f"larger than {max_bytes:,} bytes")
                if time.monotonic() > deadline:
                    raise DecodingError(f"took longer than {timeout:g} seconds")
    except DecodingError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise DecodingError(f"cannot be fetched: {error}") from error
    return bytes(content)


def content_of(image: Image.Image | np.ndarray) -> bytes:
    """An image as the content of a file, without loss, so that it is decoded as files are.

    Raises:
        DecodingError: If it is an array of something else than levels.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise DecodingError(f"an array {image.dtype} {image.shape}; it should be uint8, (H, W, 3) or (H, W)")
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    file = io.BytesIO()
    kept = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    (image if image.mode in kept else image.convert("RGB")).save(file, "PNG", compress_level=0)
    return file.getvalue()


class ImageSourcesDataModule(BytesDataModule):
    """Files, folders, addresses and images in the memory, to predict.

    Args:
        sources: Where the images are, or they themselves, see :data:`ImageSource`.
        batch_size: Images in a batch.
        num_workers: Threads that read images; 0 = the main one.
        exif_orientation: Whether images are turned as their EXIF orientation asks.
        n_originals: For the first so many images, the batch carries the original pixels too.
        is_relative: Whether images are called as in a run: by their paths below the folder that is named, others by the
            names of their files; where two would be called the same, the second by its whole path.
        **preprocessing: What the network sees of an image, see :class:`~datamodules.preprocess.PreprocessOptions`.

    Raises:
        DataError: If a folder holds no images.

    Example:
        >>> data = ImageSourcesDataModule(["no_such_file.jpg"], num_workers=0)
        >>> next(iter(data.predict_dataloader()))["failed"]
        [('no_such_file.jpg', 'No such file or directory')]
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        batch_size: int = 16,
        num_workers: int = 0,
        exif_orientation: bool = False,
        n_originals: int = 0,
        is_relative: bool = False,
        **preprocessing: Unpack[PreprocessOptions],
    ) -> None:
        super().__init__()
        left_out = LeftOut()
        self.sources: list[Any] = []
        self.names: list[str] = []
        for source in sources:
            each: Any = os.fspath(source) if isinstance(source, os.PathLike) else source
            is_folder = isinstance(each, str) and os.path.isdir(each)  # "" is none; to Path it is the current one
            for found in _images_in(each, left_out) if is_folder else [each]:
                name = found if isinstance(found, str) else f"image {len(self.sources)}"
                short = os.path.relpath(name, each) if is_folder else os.path.basename(name)
                self.names.append(name if not is_relative or short in self.names else short)
                self.sources.append(found)
        preprocess = Preprocess(**preprocessing)
        self.reader = SampleReader(preprocess, n_originals=n_originals, exif_orientation=exif_orientation)
        if notes := left_out.notes():
            logger.warning("%s.", "; ".join(notes))
        self.batch_size = batch_size
        self.num_workers = num_workers

    def predict_dataloader(self) -> ThreadedLoader[Sample | Failure, Batch]:
        return ThreadedLoader(self.read, range(len(self.sources)), self.batch_size, self.num_workers, collate)

    def read(self, index: int) -> Sample | Failure:
        """The source of a number as a sample, or why there is none."""
        source, path = self.sources[index], self.names[index]
        try:
            if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
                source = download(source)
            elif isinstance(source, str) and is_address(source):
                file = remote_file(source)
                if file.size > MAX_BYTES:
                    raise DecodingError(f"larger than {MAX_BYTES:,} bytes")
                source = read_range(file, 0, file.size)
            elif not isinstance(source, str | bytes):
                source = content_of(source)
            return self.reader.read(source, path, -1, index)
        except (DecodingError, UnreachableError) as error:
            return failed(path, str(error))
        except Exception as error:
            return failed(path, f"cannot be read: {type(error).__name__}: {error}")


def _images_in(folder: str, left_out: LeftOut) -> list[str]:
    """The images anywhere below a folder, sorted."""
    found = images_below(Path(folder), left_out).to_pylist()
    if not found:
        raise DataError(f"The folder {folder} holds no images{left_out.as_clause()}.")
    return [os.path.join(folder, os.fsdecode(name)) for name in found]
