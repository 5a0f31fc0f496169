"""Files that are often given as weights and are none: what each is, and what to do with it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar")
"""How files of weights usually end."""

_BY_FIRST_BYTES = (
    (rb"\x89HDF\r\n", "an HDF5 file, as Keras and TensorFlow write it (.h5); PyTorch has no use for it"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"GGUF", "a GGUF file, which holds quantized weights of language models"),
    (rb"....TFL3", "a TensorFlow Lite model; PyTorch has no use for it"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "a compressed file; unpack it"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", "a picture"),
    (rb"version https://git-lfs", "a pointer of Git LFS in place of the file; fetch it by git lfs pull"),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "a web page; the download gave an error or asked for a login"),
)
_BY_SUFFIX = {
    ".onnx": "an ONNX model; PyTorch does not load it, so take the state dict that it was exported from",
    ".pb": "a TensorFlow graph; PyTorch has no use for it",
    ".keras": "a Keras model; PyTorch has no use for it",
}


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of the safetensors library: it is called so, or begins like one."""
    head = _head(path)
    size = int.from_bytes(head[:8], "little")
    return (head[8:9] == b"{" and size <= path.stat().st_size) or (
        path.suffix == ".safetensors" and bool(head) and not head.startswith(b"PK") and not _is_text(head)
    )


def what_else(path: Path) -> str | None:
    """What a file is in words, with what to do, if it can hold no weights for PyTorch; None = it may hold some.

    Args:
        path: Of something that exists.

    Example:
        >>> what_else(Path(__file__))
        'a text file'
    """
    if path.is_dir():
        return _what_folder(path)
    head = _head(path)
    if not head:
        return "an empty file (0 bytes)"
    if zipfile.is_zipfile(path):
        return _what_archive(path)
    for pattern, what in _BY_FIRST_BYTES:
        if re.match(pattern, head, re.DOTALL):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if path.suffix in _BY_SUFFIX or re.match(rb"\x08[\x01-\x14]\x12.[a-zA-Z]", head, re.DOTALL):
        return _BY_SUFFIX.get(path.suffix, _BY_SUFFIX[".onnx"])
    if _is_text(head):
        index = b'"weight_map"' in head
        return "the index of weights that lie in several files; save them as one" if index else "a text file"
    return None


def _what_folder(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir())
    if "saved_model.pb" in names:
        return "a folder of TensorFlow's (SavedModel); PyTorch has no use for it"
    inside = [name for name in names if name.endswith(SUFFIXES)]
    return "a folder; name the file itself" + (f", such as {path / inside[0]}" if inside else "")


def _what_archive(path: Path) -> str | None:
    """As :func:`what_else`, of a zip archive, which files of PyTorch's are as well."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive raises whatever its bytes provoke
        return None
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner):
        return (
            "a TorchScript archive, which holds code; save its weights alone: "
            f"torch.save(torch.jit.load('{path.name}').state_dict(), 'new.pth')"
        )
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return (
            "an exported program (torch.export); save its weights alone: "
            f"torch.save(torch.export.load('{path.name}').state_dict, 'new.pth')"
        )
    if "data.pkl" in inner:
        return None
    if "model.weights.h5" in names:
        return _BY_SUFFIX[".keras"]
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    return f"a zip archive; unpack it (it holds {', '.join(names[:3])}{', ...' * (len(names) > 3)})"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", errors="replace").rstrip("\N{REPLACEMENT CHARACTER}")  # a character cut in two
    return bool(text) and all(c.isprintable() or c.isspace() for c in text) and "\N{REPLACEMENT CHARACTER}" not in text
