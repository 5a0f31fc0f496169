"""What a person may call a class: the one place that turns it into an index."""

from __future__ import annotations

import difflib
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

from datamodules.errors import DataError
from datamodules.imagenet import wordnet_ids_of

_LONGEST_INDEX = 9
"""No network has so many classes that an index of more digits could be one."""


class UnknownClassError(ValueError):
    """What was written stands for no class of the network.

    Attributes:
        is_index: Whether it is a number, beyond those of the classes; otherwise it is no class's name.
    """

    def __init__(self, wanted: object, known: Collection[str], *, is_index: bool) -> None:
        super().__init__(f"{wanted!r} is no class of the network")
        self.is_index = is_index
        self._wanted = str(wanted)
        self._known = known

    @property
    def near(self) -> list[str]:
        """Names that it may have been meant to be, at most five; where none is like it, the first five of all."""
        folded: dict[str, str] = {}
        for name in self._known:
            folded.setdefault(_spaced(name).casefold(), name)
        near = difflib.get_close_matches(_spaced(self._wanted).casefold(), folded, n=5, cutoff=0.5)
        return [folded[name] for name in near] or list(self._known)[:5]


class AmbiguousClassError(ValueError):
    """What was written may stand for several classes of the network; the message lists them and what to write."""


class ClassTable:
    """The classes of a network, by all that a person may call them.

    Text is looked up in this order; what was found first counts:

    1. as a class's exact name. Upper and lower case differ; how Unicode composes a letter (NFC, NFD) does not matter;
    2. as a name in which underscores stand for spaces, or spaces for underscores: ``great_white_shark``;
    3. as one of the synonyms of a name that lists them: ``common iguana`` of ``common iguana, iguana, Iguana iguana``;
    4. as a WordNet id, if the classes are ImageNet's: ``n02123045``;
    5. as an index, in the decimal digits 0 to 9: ``012`` is 12. ``1_0``, ``1e3`` and ``0x10`` are no numbers here.

    Text that fits several classes at a step is refused: two classes of one name; and ``12`` where class 11 is called
    ``012`` and class 12 is not, which is no name but may be meant as one. An ``int`` is an index, never a name; folders
    have names or WordNet ids, and indices only if all of them do.

    So a class called ``1`` is had by its name, whatever its index, and hides the index 1 from text; the class of that
    index is had by its own name. Colons and commas are letters like others. What reads a list of names from one text,
    as the command line does, needs quotes round a name with a comma: ``["crane, bird", tench]``.

    An option may have words of its own beside the names (``all``, ``label``, ``predicted``, ``least_likely``). Such a
    word means the same with every network: a class that is called so is had by its index, see :meth:`warn_of_word`.

    Args:
        names: Names of the classes, in the order of the network's outputs.

    Raises:
        DataError: If ``names`` is no list of texts.

    Example:
        >>> table = ClassTable(["cat", "guide_dog", "0"])
        >>> table.index("guide dog"), table.index("1"), table.index("0"), table.index(0)
        (1, 1, 2, 0)
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = checked_names(names)
        self._wnids = {wnid: index for index, wnid in enumerate(wordnet_ids_of(self.names))}
        self._exact: dict[str, list[int]] = {}
        self._spaced: dict[str, list[int]] = {}
        self._synonyms: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            self._exact.setdefault(composed(name), []).append(index)
            self._spaced.setdefault(_spaced(name), []).append(index)
            for synonym in _synonyms(name):
                self._synonyms.setdefault(synonym, []).append(index)

    def __len__(self) -> int:
        return len(self.names)

    def named(self, text: str) -> int | None:
        """The index of the class of this name or, of ImageNet's classes, of this WordNet id; None = no such.

        Raises:
            AmbiguousClassError: If several classes are called so.
        """
        return self._only(text, self._of_name(text))

    def is_named(self, text: str) -> bool:
        """Whether a text is the name, or the WordNet id, of a class or of several."""
        return bool(self._of_name(text))

    def index(self, wanted: Any) -> int:
        """The index of the class that a person wrote: text is a name, else a WordNet id, else an index.

        Args:
            wanted: Text, or a whole number, which is an index.

        Raises:
            UnknownClassError: If there is no such class.
            AmbiguousClassError: If there are several.
        """
        if isinstance(wanted, str):
            found = self._only(wanted, self._of_name(wanted) or self._of_number(wanted))
            is_index = re.fullmatch("-?[0-9]+", wanted) is not None and not self._numbered(wanted)
        elif isinstance(wanted, bool) or not isinstance(wanted, SupportsIndex):
            found, is_index = None, False
        else:
            found, is_index = wanted.__index__(), True
            found = found if 0 <= found < len(self) else None
        if found is None:
            raise UnknownClassError(wanted, [*self.names, *self._wnids], is_index=is_index)
        return found

    def _of_name(self, text: str) -> list[int]:
        """The classes that a text may name; [] if it is no name."""
        named = self._exact.get(composed(text)) or self._spaced.get(_spaced(text)) or self._synonyms.get(_spaced(text))
        return named or ([self._wnids[text]] if text in self._wnids else [])

    def _of_number(self, text: str) -> list[int]:
        """The classes that a text may number, if it is no name: ``12`` is also 012, which may be another's name."""
        number = _number(text)
        if number is None or number >= len(self):
            return []
        return sorted({number, *self._numbered(text)})

    def _numbered(self, text: str) -> list[int]:
        """The classes that are called by the number that a text is, however many zeros either begins with."""
        number = _number(text)
        return [] if number is None else [k for k, name in enumerate(self.names) if _number(name) == number]

    def _only(self, text: str, found: Sequence[int]) -> int | None:
        if len(found) > 1:
            raise AmbiguousClassError(
                f"{text!r} may be one of {len(found)} classes of the network: {self._listed(found)}. Write what stands "
                "behind the colon."
            )
        return found[0] if found else None

    def _listed(self, indices: Sequence[int]) -> str:
        """The classes of these indices, each with what stands for it and for no other: index, WordNet id or name."""
        shown = []
        for index in indices:
            texts = [str(index), *(wnid for wnid, k in self._wnids.items() if k == index), self.names[index]]
            ways = [text for text in texts if (self._of_name(text) or self._of_number(text)) == [index]]
            shown.append(f"class {index}, called {self.names[index]!r}: {' or '.join(ways) or 'give it another name'}")
        return "; ".join(shown)

    def of_folders(self, folders: Sequence[str]) -> list[int]:
        """The index of the class that each class folder is named after; a folder's name is never read as an index.

        The folders' positions do not matter, so a part of ImageNet's 1,000 folders is labelled rightly too.

        Raises:
            DataError: If a folder is named after no class or after several; shows folders and classes.

        Example:
            >>> from datamodules.imagenet import imagenet_class_names
            >>> ClassTable(imagenet_class_names()).of_folders(["n02123045", "tench", "great_white_shark"])
            [281, 0, 2]
        """
        try:
            indices = [(folder, self.named(folder)) for folder in folders]
        except AmbiguousClassError as error:
            raise DataError(f"A class folder's name fits several classes: {error}") from error
        if unknown := [folder for folder, index in indices if index is None]:
            raise DataError(
                f"{len(unknown)} of {len(folders)} class folders match no class of the network. Folders without a "
                f"match: {_some([_shown(folder) for folder in unknown])}. Classes of the network: {_some(self.names)}. "
                "A folder should have a class's name"
                + (", or its WordNet id such as n02123045." if self._wnids else ".")
            )
        return [index for _, index in indices if index is not None]

    def warn_of_word(self, option: str, word: str, meaning: str) -> None:
        """Warns that a word of an option means what it always does, if a class is called so too."""
        if found := self._of_name(word):
            warnings.warn(
                f"{option} {word} means {meaning}, not what the network calls so: {self._listed(found)}.", stacklevel=2
            )


def checked_names(names: Iterable[str]) -> list[str]:
    """The names of classes as a list of texts.

    Raises:
        DataError: If they are something else: one text, a mapping, a set, which has no order, or numbers.
    """
    wrong = isinstance(names, str | bytes | Mapping | set | frozenset) or not isinstance(names, Iterable)
    found = [] if wrong else list(names)
    if wrong or not all(isinstance(name, str) for name in found):
        raise DataError(
            "class_names should be a list of the classes' names as text, in the order of the network's outputs, got "
            f"{_some([repr(name) for name in found]) if found else repr(names)}."
        )
    return [str(name) for name in found]


def composed(name: str) -> str:
    """As Unicode composes it: é is one letter, however it was typed."""
    return unicodedata.normalize("NFC", name)


def _spaced(name: str) -> str:
    return composed(name).replace("_", " ")


def _synonyms(name: str) -> set[str]:
    """What a name lists, as WordNet's do, with commas between: ``common iguana, iguana, Iguana iguana``."""
    words = {word.strip() for word in _spaced(name).split(",")}
    return words - {""} if len(words) > 1 else set()


def _number(text: str) -> int | None:
    """The number that a text is in the digits 0 to 9; None if it is none, or larger than any index."""
    digits = text.lstrip("0")
    return int(text) if re.fullmatch("[0-9]+", text) and len(digits) <= _LONGEST_INDEX else None


def _shown(text: str) -> str:
    """Text as it can be shown: control letters, and bytes that are not UTF-8, as escapes; with spaces in quotes."""
    return text if text.isprintable() and text == text.strip() else repr(text)


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
