"""Images as text that an HTML page can hold."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lightning_modules.figures.saving import DESCRIPTION, TITLE

MOST_PIXELS = 1600
"""Width or height at which a wider or higher image is shown."""

SMALL = 60_000
"""Bytes up to which a file is embedded as it is. Others are compressed: the noise of maps makes PNGs large."""

QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """An image of a page.

    Attributes:
        source: A data URI.
        width: In pixels.
        height: In pixels.
        title: What it shows.
        text: More about it, or nothing.
    """

    source: str
    width: int
    height: int
    title: str
    text: str = ""

    @property
    def alt(self) -> str:
        """What is read to those who do not see it."""
        return f"{self.title}: {self.text}" if self.text else self.title


class Album:
    """Embeds images up to a number of bytes, and keeps what is wrong with those that cannot be read.

    Args:
        most_bytes: Of all images together; none is embedded that would exceed it.

    Attributes:
        unread: A sentence for each file that is no image.
    """

    def __init__(self, most_bytes: int) -> None:
        self.bytes_left = most_bytes
        self.unread: list[str] = []

    def embed(
        self, paths: Sequence[Path], most: int, caption: Callable[[Path], tuple[str, str]] | None = None
    ) -> list[Picture]:
        """The first of the files, as many as there is room for.

        Args:
            paths: Image files.
            most: How many at the most.
            caption: Gives a file's title and text; None = those in the figure's file.
        """
        pictures: list[Picture] = []
        for path in paths:
            if len(pictures) == most:
                break
            try:
                picture = embedded(path, *(caption(path) if caption else ()))
            except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of broken files
                self.unread.append(f"{path.name} cannot be read: {error}.")
                continue
            if len(picture.source) > self.bytes_left:
                break
            self.bytes_left -= len(picture.source)
            pictures.append(picture)
        return pictures


def embedded(path: Path, title: str = "", text: str = "") -> Picture:
    """An image file as a data URI, made smaller where it is large.

    Args:
        path: The file.
        title: What it shows; by default that in the figure's file, or the name of the file in words.
        text: More about it.
    """
    with Image.open(path) as image:
        size, kind = image.size, Image.MIME[image.format or "PNG"]
        texts = {name: str(value) for name, value in image.info.items() if name in (TITLE, DESCRIPTION)}
        data = path.read_bytes()
        if len(data) > SMALL or max(size) > MOST_PIXELS:
            smaller = image.convert("RGB")
            smaller.thumbnail((MOST_PIXELS, MOST_PIXELS))
            with io.BytesIO() as file:
                smaller.save(file, "WEBP", quality=QUALITY)
                data, kind, size = file.getvalue(), "image/webp", smaller.size
        else:
            image.load()  # a file that breaks off should not be shown
    title = title or texts.get(TITLE) or in_words(path)
    text = text or texts.get(DESCRIPTION, "")
    return Picture(f"data:{kind};base64,{base64.b64encode(data).decode()}", *size, title, text)


def in_words(path: Path) -> str:
    """A figure's file name in words.

    Example:
        >>> in_words(Path("accuracy_over_eps.png")), in_words(Path("00012_star_star_3.png"))
        ('accuracy over eps', 'star star 3')
    """
    return re.sub(r"^\d{5}_", "", path.stem).replace("_", " ")
