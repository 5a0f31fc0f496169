"""Loading a state dict into a module: the module's own code decides, and what it did is checked."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_modules.errors import InputError
from lightning_modules.networks.network import Network, uncompiled
from lightning_modules.networks.weights.files import WeightsError, first_line, some_of
from lightning_modules.networks.weights.state_dicts import StateDict

CLASS_COUNTS = ("num_classes", "n_classes", "num_labels")
"""How functions that make networks call the number of classes."""

FROM_FILES = (*CLASS_COUNTS, "aux_logits")
"""The arguments of such functions that a file of weights can give."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "network.")
"""What DataParallel, torch.compile and LightningModules put before the names of a module's tensors."""

_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
"""Parts of names that those put there who wrap a part of a module."""

_AUXILIARY = {"aux1", "aux2", "AuxLogits"}
"""Heads of GoogLeNet and Inception that only training uses."""

_AVERAGED = re.compile(r"ema|averag|swa|teacher|momentum|shadow|(^|_)avg(_|$)")
_NO_WEIGHTS = re.compile(r"loss|criterion|metric|accuracy|auroc|confusion|(^|_)(acc|f1)(_|$)|^n_averaged$")


class MisfitError(WeightsError):
    """A state dict that a module does not take.

    Attributes:
        arguments: With which the module might be made to take it.
    """

    def __init__(self, message: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.arguments = dict(arguments)


def loaded(
    state: StateDict, make: Callable[..., Any], free: Collection[str], what: str, advice: str
) -> tuple[Any, list[str]]:
    """The module that ``make`` makes, with the weights of a file, and notes for the user.

    Where the file shows another number of classes than the module has, or no auxiliary heads, it is made again so.

    Args:
        state: What the file holds.
        make: Makes the module.
        free: The arguments by name that ``make`` takes and that nobody has set.
        what: The network in words, for the message.
        advice: The message's last sentence.

    Raises:
        WeightsError: If they do not fit, or are not finite.
    """
    module = make()
    try:
        return module, load(state, module, what, advice)
    except MisfitError as misfit:
        count = next((name for name in CLASS_COUNTS if name in free), "num_classes")
        arguments = {count if key == "num_classes" else key: value for key, value in misfit.arguments.items()}
        if not arguments or set(arguments) - set(free):
            raise
        misfit.__traceback__ = module = None  # so that two networks do not lie in memory at once
        try:
            module = make(**arguments)
            notes = load(state, module, what, advice)
        except InputError:
            raise misfit from None
        words = ", ".join(f"{key}={value}" for key, value in arguments.items())
        return module, [*notes, f"the network was made with {words}, as the file has it"]


def load(state: StateDict, module: nn.Module, what: str, advice: str) -> list[str]:
    """Loads a state dict into a module by the module's own code; returns notes for the user.

    Every parameter must then have been set, once, with finite values; otherwise the module is of no use any more.

    Raises:
        MisfitError: If names or shapes do not fit.
        WeightsError: If values do not.
    """
    module = uncompiled(module.module if isinstance(module, Network) else module)
    expected = module.state_dict(keep_vars=True)
    tensors, others, spelling = _spelled(state, expected)
    for name, tensor in tensors.items():
        if isinstance(expected.get(name), nn.Parameter) and not tensor.is_floating_point():
            raise WeightsError(f"{state.path} holds {name} as {tensor.dtype}, which is no weight: it may be quantized.")
    buffers = {name: tensor for name, tensor in module.named_buffers() if not _is_finite(tensor)}
    masks = {name: tensor.clone() for name, tensor in buffers.items()}
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and not is_lazy(parameter):
                parameter.fill_(torch.nan)  # what is not set is then seen
    outcome = _load_by_own_code(module, tensors, expected)
    surplus = [*others, *outcome.surplus]
    unbuilt = [name for name, part in (*vars(module).items(), *module._modules.items()) if part is None]
    aside = [name for name in surplus if _is_no_weight(name, expected, unbuilt)]
    surplus = [name for name in surplus if name not in aside]
    problems = [f"missing: {some_of(outcome.missing)}"] * bool(outcome.missing)
    problems += [f"surplus: {some_of(surplus)}"] * bool(surplus)
    problems += [f"{name} has shape {theirs}, not {ours}" for name, theirs, ours in outcome.shapes[:3]]
    if problems := problems or [outcome.error] * bool(outcome.error):
        parts = [f"{state.path.name}#{part}" for part in _parts_that_fit(state.tensors, expected)]
        remedy = f"If a part of it is the network, name that: {' or '.join(parts)}." if parts else advice
        how = f" ({spelling})" if spelling else ""
        message = f"{state.path} does not hold {what}{how}; {'; '.join(problems)}. {remedy}"
        raise MisfitError(message, {} if surplus else _arguments_to_fit(outcome))
    _check_values(state.path, tensors, module, masks)
    notes = [*state.notes, *[spelling] * bool(spelling)]
    if aside:
        groups = list(dict.fromkeys(name.partition(".")[0] for name in aside))
        notes.append(f"it also holds {some_of(groups)}, which {'was' if len(groups) == 1 else 'were'} left out")
    return notes


def warn_of(path: Path, notes: list[str]) -> None:
    """Warns of what was chosen in loading a file; once, and not where nothing was."""
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}.", stacklevel=3)


class _Outcome(NamedTuple):
    """What a module's own loading made of a state dict.

    Attributes:
        missing: Names that the file lacks.
        surplus: Names that the module lacks.
        shapes: (name, shape in the file, shape in the module) where these differ.
        error: What else was wrong, "" = nothing.
    """

    missing: list[str]
    surplus: list[str]
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    error: str


def _load_by_own_code(module: nn.Module, tensors: OrderedDict[str, Any], expected: Mapping[str, Any]) -> _Outcome:
    keys = [name for name in expected if name not in tensors], [name for name in tensors if name not in expected]

    def note(_: nn.Module, incompatible: Any) -> None:  # before an error of shapes is raised
        nonlocal keys
        keys = list(incompatible.missing_keys), list(incompatible.unexpected_keys)

    error, shapes, hook = "", [], module.register_load_state_dict_post_hook(note)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            try:
                module.load_state_dict(tensors, strict=False)
            except ValueError:  # MNASNet asks for the versions of layers, which plain dicts do not keep
                setattr(tensors, "_metadata", getattr(module.state_dict(), "_metadata", None))  # noqa: B010
                module.load_state_dict(tensors, strict=False)
    except Exception as failure:  # a module's own code raises what it likes
        lines = str(failure).splitlines()
        error = lines[1].strip() if len(lines) > 1 and "in loading state_dict" in lines[0] else first_line(failure)
        both = [(name, tensors[name], expected[name]) for name in tensors if name in expected]
        both = [each for each in both if all(isinstance(t, Tensor) and not is_lazy(t) for t in each[1:])]
        shapes = [(name, tuple(t.shape), tuple(own.shape)) for name, t, own in both if t.shape != own.shape]
    finally:
        hook.remove()
    # Counters of batches play no part in what a network gives; a tensor of two names may be kept under one.
    filled = {id(expected[name]) for name in tensors if name in expected}
    missing = [n for n in keys[0] if not n.endswith("num_batches_tracked") and id(expected.get(n)) not in filled]
    return _Outcome(missing, keys[1], shapes, error.rstrip("."))


def _arguments_to_fit(outcome: _Outcome) -> dict[str, Any]:
    """With which arguments the module might fit: what the shapes that differ, and the names missing, can mean."""
    arguments: dict[str, Any] = {}
    if outcome.shapes:
        counts = {(theirs[:1], ours[:1]) for _, theirs, ours in outcome.shapes}
        if len(counts) > 1 or any(theirs[1:] != ours[1:] or not theirs for _, theirs, ours in outcome.shapes):
            return {}
        arguments["num_classes"] = outcome.shapes[0][1][0]
    if outcome.missing:
        if {name.partition(".")[0] for name in outcome.missing} - _AUXILIARY:
            return {}
        arguments["aux_logits"] = False
    return arguments


def _spelled(state: StateDict, expected: Mapping[str, Any]) -> tuple[OrderedDict[str, Any], list[str], str]:
    """The tensors of a file under those names of a module that fit best; as they are, wherever no others fit better.

    Returns:
        The tensors; names in the file that have no such prefix; and what was done, "" = nothing.

    Raises:
        WeightsError: If two names in the file become one.
    """
    names = list(state.tensors)

    def fitting(candidate: tuple[str, bool]) -> int:
        return len({_respelled(name, *candidate) for name in names} & expected.keys())

    # Of equals max takes the first, which is the one that changes least.
    prefix, inside = max(_spellings(names), key=fitting)
    tensors: OrderedDict[str, Any] = OrderedDict()
    origin: dict[str, str] = {}
    for name in names:
        new = _respelled(name, prefix, inside)
        if new is None:
            continue
        if origin.setdefault(new, name) != name:
            raise WeightsError(
                f"{state.path} holds {origin[new]} and {name}, which are both {new} of the network. Save the state "
                "dict that the network itself gives."
            )
        tensors[new] = state.tensors[name]
    if not prefix and not inside and (versions := getattr(state.tensors, "_metadata", None)):
        setattr(tensors, "_metadata", versions)  # noqa: B010
    removed = {part for name in names for part in name.split(".")[:-1]} & _WRAPPERS if inside else set()
    notes = [f"the prefix {prefix} was removed from its names"] if prefix else []
    notes += [f"{part}. was removed from within its names" for part in sorted(removed) if f"{part}." not in prefix]
    return tensors, [name for name in names if not name.startswith(prefix)], " and ".join(notes)


def _spellings(names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """(prefix, whether names change inside too), those first that change least: all prefixes in a row that occur."""
    prefixes = [""]
    for prefix in prefixes:  # which grows
        prefixes += [prefix + more for more in PREFIXES if any(name.startswith(prefix + more) for name in names)]
    yield from ((prefix, inside) for inside in (False, True) for prefix in prefixes)


def _respelled(name: str, prefix: str, inside: bool) -> str | None:
    if not name.startswith(prefix) or not inside:
        return name.removeprefix(prefix) if name.startswith(prefix) else None
    rest = ".".join(part for part in name.removeprefix(prefix).split(".") if part not in _WRAPPERS)
    # As torchvision.models.densenet does with its published files, whose names are of before PyTorch 0.4.1.
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", rest)


def _parts_that_fit(names: Collection[str], expected: Collection[str]) -> list[str]:
    """What the names of whole sets of a module's tensors begin with, at most four of them."""
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    split = [name.split(".") for name in names]
    heads = dict.fromkeys(".".join(parts[:k]) for parts in split for k in range(1, min(len(parts), 4)))
    return [head for head in heads if all(f"{head}.{name}" in names for name in needed)][:4]


def _is_no_weight(name: str, taken: Collection[str], unbuilt: Collection[str]) -> bool:
    """Whether a tensor that a module has no place for is clearly none of its weights.

    It is what a loss or a metric keeps, of a running average of the weights beside the weights themselves, or of a head
    that only training uses, where the module was built without it.
    """
    first, *rest = name.split(".")
    is_copy = name.endswith("n_averaged") or any(".".join(rest[k:]) in taken for k in range(len(rest)))
    is_average = _AVERAGED.search(first.lower()) and is_copy
    return bool(is_average or _NO_WEIGHTS.search(first.lower()) or first in _AUXILIARY & set(unbuilt))


def _check_values(path: Path, given: Mapping[str, Any], module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Refuses what is not finite, was not set, or was set twice.

    Args:
        path: The file.
        given: Its tensors under the module's names.
        module: The module after loading.
        masks: The buffers that were not finite before, as masks of attention are.

    Raises:
        WeightsError: If there are such; names them.
    """
    now = {**dict(module.named_parameters(remove_duplicate=False)), **module.state_dict(keep_vars=True)}
    now = {name: tensor.detach() for name, tensor in now.items() if isinstance(tensor, Tensor) and not is_lazy(tensor)}
    broken = [name for name, tensor in now.items() if not _is_finite(tensor) and not _same(masks.get(name), tensor)]
    if unset := [name for name in broken if name not in given]:
        raise WeightsError(f"{path} leaves {some_of(unset)} of the network without values.")
    if broken:
        kind = str(now[broken[0]].dtype).removeprefix("torch.")
        known = any(name.startswith("classifier.") for name in broken)
        raise WeightsError(
            f"{path} has NaN or infinite weights in {some_of(broken)}, or such as {kind}, the network's, cannot hold."
            + " torchvision's IMAGENET1K_FEATURES has no usable classifier. Use IMAGENET1K_V1." * known
        )
    # What is not what the file has was overwritten: by one that the module renames, or that shares the tensor.
    for name in given.keys() & now.keys():
        if now[name].is_meta or _same(given[name], now[name]):
            continue
        for other in given.keys() - {name}:
            if _same(given[other], now[name]):
                raise WeightsError(
                    f"{path} holds {other} and {name}, which are one tensor of the network, with two values."
                )


def _is_finite(tensor: Tensor) -> bool:
    return is_lazy(tensor) or tensor.is_meta or bool(torch.isfinite(tensor).all())


def _same(tensor: Any, own: Tensor) -> bool:
    """Whether a tensor of the file's is what the network now has."""
    if not isinstance(tensor, Tensor) or tensor.numel() != own.numel():
        return False
    return torch.allclose(tensor.to(own.dtype).view(own.shape), own, rtol=0, atol=0, equal_nan=True)
