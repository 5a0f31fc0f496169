"""Files that say of which class each image is: tables of paths and classes, Kaggle's, ILSVRC's list of numbers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError
from datamodules.errors import DataError
from datamodules.reading.formats import extension_of, image_extensions

_PATH_COLUMNS = (
    *("path", "file_path", "filepath", "relative_path", "file", "filename", "file_name", "image", "image_path"),
    *("image_id", "imageid", "image_name", "img", "id", "stem", "name"),
)
_CLASS_COLUMNS = (
    *("wnid", "wordnet_id", "synset", "synset_id", "predictionstring", "class", "class_name", "classname", "label"),
    *("label_name", "category", "target", "class_index", "class_id", "class_idx", "label_index", "label_id", "index"),
    "category_id",
)
"""What columns are called in files that people have; of several, the first of this list counts."""

_WNID = re.compile("n[0-9]{8}")


class LabelFile:
    """What a file says of the classes of images.

    It is one of:

    - a table, divided by commas, tabs, semicolons or spaces, of paths and classes. A path is relative to the folder of
      images, or longer or shorter at its front, with or without the extension. A class is a name, a WordNet id or an
      index, see :class:`~datamodules.classes.ClassTable`. Without a line of headings the path stands first;
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

    def __init__(self, path: Path, synsets: Path | None = None) -> None:
        self.path = path
        lines = _read(path, "data.labels").splitlines()
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
            entries = self._table(lines)
        self.classes: dict[str, str] = {}
        for image, text in entries:
            if self.classes.setdefault(image, text) != text:
                raise DataError(f"{path} (data.labels) says both {self.classes[image]!r} and {text!r} of {image}.")
        self._by_key: dict[str, list[str]] = {}
        self._by_end: dict[str, list[str]] = {}
        for image in self.classes:
            key, _ = _key(image)
            self._by_key.setdefault(key, []).append(image)
            for end in _ends(key)[1:]:
                self._by_end.setdefault(end, []).append(image)

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
                f"{self.path} (data.labels) names none of the {len(paths):,} images. It names {_some(self.classes)}; "
                f"the images are {_some(paths)}."
            )
        if several := [entry for entry, n in used.items() if n > 1]:
            both = [path for path, entry in zip(paths, found) if entry == several[0]]
            raise DataError(
                f"{len(several)} entries of {self.path} (data.labels) may be meant for several images: {several[0]} "
                f"for {_some(both)}. Write their paths as they are below the folder of images."
            )
        notes = []
        if absent := [entry for entry in self.classes if entry not in used]:
            notes.append(f"{self.path} names {len(absent):,} images that are not there: {_some(absent)}")
        if unsaid := [path for path, entry in zip(paths, found) if entry is None]:
            notes.append(f"{self.path} says nothing of {len(unsaid):,} images: {_some(unsaid)}")
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
                known[text] = table.index(text)
            except AmbiguousClassError as error:
                raise DataError(f"{self.path} (data.labels): {error}") from error
            except UnknownClassError as error:
                wrong[text] = f"Did you mean one of: {', '.join(error.near)}?"
        if wrong:
            first = next(iter(wrong))
            advice = "Indices count from 0." if str(len(table)) in wrong else wrong[first]
            raise DataError(
                f"{self.path} (data.labels) names {len(wrong)} classes that the network does not have: "
                f"{_some([repr(text) for text in wrong])}. {advice}"
            )
        return np.array([known[text] for text in texts], np.int64)

    def _entry_of(self, path: str) -> str | None:
        """The entry that is meant for an image: of both paths one ends with the other, the longer such end first."""
        if path in self.classes:
            return path
        key, extension = _key(path)
        for entries in (*(self._by_key.get(end, []) for end in _ends(key)), self._by_end.get(key, [])):
            fitting = [entry for entry in entries if _key(entry)[1] in ("", extension)]
            if len({self.classes[entry] for entry in fitting}) > 1:
                said = ", ".join(f"{entry} {self.classes[entry]!r}" for entry in fitting[:3])
                raise DataError(f"{self.path} (data.labels) says several things of {path}: {said}.")
            if fitting:
                return fitting[0]
        return None

    def _table(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        """Pairs of path and class from a table."""
        rows = [row for row in _split(lines) if any(cell.strip() for cell in row)]
        heads = [cell.strip().lower().replace(" ", "_") for cell in rows[0]]
        of_path = next((heads.index(name) for name in _PATH_COLUMNS if name in heads), None)
        of_class = next((heads.index(name) for name in _CLASS_COLUMNS if name in heads), None)
        if of_path is not None and of_class is not None and of_path != of_class:
            rows = rows[1:]
        elif len(rows[0]) == 2:
            of_path, of_class = 0, 1
        else:
            raise DataError(
                f"{self.path} (data.labels) should be a table with the columns path and class, or of two columns "
                f"without headings; its first line is {', '.join(rows[0])[:200]!r}."
            )
        found = []
        for row in rows:
            if len(row) != len(heads) or not row[of_path].strip() or not row[of_class].strip():
                raise DataError(
                    f"{self.path} (data.labels): the line {', '.join(row)!r} should have {len(heads)} cells, with a "
                    "path and a class. A name with a comma needs quotes round it."
                )
            image, text = row[of_path].strip().replace("\\", "/").removeprefix("./"), row[of_class].strip()
            if heads[of_class] == "predictionstring":
                text = self._of_kaggle(image, text)
            found.append((image, text))
        return found

    def _of_kaggle(self, image: str, text: str) -> str:
        """The class of ``n03995372 85 1 499 272 n03995372 131 0 499 254``."""
        wnids = set(text.split()[::5])
        if len(wnids) != 1:
            raise DataError(f"{self.path} (data.labels) has boxes of {len(wnids)} classes for {image}: {_some(wnids)}.")
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
    wnids = [line.split()[0] for line in _read(path, "data.synsets").splitlines() if line.strip()]
    if not wnids or not all(_WNID.fullmatch(wnid) for wnid in wnids):
        raise DataError(f"{path} (data.synsets) should have a WordNet id such as n02119789 at the start of each line.")
    return wnids


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} ({option}) is no text in UTF-8: {error.reason}.") from error
    except OSError as error:
        raise DataError(f"{path} ({option}) cannot be read: {error.strerror}.") from error


def _split(lines: Sequence[str]) -> list[list[str]]:
    """The cells of a table's lines, by what divides the first of them."""
    first = next(line for line in lines if line.strip())
    delimiter = next((character for character in "\t,;" if character in first), None)
    if delimiter is None:  # the path may hold spaces itself
        return [line.strip().rsplit(maxsplit=1) for line in lines]
    return list(csv.reader(lines, delimiter=delimiter))


def _key(path: str) -> tuple[str, str]:
    """A path without the extension that an image has, and that extension."""
    extension = extension_of(path)
    is_image = extension in image_extensions()
    return (path[: -len(extension)], extension) if is_image else (path, "")


def _ends(key: str) -> list[str]:
    """A path and its ends, the longest first: a/b/c, b/c, c."""
    parts = key.strip("/").split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)
