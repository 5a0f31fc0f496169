"""What the user may have meant, where the parser refuses a command line: names near to what was written.

The parser says what is wrong. Its message is not read; only which words of the command line it repeats is looked up.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

MEANT_FIRST = ("data.root", "data.classes", "network")
"""What a word that stands first, and belongs to no option, may be a value of."""

OURS = ("datamodules", "lightning_modules")
OF_A_CLASS = ("class_path", "init_args")
A_LIST = "A list stands in brackets, with quotes round it, such as '[GradCAM, SmoothGrad]'."


def in_a_line(message: str) -> str:
    """A message of jsonargparse in a line; where it gives several reasons, these without the types that it tried.

    Example:
        >>> in_a_line('Parser key "n":\\n  No subtype fits\\n  Errors:\\n    - Expected an int\\n  Given value: x')
        'Parser key "n": Expected an int'
    """
    lines = message.splitlines() or [""]
    reasons = [line.strip(" -") for line in lines if line.startswith("    ") and "NoneType" not in line]
    return " ".join(" ".join([lines[0], *reasons] if reasons else lines).split())


def suggestion(sentence: str, words: Sequence[str], options: Collection[str]) -> str:
    """What a command line that was refused may have meant, in a sentence; empty if nothing is near.

    Args:
        sentence: Why it was refused.
        words: Of the command line.
        options: The names of the options.
    """
    meant = next((name for name in MEANT_FIRST if name in options), None)
    if meant and words and words[0][:1].isalnum() and words[0] in sentence.split():
        return f"Did you mean --{meant} {words[0]}?"
    if "Sequence" in sentence or any(word.endswith(",") for word in words):
        return A_LIST
    classes, written = public_classes(), _names([*words, *_contents(words)])
    named = [classes[name] for name in _names([sentence]) if name in classes]
    plain = {*classes, *OF_A_CLASS, *(name for cls in named for name in inspect.signature(cls).parameters)}
    plain |= {name.split(".")[-1] for name in options}
    for word in _names([sentence]):
        if word not in written or len(word) < 3 or word.lstrip("-") in {*plain, *options}:
            continue
        known = {f"--{name}".lower(): f"--{name}" for name in options}
        if not word.startswith("--"):
            known = {name.lower(): name for name in sorted(plain)}
        near = difflib.get_close_matches(word.lower(), known, n=2, cutoff=0.66 if len(word) == 3 else 0.75)
        if near:
            return f"Did you mean {' or '.join(known[name] for name in near)}?"
    return ""


def _names(texts: Iterable[str]) -> list[str]:
    """The names in texts, also the last part of one that is joined by dots."""
    names = [name for text in texts for name in re.findall(r"(?:--)?\w+(?:\.\w+)*", text)]
    return list(dict.fromkeys([*names, *(name.split(".")[-1] for name in names)]))


def _contents(words: Sequence[str]) -> Iterable[str]:
    """What stands in the configurations that a command line names."""
    for word in words:
        path = Path(word.split("=")[-1])
        with suppress(OSError, ValueError):
            if path.suffix in (".yaml", ".yml", ".json"):  # not weights, which may be large
                yield path.read_text()


def public_classes(base: type = object) -> dict[str, type]:
    """Those derived from a class that can be made and that one of our packages exports, by name."""
    packages = [module for name, module in sys.modules.items() if name.partition(".")[0] in OURS]
    exported = [getattr(package, name) for package in packages for name in getattr(package, "__all__", ())]
    classes = {each.__name__: each for each in exported if inspect.isclass(each) and issubclass(each, base)}
    return {name: classes[name] for name in sorted(classes) if not inspect.isabstract(classes[name])}
