"""Names of tensors in a file, spelled as the module has them: what wraps a module puts something before its names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from lightning_modules.networks.weights.files import WeightsError
from lightning_modules.networks.weights.state_dicts import StateDict, renamed, without_prefix

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "network.")
"""What DataParallel, torch.compile and LightningModules put before the names of a module's tensors."""

_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
"""Parts of names that those put there who wrap a part of a module."""

_AVERAGED = re.compile(r"ema|averag|swa|teacher|momentum|shadow|(^|_)avg(_|$)")
_NO_WEIGHTS = re.compile(r"loss|criterion|metric|accuracy|auroc|confusion|(^|_)(acc|f1)(_|$)|^n_averaged$")
_AUXILIARY = {"aux1", "aux2", "AuxLogits"}
"""Heads of GoogLeNet and Inception that only training uses."""


@dataclass(frozen=True)
class Spelling:
    """The tensors of a file under a module's names.

    Attributes:
        tensors: New names -> tensors, with the versions of the layers.
        prefix: What was taken from the front of all names, "" = nothing.
        others: Names in the file that do not begin so.
        note: What was done, as a sentence without subject and full stop; "" = nothing.
    """

    tensors: dict[str, Any]
    prefix: str
    others: list[str]
    note: str


def spelling(state: StateDict, expected: Collection[str]) -> Spelling:
    """The tensors under those names of a module that fit best; as they are, wherever no others fit better.

    Args:
        state: What a file holds.
        expected: The names that the module's state dict has.

    Raises:
        WeightsError: If two names in the file become one.
    """
    expected = set(expected)

    def fitting(candidate: tuple[str, bool]) -> int:
        return len({_respelled(name, *candidate) for name in state.tensors} & expected)

    # Of equals max takes the first, which is the one that changes least.
    prefix, inside = max(_candidates(state.tensors), key=fitting)
    origin: dict[str, str] = {}
    others = []
    for name in state.tensors:
        new = _respelled(name, prefix, inside)
        if new is None:
            others.append(name)
        elif origin.setdefault(new, name) != name:
            raise WeightsError(
                f"{state.path} holds {origin[new]} and {name}, which are both {new} of the network. Save the state "
                "dict that the network itself gives."
            )
    removed = {part for name in state.tensors for part in name.split(".")[:-1]} & _WRAPPERS if inside else set()
    removed = {f"{part}." for part in removed if f"{part}." not in prefix}
    notes = [f"the prefix {prefix} was removed from its names"] if prefix else []
    notes += [f"{part} was removed from within its names" for part in sorted(removed)]
    tensors = renamed(state.tensors, lambda name: _respelled(name, prefix, inside))
    return Spelling(tensors, prefix, others, " and ".join(notes))


def _candidates(names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """(prefix, whether names change inside too), those first that change least: all prefixes in a row that occur."""
    prefixes = [""]
    for prefix in prefixes:  # which grows
        prefixes += [prefix + more for more in PREFIXES if any(name.startswith(prefix + more) for name in names)]
    for inside in (False, True):
        for prefix in prefixes:
            yield prefix, inside


def _respelled(name: str, prefix: str, inside: bool) -> str | None:
    rest = without_prefix(name, prefix)
    if rest is None or not inside:
        return rest
    rest = ".".join(part for part in rest.split(".") if part not in _WRAPPERS)
    # As torchvision.models.densenet does with its published files, whose names are of before PyTorch 0.4.1.
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", rest)


def parts_that_fit(names: Collection[str], expected: Collection[str]) -> list[str]:
    """What the names of whole sets of a module's tensors begin with, at most four of them.

    Example:
        >>> parts_that_fit(["student.a", "teacher.a", "x.b"], ["a"])
        ['student', 'teacher']
    """
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    heads = dict.fromkeys(
        ".".join(name.split(".")[:k]) for name in names for k in range(1, min(name.count(".") + 1, 4))
    )
    known = set(names)
    return [head for head in heads if all(f"{head}.{name}" in known for name in needed)][:4]


def without_use(names: Collection[str], taken: Collection[str], unbuilt: Collection[str]) -> set[str]:
    """Which of the tensors that a module has no place for are clearly none of its weights.

    They are what a loss or a metric keeps, a running average of the weights beside the weights themselves, and heads
    that only training uses, where the module was built without them.

    Args:
        names: Of the tensors, in the file or under the module's names.
        taken: Names that the module has taken.
        unbuilt: Parts that the module could have but was built without.
    """
    taken = set(taken)
    found = set()
    for name in names:
        parts = name.split(".")
        averaged = _AVERAGED.search(parts[0].lower()) and (
            parts[-1] == "n_averaged" or any(".".join(parts[k:]) in taken for k in range(1, len(parts)))
        )
        if averaged or _NO_WEIGHTS.search(parts[0].lower()) or parts[0] in _AUXILIARY & set(unbuilt):
            found.add(name)
    return found
