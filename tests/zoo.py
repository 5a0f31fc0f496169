"""A folder of everything that image files do, good and bad."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.images.decode import Decoded, read_image

VANISHING = "vanishes.jpg"
"""The file that tests delete after the folder was listed."""
CRASHING = "crashes.jpg"
"""The file whose decoding kills the process, if :func:`read_or_crash` is put in the decoder's place."""


def read_or_crash(source: Any, *options: Any) -> Decoded:
    if os.path.basename(source) == CRASHING:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_image(source, *options)


def make_zoo(folder: Path) -> dict[str, str | None]:
    """Writes the files; returns for each name, as rows hold it, what its error says, None = it is a usable image."""
    folder.mkdir(parents=True)
    return _good(folder) | _bad(folder)


def _good(folder: Path) -> dict[str, str | None]:
    image = _noise("RGB")
    # Figures are drawn of the first in order; $x^$ would be a formula, and a wrong one.
    for name in (
        "plain.jpg",
        " with spaces .jpg",
        "$x^$.jpg",
        "quotes'\".jpg",
        "new\nline.jpg",
        "semi;colon,and %41 {a,b}.JPG",
    ):
        image.save(folder / name, format="JPEG")
    image.save(folder / "raw.jpg")
    os.rename(folder / "raw.jpg", os.fsencode(folder) + b"/bytes \xff\xfe.jpg")
    image.save(folder / "a png.JPEG", format="PNG")
    image.save(folder / "broken exif.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffbroken")
    _noise("CMYK").save(folder / "cmyk.jpg")
    (folder / "ycck.jpg").write_bytes(_ycck((folder / "cmyk.jpg").read_bytes()))
    Image.fromarray(np.arange(2500, dtype=np.uint16).reshape(50, 50) * 26).save(folder / "16 bit.png")
    frames = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    for name in ("animated.gif", "animated.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), "green").save(folder / "1 by 1.png")
    return dict.fromkeys(
        "bytes \\xff\\xfe.jpg" if b"\xff" in name else os.fsdecode(name) for name in os.listdir(os.fsencode(folder))
    )


def _bad(folder: Path) -> dict[str, str | None]:
    whole = (folder / "plain.jpg").read_bytes()
    contents = {
        "empty.jpg": (b"", "the file is empty"),
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "text.jpg": (b"<html>404</html>", "not an image in a known format"),
        "bomb.png": (_png_header(12000, 10000), "12000 × 10000 pixels are more than 100,000,000"),
        "larger bomb.png": (
            _png_header(60000, 60000),
            "more than 178,956,970 pixels; save it",
        ),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "floating point.tif")
    Image.new("RGB", (20000, 1), "green").save(folder / "strip.png")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    for name in (VANISHING, CRASHING):
        _noise("RGB").save(folder / name)
    expected = {name: message for name, (_, message) in contents.items()} | {
        "floating point.tif": "floating-point pixels have no known range",
        "strip.png": "more than 100,000,000; crop the image",
        "dangling.jpg": "No such file",
        "folder.jpg": "Is a directory",
        "pipe.jpg": "a pipe, socket or device, not a file",
        VANISHING: "No such file",
        CRASHING: r"whoever reads it is ended by signal 9 \(SIGKILL\)",
    }
    if os.geteuid() != 0:  # root may read everything
        _noise("RGB").save(folder / "secret.jpg")
        (folder / "secret.jpg").chmod(0)
        expected["secret.jpg"] = "Permission denied"
    return {**expected}


def _noise(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    return Image.fromarray(pixels if mode == "CMYK" else pixels[..., :3]).convert(mode)


def _ycck(jpeg: bytes) -> bytes:
    """A CMYK JPEG declared as YCCK: the transform of its Adobe marker set to 2."""
    place = jpeg.index(b"Adobe") + 11
    assert jpeg[place] == 0
    return jpeg[:place] + b"\2" + jpeg[place + 1 :]


def _png_header(width: int, height: int) -> bytes:
    """A PNG file that ends where its pixels begin."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
