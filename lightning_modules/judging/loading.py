"""Loads judges and victims as options name them, and warns of those that are no second opinion."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_modules.errors import InputError
from lightning_modules.judging.judges import JUDGE, Judge, Role
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.text import plain_name

OPTIONS = ("network", "weights", *NetworkOptions.__annotations__)
"""What may be said of a judge, as of the network of the run; and its ``name``."""


def load_judges(wanted: Sequence[str | Mapping[str, Any]], maker: Network, role: Role = JUDGE) -> list[Judge]:
    """Loads networks that are asked beside the one of a run.

    Args:
        wanted: Of each what :func:`~lightning_modules.networks.loading.load_network` takes: a network alone, or
            ``{"network": ..., "weights": ..., "class_names": ..., ...}``, with a ``name`` if the network's own does not
            tell it from others.
        maker: The network of the run.
        role: Whether they are judges or victims.

    Raises:
        InputError: If one cannot be had, or two would be called the same; says which.
    """
    specifications = [_specification(each, role) for each in wanted]
    names = _names(specifications, role)
    judges = []
    for name, options in zip(names, specifications):
        arguments = {key: value for key, value in options.items() if key != "name"}
        try:
            judges.append(Judge(name, load_network(**arguments), maker, role))
        except InputError as error:
            # What they call model.network and so on is here the judge's own.
            text = re.sub(rf"\bmodel\.({'|'.join(OPTIONS)})\b", r"\1", str(error))
            raise type(error)(f"{role.option}, {name}: {text}") from error
    return judges


def warn_of_judges(judges: Sequence[Judge], n_channels: int = 0, n_units: int = 0) -> None:
    """Warns of judges that are none: of what they are not asked, and of those that made the images themselves."""
    if n_channels:
        which = f"{n_channels} of the {n_units} units" if n_channels < n_units else "all units"
        warnings.warn(
            f"model.judges are asked of images of classes only; {which} of data.classes are channels, which no other "
            "network has.",
            stacklevel=2,
        )
    for judge in judges:
        if judge.had_part:
            warnings.warn(
                f"{judge.role.option}: {judge.name} has the weights of the network that {judge.role.first}, so what it "
                "says of them is no second opinion.",
                stacklevel=2,
            )
        elif judge.is_numbered:
            warnings.warn(
                f"{judge.role.option}: nobody says what the classes of {judge.name} are called. They are taken to be "
                f"those of the network that {judge.role.first}, in the same order, as there are as many.",
                stacklevel=2,
            )


def _specification(wanted: Any, role: Role) -> dict[str, Any]:
    """What is said of a judge, by the names of :data:`OPTIONS`."""
    if isinstance(wanted, str):
        return {"network": wanted}
    if not isinstance(wanted, Mapping):
        raise InputError(f"{role.option}: {wanted!r} is no network: name it as --model.network is named.")
    options = dict(wanted)
    if "class_path" in options:
        options["network"] = {key: options.pop(key) for key in ("class_path", "init_args") if key in options}
    if unknown := sorted(options.keys() - {*OPTIONS, "name"}):
        raise InputError(
            f"{role.option}: a {role.word} has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}, name."
        )
    if not options.get("network"):
        raise InputError(f"{role.option}: {options} names no network: {{network: efficientnet_lite0, ...}}.")
    return options


def _names(specifications: Sequence[Mapping[str, Any]], role: Role) -> list[str]:
    """What the judges are called: as they are to be, else as their networks, else with their weights.

    Raises:
        InputError: If two are called the same.
    """
    short = [plain_name(str(options.get("name") or _path(options).rpartition(".")[2])) for options in specifications]
    names = []
    for name, options in zip(short, specifications):
        weights = Path(str(options.get("weights", "IMAGENET1K_V1"))).stem
        names.append(f"{name}_{plain_name(weights)}" if short.count(name) > 1 and not options.get("name") else name)
    if double := [name for name, n in Counter(names).items() if n > 1]:
        raise InputError(
            f"{role.option}: two are called {double[0]}. Give each a name of its own: {{network: ..., name: ...}}."
        )
    return names


def _path(options: Mapping[str, Any]) -> str:
    network = options["network"]
    return str(network.get("class_path", network) if isinstance(network, Mapping) else network)
