"""What a person may call a class: the one place that turns it into an index."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from datamodules.errors import DataError
from datamodules.imagenet import imagenet_class_names, imagenet_classes


class UnknownClassError(ValueError):
    """What was written stands for no class of the network.

    Attributes:
        is_index: Whether it is a number, beyond those of the classes; otherwise it is no class's name.
    """

    def __init__(self, wanted: str | int, known: Collection[str], *, is_index: bool) -> None:
        super().__init__(f"{wanted!r} is no class of the network")
        self.is_index = is_index
        self._wanted = str(wanted)
        self._known = known

    @property
    def near(self) -> list[str]:
        """Names that it may have been meant to be, at most five; where none is like it, the first five of all."""
        return difflib.get_close_matches(self._wanted, self._known, n=5, cutoff=0.5) or list(self._known)[:5]


class ClassTable:
    """The classes of a network, by all that a person may call them.

    Args:
        names: Names of the classes, in the order of the network's outputs.

    Example:
        >>> table = ClassTable(["cat", "dog", "0"])
        >>> table.index("dog"), table.index("1"), table.index("0"), table.index(0)
        (1, 1, 2, 0)
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._indices = {name: index for index, name in enumerate(self.names)}
        if self.names == imagenet_class_names():
            self._indices |= {wnid: index for wnid, (index, _) in imagenet_classes().items()}

    def __len__(self) -> int:
        return len(self.names)

    def named(self, text: str) -> int | None:
        """The index of the class of this exact name or, of ImageNet's classes, of this WordNet id; None = no such."""
        return self._indices.get(text)

    def index(self, wanted: str | int) -> int:
        """The index of the class that a person wrote: text is a name, else a WordNet id, else an index.

        Raises:
            UnknownClassError: If there is no such class.
        """
        found = self.named(wanted) if isinstance(wanted, str) else None
        if found is not None:
            return found
        if not re.fullmatch(r"-?\d+", str(wanted)):
            raise UnknownClassError(wanted, self._indices, is_index=False)
        if not 0 <= int(wanted) < len(self):
            raise UnknownClassError(wanted, self._indices, is_index=True)
        return int(wanted)

    def of_folders(self, folders: Sequence[str]) -> list[int]:
        """The index of the class that each class folder is named after; a folder's name is never read as an index.

        The folders' positions do not matter, so a part of ImageNet's 1,000 folders is labelled rightly too.

        Raises:
            DataError: If a folder is named after no class; shows folders and classes.

        Example:
            >>> ClassTable(imagenet_class_names()).of_folders(["n02123045", "tench"])
            [281, 0]
        """
        indices = [(folder, self.named(folder)) for folder in folders]
        if unknown := [folder for folder, index in indices if index is None]:
            raise DataError(
                f"{len(unknown)} of {len(folders)} class folders match no class of the network. Folders without a "
                f"match: {_some(unknown)}. Classes of the network: {_some(self.names)}. A folder should have a class's "
                "name" + (", or its WordNet id such as n02123045." if self.named("n02123045") is not None else ".")
            )
        return [index for _, index in indices if index is not None]


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
