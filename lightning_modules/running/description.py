"""What is known of a network, on the command line."""

from __future__ import annotations

import textwrap
from typing import Any

from jsonargparse import Namespace

from lightning_modules.errors import InputError
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.uninformed import UninformedMethod
from lightning_modules.networks.built_in.vgg16 import WEIGHTS_HELP
from lightning_modules.networks.loading import NETWORK_HELP, load_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.observed.facts import split_call
from lightning_modules.networks.observed.nonlinearities import in_words
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.results.tables import Table, print_tables
from lightning_modules.running.cli import import_from_here
from lightning_modules.running.parsing.diagnosis import public_classes
from lightning_modules.running.parsing.parser import HelpfulParser


def explaining_methods() -> list[AttributionMethod]:
    """Ours that look at the network, each with its usual options."""
    found: dict[str, type[Any]] = public_classes(AttributionMethod)
    return [cls() for cls in found.values() if not issubclass(cls, UninformedMethod)]


def run_description(*, description: str | None, args: list[str] | None = None) -> int:
    """Parses the options and prints what is known of a network; returns the exit code.

    Args:
        description: What help says first.
        args: The options; None = those of the command line.
    """
    parser = HelpfulParser(description=description or "", usage="%(prog)s --network NETWORK [options]")
    add_network_options(parser)
    network = network_of(parser.parse_args(args))
    tables = [_table_of_facts(network), _table_of_methods(network), _table_of_layers(network)]
    print_tables(tables, [f"Odd: {oddity}." for oddity in network.facts.oddities])
    return 0


def add_network_options(parser: HelpfulParser) -> None:
    """Adds the options of :func:`load_network`, under their own names."""
    parser.add_function_arguments(load_network, as_group=False, skip={"seed", "compile"})
    parser.explain({"weights": f"{WEIGHTS_HELP}.", "network": f"{NETWORK_HELP}."})


def network_of(options: Namespace) -> Network:
    """The network that the options name."""
    import_from_here()
    known = ("network", "weights", *NetworkOptions.__annotations__)
    return load_network(**{name: value for name, value in vars(options).items() if name in known})


def _table_of_facts(network: Network) -> Table:
    known = network.description()
    by = network.sources
    names = network.class_names
    shown_names = ", ".join(names if len(names) <= 6 else [*names[:3], "...", names[-1]])
    resize, side = known["resize_size"], "both sides" if known["crop"].startswith("squash") else "shorter side"
    rows = [
        ["module", known["name"], ""],
        ["classes", f"{len(names)}: {shown_names}", by.get("class_names", "")],
        ["normalization", _normalization(known), by["mean"]],
        ["image", f"{known['input_size']} × {known['input_size']}", by["input_size"]],
        [f"{side} before the crop", "as it is" if resize is None else str(resize), by["resize_size"]],
        ["crop", known["crop"], by["crop"]],
        ["interpolation", known["interpolation"], by["interpolation"]],
        ["outputs", known["outputs"], by.get("outputs", "observed")],
        ["activations", _activations(known["nonlinearities"]), "observed"],
        ["target layer", known["target_layer"] or "none", by.get("target_layer", "the last with positions")],
    ]
    return Table(["", "what is known", "set by"], rows, n_left=3)


def _activations(counts: dict[str, dict[str, int]]) -> str:
    """``ReLU 13``; and of what it is not known whether it rectifies."""
    seen = ", ".join(f"{name} {n}" for kind in ("rectifiers", "others") for name, n in counts[kind].items())
    hidden = ", ".join(f"{name} {n}" for name, n in counts["unknown"].items())
    return (seen or "none") + f"; hidden: {hidden}" * bool(hidden)


def _normalization(known: dict[str, Any]) -> str:
    if known["mean"] == [0, 0, 0] and known["std"] == [1, 1, 1]:
        return "none: pixels in [0, 1]"
    mean, std = (", ".join(f"{value:.4g}" for value in known[name]) for name in ("mean", "std"))
    return f"(pixels in [0, 1] - ({mean})) / ({std})"


def _table_of_methods(network: Network) -> Table:
    rows = []
    for method in explaining_methods():
        try:
            needs = method.needs(network)
            left = network.facts.nonlinearities.without_rule if needs.guided_gradient else {}
            rows.append([repr(method), f"applies, but for {in_words(left)}" if left else "applies"])
        except InputError as error:
            rows.append([repr(method), textwrap.shorten(str(error), 300, placeholder=" ...")])
    return Table(["method", ""], rows, n_left=2)


def _table_of_layers(network: Network) -> Table:
    layers = network.layers
    rows = []
    for label, call in network.facts.by_label.items():
        usable = "yes" if label in network.layers_with_positions else "no"
        rows.append([label, type(layers[split_call(label)[0]]).__name__, str(call), usable])
    idle = [name for name in layers if name not in network.facts.calls]
    silent = [[name, type(layers[name]).__name__, "does not run", "no"] for name in idle]
    return Table(["layer, in the order they ran", "kind", "output of an image", "Grad-CAM"], rows + silent, n_left=4)
