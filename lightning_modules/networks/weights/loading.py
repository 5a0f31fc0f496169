"""Loading a state dict into a module: the module's own code decides, and what it did is checked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_modules.errors import InputError
from lightning_modules.networks.network import Network
from lightning_modules.networks.weights.checks import check_kinds, check_values, copy_if_odd
from lightning_modules.networks.weights.files import WeightsError, first_line, some_of
from lightning_modules.networks.weights.names import parts_that_fit, spelling, without_use
from lightning_modules.networks.weights.state_dicts import StateDict, set_versions, versions_of

CLASS_COUNTS = ("num_classes", "n_classes", "num_labels")
"""How functions that make networks call the number of classes."""


TOLD_BY_FILES = (*CLASS_COUNTS, "image_size", "aux_logits")
"""The arguments of such functions that a file of weights can tell."""


class MisfitError(WeightsError):
    """A state dict that a module does not take.

    Attributes:
        told: Arguments with which the module might have been made to take it.
    """

    def __init__(self, message: str, told: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.told = dict(told)


def loaded(
    state: StateDict, make: Callable[..., Any], options: Collection[str], what: str, advice: str
) -> tuple[Any, list[str]]:
    """The module that ``make`` makes, with the weights of a file, and what is to be told of it.

    Where the file tells another number of classes than the module has (or another size of image, of torchvision's
    vision transformers, or no auxiliary heads), it is made again with that.

    Args:
        state: What the file holds.
        make: Makes the module.
        options: The arguments by name that ``make`` takes and that nobody has given.
        what: The network in words, for the message.
        advice: The message's last sentence.

    Raises:
        WeightsError: If they do not fit, or are not finite.
    """
    module = make()
    try:
        return module, load(state, module, what, advice)
    except MisfitError as misfit:
        count = next((name for name in CLASS_COUNTS if name in options), "num_classes")
        told = {count if key == "num_classes" else key: value for key, value in misfit.told.items()}
        if not told or set(told) - set(options):
            raise
        misfit.__traceback__ = module = None  # so that two networks do not lie in memory at once
        try:
            module = make(**told)
            notes = load(state, module, what, advice)
        except InputError:
            raise misfit from None
        said = ", ".join(f"{key}={value}" for key, value in told.items())
        return module, [*notes, f"the network was made with {said}, as the file tells"]


def load(state: StateDict, module: nn.Module, what: str, advice: str) -> list[str]:
    """Loads a state dict into a module by the module's own code; returns what is to be told.

    Every parameter must then have been set, once, with finite values; otherwise the module is of no use any more.

    Raises:
        MisfitError: If names or shapes do not fit.
        WeightsError: If values do not.
    """
    module = _inside(module)
    expected = module.state_dict(keep_vars=True)
    spelled = spelling(state, expected)
    check_kinds(state, spelled.tensors, expected)
    before = {name: copy_if_odd(tensor) for name, tensor in expected.items() if isinstance(tensor, Tensor)}
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and not is_lazy(parameter):
                parameter.fill_(torch.nan)  # what is not set is then seen
    report = _report(module, spelled.tensors, expected)
    unbuilt = [name for name, value in vars(module).items() if value is None]
    surplus = [*spelled.others, *report.surplus]
    aside = without_use(surplus, expected, [*unbuilt, *(n for n, part in module._modules.items() if part is None)])
    report.surplus = [name for name in surplus if name not in aside]
    if problems := report.problems():
        fits = parts_that_fit(state.tensors, expected)
        parts = " or ".join(f"{state.path.name}#{part}" for part in fits)
        raise MisfitError(
            f"{state.path} does not hold {what}{f' ({spelled.note})' * bool(spelled.note)}; {'; '.join(problems)}."
            + (f" If a part of it is the network, name that: {parts}." if fits else f" {advice}"),
            _told(report, module),
        )
    check_values(state, spelled, module, before)
    notes = [*state.notes, spelled.note]
    if aside:
        groups = dict.fromkeys(name.partition(".")[0] for name in surplus if name in aside)
        notes.append(f"it also holds {some_of(list(groups))}, which {'was' if len(groups) == 1 else 'were'} left out")
    return [note for note in notes if note]


def tell(path: Path, notes: list[str]) -> None:
    """Tells what was chosen in loading a file, as one warning; nothing where nothing was."""
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}.", stacklevel=3)


@dataclass
class _Report:
    """What the module's own loading says of a state dict.

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

    def problems(self) -> list[str]:
        found = [f"missing: {some_of(self.missing)}"] if self.missing else []
        found += [f"surplus: {some_of(self.surplus)}"] if self.surplus else []
        found += [f"{name} has shape {theirs}, not {ours}" for name, theirs, ours in self.shapes[:3]]
        return found or [self.error] * bool(self.error)


def _report(module: nn.Module, tensors: Any, expected: Mapping[str, Any]) -> _Report:
    """Loads, and says what the module's own code said."""
    seen: list[tuple[list[str], list[str]]] = []
    hook = module.register_load_state_dict_post_hook(lambda _, keys: seen.append((keys[0][:], keys[1][:])))
    error = ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            try:
                module.load_state_dict(tensors, strict=False)
            except RuntimeError:
                raise
            except Exception:
                # MNASNet asks for the versions of the layers, which safetensors and plain dicts do not keep.
                own = versions_of(module.state_dict())
                if versions_of(tensors) is not None or own is None:
                    raise
                set_versions(tensors, own)
                module.load_state_dict(tensors, strict=False)
    except Exception as failure:  # a module's own code raises what it likes
        lines = str(failure).splitlines()
        error = lines[1].strip() if len(lines) > 1 and "in loading state_dict" in lines[0] else first_line(failure)
    finally:
        hook.remove()
    missing, surplus = seen[-1] if seen else ([n for n in expected if n not in tensors], [])
    if not seen:
        surplus = [name for name in tensors if name not in expected]
    filled = {id(expected[name]) for name in tensors if name in expected}
    shapes = [
        (name, tuple(tensor.shape), tuple(expected[name].shape))
        for name, tensor in tensors.items()
        if error and isinstance(tensor, Tensor) and _differ(tensor, expected.get(name))
    ]
    return _Report(
        # Counters of batches play no part in what a network gives; a tensor of two names may be kept under one.
        [n for n in missing if not n.endswith("num_batches_tracked") and id(expected.get(n)) not in filled],
        surplus,
        shapes,
        error.rstrip("."),
    )


def _differ(tensor: Tensor, own: Any) -> bool:
    if not isinstance(own, Tensor) or is_lazy(own):
        return False
    # PyTorch takes one number in a list for one number.
    return tensor.shape != own.shape and not (own.ndim == 0 and tensor.shape == (1,))


def _inside(module: nn.Module) -> nn.Module:
    """The module whose names are looked for, without what wraps it."""
    while isinstance(module, Network | nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    inside: Any = getattr(module, "_orig_mod", None)
    return module if inside is None else _inside(inside)


def _told(report: _Report, module: nn.Module) -> dict[str, Any]:
    """With which arguments the module might fit: what the shapes that differ, and the names missing, can mean."""
    told: dict[str, Any] = {}
    shapes = report.shapes
    positions = [s for s in shapes if s[0].endswith("pos_embedding") and len(s[1]) == 3]
    patch: Any = getattr(module, "patch_size", None)
    if positions and isinstance(patch, int):  # torchvision's vision transformers: a class token, then a square grid
        told["image_size"] = math.isqrt(max(positions[0][1][1] - 1, 0)) * patch
        shapes = [s for s in shapes if s not in positions]
    if shapes:
        counts = {(theirs[:1], ours[:1]) for _, theirs, ours in shapes}
        if len(counts) > 1 or any(theirs[1:] != ours[1:] or not theirs for _, theirs, ours in shapes):
            return {}
        told["num_classes"] = shapes[0][1][0]
    if report.missing:
        if {name.partition(".")[0] for name in report.missing} - {"aux1", "aux2", "AuxLogits"}:
            return {}
        told["aux_logits"] = False
    return {} if report.surplus else told
