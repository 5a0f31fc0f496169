"""Reads YAML so that text stays what was written.

Only what is written in one way is a number, true, false or null: 12 and 0.5 are numbers; 012, 1_0, 1:30, on and ~ are
text, of which jsonargparse makes a number where an option takes one. Names are of the types in ``datamodules.text``.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import set_dumper, set_loader
from jsonargparse.typing import register_type

from datamodules.text import Names, Text, Texts

AS_WRITTEN = "yaml as written"
"""The mode of a parser that reads so."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list] = {}  # noqa: RUF012  PyYAML's own name for it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts quotes round text that either reading takes for something else."""


class _Float(float):
    """A number that is written in another way than Python's, such as 1e-3: if it is a name, its text is needed."""

    text: str


for tag, pattern, firsts in (
    ("bool", "true|false", "tf"),
    ("null", "null|", ["n", ""]),
    ("int", "0|-?[1-9][0-9]*", "-0123456789"),
    ("float", r"-?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=e))(e[-+]?[0-9]+)?|-?\.inf|\.nan", "-.0123456789"),
    ("merge", "<<", "<"),
):
    written = re.compile(f"({pattern})$", re.IGNORECASE if tag == "float" else 0)
    for reads_or_writes in (_Loader, _Dumper):
        reads_or_writes.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", written, [*firsts])


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = _Float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    value.text = node.value
    return float(value) if repr(float(value)) == node.value else value


_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Dumper.add_representer(_Float, _Dumper.represent_float)


def load(content: str) -> Any:
    """What stands in YAML.

    Raises:
        YAMLError: If it is none.

    Example:
        >>> load("[012, 12, 1_0, on, true, null, ~, 1:30]")
        ['012', 12, '1_0', 'on', True, None, '~', '1:30']
    """
    loaded = yaml.load(content, _Loader)
    # Of #5 nothing is left, which is not null.
    return content if loaded is None and content.strip() not in ("", "null") else loaded


def dump(value: Any) -> str:
    """YAML of which :func:`load`, and YAML's own reading, make the same again."""
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def text(value: Any) -> str:
    """What was written, where a value was loaded.

    Raises:
        ValueError: If it is no text, but null or a list.

    Example:
        >>> [text(value) for value in load("[012, 12, on, true, 1.50, 1e3]")]
        ['012', '12', 'on', 'true', '1.50', '1e3']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError(f"should be a text, got {value!r}")
    return value.text if isinstance(value, _Float) else str(value)


def _item(value: Any) -> str:
    return "null" if value is None else text(value)


def texts(value: Any) -> list[str] | str:
    """Likewise of one or a list, in which null is a text too."""
    return [_item(each) for each in value] if isinstance(value, list | tuple) else text(value)


def names(value: Any) -> dict[str, str] | list[str] | str:
    """Likewise also of a table."""
    return {_item(key): _item(each) for key, each in value.items()} if isinstance(value, dict) else texts(value)


class Limit:
    """A number of batches, 1, or a share of them, 1.0."""


def _limit(value: Any) -> int | float:
    number = load(value) if isinstance(value, str) else value
    if type(number) is int:
        return number
    if isinstance(number, float):
        return float(number)
    raise ValueError(f"should be a number of batches, 1, or a share of them, 1.0, got {value}")


set_loader(AS_WRITTEN, load, (yaml.YAMLError, ValueError))
set_dumper(AS_WRITTEN, dump)
for type_, read in ((Text, text), (Texts, texts), (Names, names), (Limit, _limit), (_Float, float)):
    register_type(type_, lambda value: value, read)
