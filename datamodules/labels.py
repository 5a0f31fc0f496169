"""Files that say of which class each image is: tables of paths and classes, Kaggle's, ILSVRC's list of numbers."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.io import loadmat

from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError
from datamodules.errors import DataError, some
from datamodules.label_tables import HEAD, image_extension, opened_text, read_table


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
        entries: Paths of the images that it names, each once, as all systems write them.
        classes: Their classes, as the file writes them.

    Raises:
        DataError: If the file cannot be read or understood, says two things of an image, or ``synsets`` is missing, or
            of no use.
    """

    def __init__(self, path: Path, synsets: Path | None = None) -> None:
        self.path = path
        self._heading = ""
        self._notes: list[str] = []
        with opened_text(path, "data.labels") as lines:
            head = [line for line in itertools.islice(lines, HEAD) if line.strip()]
            if not head:
                raise DataError(f"The label file {path} (data.labels) is empty.")
            if all(line.strip().isdecimal() for line in head):
                table = self._read_numbers(itertools.chain(head, lines), synsets)
            elif synsets is not None:
                raise DataError(
                    f"data.synsets is for a list of numbers such as ILSVRC2012_validation_ground_truth.txt; {path} "
                    "(data.labels) names its classes itself."
                )
            else:
                table, self._heading = read_table(path, head, lines)
        keys, _ = _keys(table["image"].combine_chunks())
        classes, first = table["class"].combine_chunks(), pc.index_in(keys, keys)
        if (twice := _contradiction(first, classes)) is not None:
            one, other = (classes[k].as_py() for k in twice)
            raise DataError(f"{path} (data.labels) says both {one!r} and {other!r} of {table['image'][twice[1]]}.")
        is_first = pc.equal(first, np.arange(len(keys)))
        self.entries, self.classes = keys.filter(is_first), classes.filter(is_first)

    def match(self, names: pa.Array) -> tuple[pa.Array, list[str]]:
        """What the file says of images.

        Args:
            names: Of all images, strings, relative to their folder.

        Returns:
            Of each image its class as the file writes it, null = it does not say; and, in sentences, of how many it
            does not, and how many images of the file are not there.

        Raises:
            DataError: If it says nothing of any of the images, or an entry may be meant for several of them.
        """
        found = self._matched(names)
        used = np.bincount(found.drop_null().to_numpy(), minlength=len(self.entries))
        if not used.any():
            raise DataError(
                f"{self.path} (data.labels) names none of the {len(names):,} images. It names {_some(self.entries)}; "
                f"the images are {_some(names)}."
            )
        if (used > 1).any():
            entry = int((used > 1).argmax())
            both = _some(names.filter(pc.equal(found, entry)))
            raise DataError(
                f"{(used > 1).sum()} entries of {self.path} (data.labels) may be meant for several images: "
                f"{self.entries[entry]} for {both}. Write their paths as they are below the folder of images."
            )
        notes = [*self._notes]
        if n_absent := int((used == 0).sum()):
            absent = _some(self.entries.filter(pa.array(used == 0)))
            notes.append(f"{self.path} names {n_absent:,} images that are not there: {absent}")
        if found.null_count:
            unsaid = _some(names.filter(found.is_null()))
            notes.append(f"{self.path} says nothing of {found.null_count:,} images: {unsaid}")
        return self.classes.take(found), notes

    def _matched(self, names: pa.Array) -> pa.Array:
        """The number of the entry for each image; of both paths one ends with the other, the longer such end first."""
        wholes, stems = _keys(names)
        found = pa.nulls(len(names), pa.int32())
        for n in sorted(_depths(self.entries), reverse=True):
            for keys in (wholes, stems):
                if found.null_count:
                    found = pc.coalesce(found, pc.index_in(_last(keys, n), self.entries))
        for n in _depths(wholes) if found.null_count else []:
            ends = _last(self.entries, n)
            more = pc.coalesce(pc.index_in(wholes, ends), pc.index_in(stems, ends))
            taken = pc.is_in(ends, ends.take(more.filter(found.is_null()).drop_null()))
            entries, classes, known = (each.filter(taken) for each in (self.entries, self.classes, ends))
            if (several := _contradiction(pc.index_in(known, known), classes)) is not None:
                said = ", ".join(f"{entries[k]} {classes[k].as_py()!r}" for k in several)
                raise DataError(f"{self.path} (data.labels) says several things of {known[several[0]]}: {said}.")
            found = pc.coalesce(found, more)
        return found

    def indices(self, texts: Iterable[str], table: ClassTable) -> dict[str, int]:
        """The index of each class as the file writes it.

        Raises:
            DataError: If the file names classes that the network does not have, or are several of its classes.
        """
        known: dict[str, int] = {}
        wrong: dict[str, UnknownClassError] = {}
        for text in texts:
            try:
                known[text] = index_written(text, table)
            except AmbiguousClassError as error:
                raise DataError(f"{self.path} (data.labels): {error}") from error
            except UnknownClassError as error:
                wrong[text] = error
        if wrong:
            near = f"Did you mean one of: {', '.join(wrong[min(wrong)].near)}?"
            advice = "Indices count from 0." if str(len(table)) in wrong else near
            column = f", in its column {self._heading}," if self._heading else ""
            raise DataError(
                f"{self.path} (data.labels) names{column} {len(wrong)} classes that the network does not have: "
                f"{some(map(repr, sorted(wrong)))}. {advice}"
            )
        return known

    def _read_numbers(self, lines: Iterable[str], synsets: Path | None) -> pa.Table:
        """Paths and WordNet ids of a list of numbers."""
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
            self._notes.append(
                f"{synsets} has WordNet ids in the order of the alphabet, in which ILSVRC's own lists do not number "
                f"them: labels are wrong if {self.path} is one of those"
            )
        images = [f"ILSVRC2012_val_{k:08d}" for k in range(1, len(numbers) + 1)]
        return pa.table({"image": images, "class": [wnids[number - 1] for number in numbers]})


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


def _read_synsets(path: Path) -> list[str]:
    """The WordNet ids of a file, in the order of its numbers."""
    if path.suffix == ".mat":
        try:
            table = loadmat(path, squeeze_me=True)["synsets"]
            numbered = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
        except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise DataError(f"{path} (data.synsets) is no meta.mat of ILSVRC's development kit: {error}") from error
        return [numbered[k] for k in range(1, len(numbered) + 1) if k in numbered and k <= 1000]
    with opened_text(path, "data.synsets") as lines:
        wnids = [line.split()[0] for line in lines if line.strip()]
    if not wnids or not all(re.fullmatch("n[0-9]{8}", wnid) for wnid in wnids):
        raise DataError(f"{path} (data.synsets) should have a WordNet id such as n02119789 at the start of each line.")
    if twice := [wnid for wnid, n in Counter(wnids).items() if n > 1]:
        raise DataError(f"{path} (data.synsets) has {len(twice)} WordNet ids in several lines: {some(twice)}.")
    return wnids


def _keys(paths: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Paths as all systems write them, which have backslashes, or é as two letters; and without their extensions."""
    paths = pc.utf8_trim_whitespace(pc.utf8_normalize(paths.cast(pa.large_string()), "NFC"))
    paths = pc.replace_substring_regex(pc.replace_substring(paths, "\\", "/"), r"^(\./|/)+", "")
    stems = pc.replace_substring_regex(paths, f"{image_extension()}$", "")
    extensions = pc.extract_regex(paths, f"(?P<extension>{image_extension()})$").field("extension")
    nothing = pa.scalar("", stems.type)
    return pc.binary_join_element_wise(stems, pc.utf8_lower(extensions).fill_null(nothing), nothing), stems


def _depths(keys: pa.Array) -> list[int]:
    """Of how many parts paths are."""
    return sorted(pc.unique(pc.add(pc.count_substring(keys, "/"), 1)).to_pylist())


def _last(keys: pa.Array, n: int) -> pa.Array:
    """The last ``n`` parts of each path."""
    while pc.any(is_longer := pc.greater_equal(pc.count_substring(keys, "/"), n)).as_py():
        keys = pc.if_else(is_longer, pc.replace_substring_regex(keys, "^[^/]*/", ""), keys)
    return keys


def _contradiction(first: pa.Array, classes: pa.Array) -> tuple[int, int] | None:
    """The numbers of two entries of different classes that are of the same key.

    Args:
        first: Of each entry the number of the first one of its key.
        classes: Their classes.
    """
    differ = np.flatnonzero(pc.not_equal(classes, classes.take(first)))
    return (first[differ[0]].as_py(), int(differ[0])) if len(differ) else None


def _some(texts: pa.Array) -> str:
    """The first of the texts, and dots if there are more."""
    return some(texts.slice(0, 4).to_pylist())
