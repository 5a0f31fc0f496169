"""Files that say of which class each image is: tables of paths and classes, Kaggle's, ILSVRC's list of numbers."""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError, composed
from datamodules.errors import DataError, some
from datamodules.images.formats import extension_of, image_extensions
from datamodules.label_tables import read_text, table_of

_WNID = re.compile("n[0-9]{8}")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for garbage, of which there is none: over millions of cells it takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class LabelFile:
    """What a file says of the classes of images.

    It is one of:

    - a table, divided by commas, tabs, semicolons, bars or spaces, of paths and classes. A path is relative to the
      folder of images, or longer or shorter at its front, with or without the extension. A class is a name, a WordNet
      id or an index, see :class:`~datamodules.classes.ClassTable`. Without a line of headings the path stands first;
    - Kaggle's ``LOC_val_solution.csv``, whose ``PredictionString`` holds WordNet ids and boxes;
    - ILSVRC's ``ILSVRC2012_validation_ground_truth.txt``: in line k the number of the class of
      ``ILSVRC2012_val_k``, counted from 1 in the order of the synsets in ILSVRC's own ``meta.mat``, which is not that
      of a network's classes.

    Args:
        path: The file.
        synsets: For a list of numbers: ILSVRC's ``meta.mat``, or a text file with a WordNet id at the start of each
            line, the k-th of which is number k.

    Attributes:
        classes: Path of an image, as the file writes it -> its class, as the file writes it.

    Raises:
        DataError: If the file cannot be read or understood, says two things of an image, or ``synsets`` is missing, or
            of no use.
    """

    @_uncollected()
    def __init__(self, path: Path, synsets: Path | None = None) -> None:
        self.path = path
        self._heading = ""
        self._doubts: list[str] = []
        text = read_text(path, "data.labels")
        lines = text.splitlines()
        if not any(line.strip() for line in lines):
            raise DataError(f"The label file {path} (data.labels) is empty.")
        if all(re.fullmatch("[0-9]+", line.strip()) for line in lines if line.strip()):
            entries = self._numbered(lines, synsets)
        elif synsets is not None:
            raise DataError(
                f"data.synsets is for a list of numbers such as ILSVRC2012_validation_ground_truth.txt; {path} "
                "(data.labels) names its classes itself."
            )
        else:
            table, self._heading = table_of(text, path)
            entries = [(image, self._class_of(image, label)) for image, label in table]
        self.classes: dict[str, str] = dict(entries)
        said: dict[str, str] = {}
        twice = {same for image, text in entries if said.setdefault(same := _alike(image), text) != text}
        if twice:
            self._refuse_contradictions([(image, text) for image, text in entries if _alike(image) in twice])

    def _refuse_contradictions(self, entries: Sequence[tuple[str, str]]) -> None:
        said: dict[tuple[str, str], str] = {}
        for image, text in entries:
            if (other := said.setdefault(_key(image), text)) != text:
                raise DataError(f"{self.path} (data.labels) says both {other!r} and {text!r} of {image}.")

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        """Entries by their paths without extension; not made where each image has an entry that is its path."""
        found: dict[str, list[str]] = {}
        for image in self.classes:
            found.setdefault(_key(image)[0], []).append(image)
        return found

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Entries by the ends of these, but for the whole; not made where no entry's path is longer than an image's."""
        found: dict[str, list[str]] = {}
        for key, images in self._by_key.items():
            for end in _ends(key)[1:]:
                found.setdefault(end, []).extend(images)
        return found

    @_uncollected()
    def of(self, paths: Iterable[str]) -> tuple[list[str | None], list[str]]:
        """What the file says of images.

        Args:
            paths: Of all images, relative to their folder.

        Returns:
            Of each image its class as the file writes it, None = it does not say; and, in sentences, of how many it
            does not, and how many images of the file are not there.

        Raises:
            DataError: If it says nothing of any of the images, or an entry may be meant for several of them.
        """
        paths = list(paths)
        found = [self._entry_of(path) for path in paths]
        used = Counter(entry for entry in found if entry is not None)
        if not used:
            raise DataError(
                f"{self.path} (data.labels) names none of the {len(paths):,} images. It names {some(self.classes)}; "
                f"the images are {some(paths)}."
            )
        if several := [entry for entry, n in used.items() if n > 1]:
            both = [path for path, entry in zip(paths, found) if entry == several[0]]
            raise DataError(
                f"{len(several)} entries of {self.path} (data.labels) may be meant for several images: {several[0]} "
                f"for {some(both)}. Write their paths as they are below the folder of images."
            )
        notes = list(self._doubts)
        if absent := [entry for entry in self.classes if entry not in used]:
            notes.append(f"{self.path} names {len(absent):,} images that are not there: {some(absent)}")
        if unsaid := [path for path, entry in zip(paths, found) if entry is None]:
            notes.append(f"{self.path} says nothing of {len(unsaid):,} images: {some(unsaid)}")
        return [None if entry is None else self.classes[entry] for entry in found], notes

    def indices(self, texts: Sequence[str | None], table: ClassTable) -> np.ndarray:
        """The indices of the classes that :meth:`of` gave, long ``(N,)``; -1 = it gave none.

        Raises:
            DataError: If the file names classes that the network does not have, or are several of its classes.
        """
        known: dict[str | None, int] = {None: -1}
        wrong: dict[str, str] = {}
        for text in sorted({text for text in texts if text is not None}):
            try:
                known[text] = index_written(text, table)
            except AmbiguousClassError as error:
                raise DataError(f"{self.path} (data.labels): {error}") from error
            except UnknownClassError as error:
                wrong[text] = f"Did you mean one of: {', '.join(error.near)}?"
        if wrong:
            first = next(iter(wrong))
            advice = "Indices count from 0." if str(len(table)) in wrong else wrong[first]
            column = f", in its column {self._heading}," if self._heading else ""
            raise DataError(
                f"{self.path} (data.labels) names{column} {len(wrong)} classes that the network does not have: "
                f"{some([repr(text) for text in wrong])}. {advice}"
            )
        return np.array([known[text] for text in texts], np.int64)

    def _entry_of(self, path: str) -> str | None:
        """The entry that is meant for an image: of both paths one ends with the other, the longer such end first."""
        if exact := next((text for text in (path, path.strip()) if text in self.classes), None):
            return exact
        key, extension = _key(path)
        for entries in self._entries_for(key):
            fitting = [entry for entry in entries if _key(entry)[1] in ("", extension)]
            if len({self.classes[entry] for entry in fitting}) > 1:
                said = ", ".join(f"{entry} {self.classes[entry]!r}" for entry in fitting[:3])
                raise DataError(f"{self.path} (data.labels) says several things of {path}: {said}.")
            if fitting:
                return fitting[0]
        return None

    def _entries_for(self, key: str) -> Iterator[list[str]]:
        """The entries that may be meant for an image, those of the longest end first."""
        for end in _ends(key):
            yield self._by_key.get(end, [])
        yield self._by_end.get(key, [])

    def _class_of(self, image: str, text: str) -> str:
        """The class of a cell; Kaggle's are ``n03995372 85 1 499 272 n03995372 131 0 499 254``."""
        if self._heading != "predictionstring":
            return text
        wnids = set(text.split()[::5])
        if len(wnids) != 1:
            raise DataError(f"{self.path} (data.labels) has boxes of {len(wnids)} classes for {image}: {some(wnids)}.")
        return wnids.pop()

    def _numbered(self, lines: Sequence[str], synsets: Path | None) -> list[tuple[str, str]]:
        """Pairs of path and WordNet id from a list of numbers."""
        if synsets is None:
            raise DataError(
                f"{self.path} (data.labels) numbers classes in an order of its own, which no network has. Name it by "
                "--data.synsets: meta.mat of ILSVRC's development kit, or a text file with a WordNet id a line."
            )
        wnids = _read_synsets(synsets)
        numbers = [int(line) for line in lines if line.strip()]
        if not 1 <= min(numbers) <= max(numbers) <= len(wnids):
            raise DataError(
                f"{self.path} (data.labels) has numbers from {min(numbers)} to {max(numbers)}; {synsets} "
                f"(data.synsets) has 1 to {len(wnids)}."
            )
        if len(wnids) > 1 and wnids == sorted(wnids):
            self._doubts.append(
                f"{synsets} has WordNet ids in the order of the alphabet, in which ILSVRC's own lists do not number "
                f"them: labels are wrong if {self.path} is one of those"
            )
        return [(f"ILSVRC2012_val_{k:08d}", wnids[number - 1]) for k, number in enumerate(numbers, start=1)]


def label_file(labels: str | None, synsets: str | None) -> LabelFile | None:
    """What the options of these names say; None = nothing.

    Raises:
        DataError: If the file cannot be used, or there are synsets alone.
    """
    if labels is None:
        if synsets is not None:
            raise DataError("data.synsets says in which order data.labels numbers the classes, which is not given.")
        return None
    return LabelFile(Path(labels).expanduser(), None if synsets is None else Path(synsets).expanduser())


def _read_synsets(path: Path) -> list[str]:
    """The WordNet ids of a file, in the order of its numbers."""
    if path.suffix == ".mat":
        try:
            table = loadmat(path, squeeze_me=True)["synsets"]
            numbered = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
        except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise DataError(f"{path} (data.synsets) is no meta.mat of ILSVRC's development kit: {error}") from error
        return [numbered[k] for k in range(1, len(numbered) + 1) if k in numbered and k <= 1000]
    wnids = [line.split()[0] for line in read_text(path, "data.synsets").splitlines() if line.strip()]
    if not wnids or not all(_WNID.fullmatch(wnid) for wnid in wnids):
        raise DataError(f"{path} (data.synsets) should have a WordNet id such as n02119789 at the start of each line.")
    if twice := [wnid for wnid, n in Counter(wnids).items() if n > 1]:
        raise DataError(f"{path} (data.synsets) has {len(twice)} WordNet ids in several lines: {some(twice)}.")
    return wnids


def index_written(text: str, table: ClassTable) -> int:
    """The class of a text in a file; ``281.0``, if it is no name, is 281, which pandas writes so where others miss.

    Raises:
        UnknownClassError: If there is no such class.
        AmbiguousClassError: If there are several.
    """
    try:
        return table.index(text)
    except UnknownClassError:
        if whole := re.fullmatch(r"([0-9]+)\.0+", text):
            return table.index(int(whole[1]))
        raise


def label_written(what: str, text: str, table: ClassTable) -> int:
    """The class of a text that lies with an image; -1 = it is empty.

    Args:
        what: What the text is, for the message.
        text: What it says.
        table: The network's classes.

    Raises:
        ValueError: If there is no such class, or several.
    """
    if not text:
        return -1
    try:
        return index_written(text, table)
    except UnknownClassError as error:
        raise ValueError(f"{what} is {text!r}, which is no class of the network") from error
    except AmbiguousClassError as error:
        raise ValueError(f"{what}: {error}") from error


def _as_here(path: str) -> str:
    """A path as this system writes it: others have backslashes, or é as two letters."""
    return composed(path).strip().replace("\\", "/").removeprefix("./")


def _alike(path: str) -> str:
    """What paths have in common that have the same :func:`_key`, and some others; soon told of a million."""
    return _as_here(path).lower()


def _key(path: str) -> tuple[str, str]:
    """A path without the extension that an image has, and that extension; the same however systems write it."""
    path = _as_here(path)
    extension = extension_of(path)
    is_image = extension in image_extensions()
    return (path[: -len(extension)], extension) if is_image else (path, "")


def _ends(key: str) -> list[str]:
    """A path and its ends, the longest first: a/b/c, b/c, c."""
    parts = key.strip("/").split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]
