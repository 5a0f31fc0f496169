"""Which files are images: by their names or, where these do not say it, by how they begin."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from mimetypes import MimeTypes
from typing import BinaryIO

from PIL import Image

# Pillow warns of broken EXIF, transparent palettes and large images. Once for all: a filter that comes and goes is
# not safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

_PLUGINS: dict[str, Callable[[], object]] = {
    "pillow_heif": lambda: import_module("pillow_heif").register_heif_opener(),
    "pillow_jxl": lambda: import_module("pillow_jxl"),
}
"""Packages by which Pillow opens further formats."""

_NO_PIXELS = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF", "PDF", "PALM"))
"""Formats that Pillow only recognizes, draws by a program that it starts, or only writes."""

_WITHOUT_BEGINNING = frozenset(("IM", "IMT", "IPTC", "PCD", "SPIDER", "TGA"))
"""Formats that would take nearly any file, so that only a name tells them."""

_RAW_EXTENSIONS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf"),
    *(".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)

_REMEDIES: dict[tuple[str, ...], str] = {
    (".heic", ".heics", ".heif", ".heifs", ".hif"): "HEIF cannot be read here: pip install pillow-heif",
    (".jxl",): "JPEG XL cannot be read here: pip install pillow-jxl-plugin",
    (".avif", ".avifs"): "AVIF cannot be read by this Pillow: pip install --upgrade pillow",
    (".jxr", ".wdp", ".hdp"): "JPEG XR cannot be read; save it as TIFF or PNG",
    _RAW_EXTENSIONS: "a camera's raw file, of which only the preview could be read; develop it and save it as TIFF or "
    "PNG",
    (".svg", ".svgz", ".eps", ".ps", ".ai", ".wmf", ".emf"): "a drawing without pixels; save it as PNG",
    (".exr", ".hdr"): "radiance without a known range; map its tones and save it as TIFF or PNG",
    (".xcf",): "GIMP's own format; export it as PNG",
    (".dcm",): "DICOM cannot be read; save the image as TIFF or PNG of 8 or 16 bits",
}

UNREADABLE = {extension: text for extensions, text in _REMEDIES.items() for extension in extensions}
"""Extensions of images -> what to do about them where Pillow cannot open them."""

_BEGINNINGS: tuple[tuple[int, bytes, str], ...] = (
    *((4, b"ftyp" + brand, ".heic") for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")),
    (0, b"\xff\x0a", ".jxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", ".jxl"),
    (0, b"II\xbc\x01", ".jxr"),
    (0, b"gimp xcf ", ".xcf"),
    (0, b"v/1\x01", ".exr"),
    (0, b"#?RADIANCE", ".hdr"),
)
"""(position, bytes, extension): how images begin that Pillow may not open."""

LONGEST_BEGINNING = 32
"""So many of a file's first bytes say what it is."""

_MIME_TYPES = MimeTypes()
"""Python's own table: that of the system differs from one machine to the next."""


@functools.cache
def openable() -> frozenset[str]:
    """Extensions of the images that can be read, in lower case, with their dots: those of Pillow and its plugins."""
    for name, register in _PLUGINS.items():
        if find_spec(name):
            register()
    found = Image.registered_extensions()  # which loads all that Pillow has
    return frozenset({extension for extension, name in found.items() if name not in _NO_PIXELS} - {*_RAW_EXTENSIONS})


@functools.cache
def image_extensions() -> frozenset[str]:
    """Extensions of all that is an image by its name, whether it can be read or not."""
    return openable() | UNREADABLE.keys()


def extension_of(name: str | bytes) -> str:
    """The extension of a file's name, in lower case, with its dot; "" = it has none."""
    return os.path.splitext(name if type(name) is str else os.fsdecode(name))[1].lower()


@functools.cache
def is_something_else(extension: str) -> bool:
    """Whether an extension is that of no image: of text, tables, archives, films.

    Example:
        >>> [is_something_else(extension) for extension in (".csv", ".jpg", ".jpg_large", "")]
        [True, False, False, False]
    """
    kind, packed = _MIME_TYPES.guess_type(f"x{extension}")
    return packed is not None or (kind is not None and not kind.startswith("image/"))


def begins_as_image(path: str | bytes | os.PathLike[str]) -> bool:
    """Whether a file begins as an image does, whatever it is called; False too if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return bool(extension_by_content(file))
    except OSError:
        return False


def extension_by_content(file: BinaryIO) -> str:
    """The extension that an image should have by its header; "" = it is none that is known.

    Its first letters alone may begin a text too.

    Example:
        >>> import io
        >>> extension_by_content(io.BytesIO(b"gimp xcf v011"))
        '.xcf'
    """
    openable()
    if known := _known_beginning(file.read(LONGEST_BEGINNING)):
        return known
    file.seek(0)
    try:
        with Image.open(file) as image:
            found = "JPEG" if image.format == "MPO" else image.format
    except Exception:  # Pillow's plugins raise nearly anything
        return ""
    if found in _NO_PIXELS | _WITHOUT_BEGINNING:
        return ""
    return next((extension for extension, name in Image.registered_extensions().items() if name == found), "")


def is_raw(name: str | bytes) -> bool:
    """Whether a file is a camera's raw one by its name; by its content it may be a TIFF, of the preview alone."""
    return extension_of(name) in _RAW_EXTENSIONS


def remedy(name: str | bytes, head: bytes = b"") -> str | None:
    """What to do about an image that cannot be read as it is; None = nothing is known of it.

    Args:
        name: Of the file, of which the extension counts.
        head: Its first bytes, which count more.

    Example:
        >>> remedy("cat.SVG")
        'a drawing without pixels; save it as PNG'
    """
    extension = _known_beginning(head) or extension_of(name)
    return None if extension in openable() else UNREADABLE.get(extension)


def _known_beginning(head: bytes) -> str:
    """The extension that a file of these first bytes should have; "" = not known by them."""
    return next((kind for place, begin, kind in _BEGINNINGS if head[place:].startswith(begin)), "")
