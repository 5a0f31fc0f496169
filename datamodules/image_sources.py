"""Images from anywhere: files, folders and http(s) addresses."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import requests
import torch
import urllib3

from datamodules.batch import Batch
from datamodules.errors import DataError, DecodingError
from datamodules.loader import ThreadedLoader
from datamodules.modules import BytesDataModule
from datamodules.preprocess import Preprocess
from datamodules.reader import Failure, Sample, SampleReader, collate, failed
from datamodules.source import each_name
from datamodules.walk import LeftOut, images_below

logger = logging.getLogger(__name__)

MAX_BYTES = 50_000_000
"""Largest download, in bytes."""
TIMEOUT = 20.0
"""Longest download, in seconds."""


def expand_sources(sources: Sequence[str], left_out: LeftOut | None = None) -> list[str]:
    """Replaces each folder by the images anywhere below it, sorted; files and addresses stay as they are.

    Args:
        sources: Paths of images or folders, and addresses.
        left_out: What else lies in the folders is counted there.

    Raises:
        DataError: If a folder holds no images.
    """
    left_out = LeftOut() if left_out is None else left_out
    expanded = []
    for source in sources:
        if _is_address(source) or not os.path.isdir(source):  # "" is no folder; to Path it is the current one
            expanded.append(source)
            continue
        found = images_below(Path(source), "", left_out)
        if not len(found):
            raise DataError(f"The folder {source} holds no images{left_out.as_clause()}.")
        expanded += [os.path.join(source, os.fsdecode(name)) for name in each_name(found)]
    return expanded


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
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise DecodingError(f"took longer than {timeout:g} seconds") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise DecodingError(f"cannot be fetched: {error}") from error
    return bytes(content)


def _is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


class ImageSourcesDataModule(BytesDataModule):
    """Files, folders and http(s) addresses, to predict.

    Args:
        sources: Paths of images or folders, and addresses.
        batch_size: Images in a batch.
        num_workers: Threads that read images; 0 = the main one.
        input_size: Height and width in pixels of what the model sees.
        resize_size: Length in pixels of the shorter side before the centre crop. None = that of the crop, so that
            images of ``input_size`` are used as they are.
        interpolation: How images are resized: nearest, bilinear, bicubic, box, hamming or lanczos.
        exif_orientation: Whether images are turned as their EXIF orientation asks.

    Example:
        >>> data = ImageSourcesDataModule(["no_such_file.jpg"], num_workers=0)
        >>> next(iter(data.predict_dataloader()))["failed"]
        [('no_such_file.jpg', 'No such file or directory')]
    """

    def __init__(
        self,
        sources: Sequence[str],
        batch_size: int = 16,
        num_workers: int = 0,
        input_size: int = 224,
        resize_size: int | None = 256,
        interpolation: str = "bilinear",
        exif_orientation: bool = False,
    ) -> None:
        super().__init__()
        preprocess = Preprocess(resize_size, input_size, interpolation)
        left_out = LeftOut()
        self.sources = expand_sources(sources, left_out)
        self.reader = SampleReader(preprocess, exif_orientation=exif_orientation)
        if notes := left_out.notes():
            logger.warning("%s.", "; ".join(notes))
        self.batch_size = batch_size
        self.num_workers = num_workers

    def predict_dataloader(self) -> ThreadedLoader[Sample | Failure, Batch]:
        pin = torch.cuda.is_available()
        return ThreadedLoader(self.read, range(len(self.sources)), self.batch_size, self.num_workers, collate, pin)

    def read(self, index: int) -> Sample | Failure:
        """The source of a number as a sample, or why there is none."""
        source = self.sources[index]
        try:
            return self.reader.read(download(source) if _is_address(source) else source, source, -1, index)
        except DecodingError as error:
            return failed(source, str(error))
        except Exception as error:
            return failed(source, f"cannot be read: {type(error).__name__}: {error}")
