"""Networks that judge images which another one made: is it, to them too, the class that it was made to be?"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from datamodules.batch import AmbiguousClassError, ClassTable
from lightning_modules.errors import InputError
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.results.rows import errors_of_logits
from lightning_modules.results.storage import Row
from lightning_modules.results.summaries.verdicts import verdict_columns
from lightning_modules.text import plain_name

OPTIONS = ("network", "weights", *NetworkOptions.__annotations__)
"""What may be said of a judge, as of the network that makes the images; and its ``name``."""

_TYPES = {"probability": pa.float64(), "rank": pa.int64(), "prediction_name": pa.string()}


class Role(NamedTuple):
    """What a network beside that of a run is asked for, in words.

    Attributes:
        word: What it is called.
        option: Where it is named.
        wish: After a class that it lacks: who wants it.
        first: What the run's own network does.
    """

    word: str
    option: str
    wish: str
    first: str


class Judge:
    """A network that says of finished images what they are.

    A subclass with another :attr:`role` may say other things of them.

    Args:
        name: What columns and figures call it.
        network: From pixels in [0, 1] to logits, frozen.
        maker: The network that makes the images.

    Attributes:
        had_part: Whether it is, weight by weight, the network that makes the images: no second opinion then.
    """

    role: ClassVar = Role("judge", "model.judges", "of which data.classes wants images", "makes the images")

    def __init__(self, name: str, network: Network, maker: Network) -> None:
        self.name = name
        self.network = network
        self.had_part = _are_equal(network, maker)
        self._theirs, self._its = ClassTable(maker.class_names), ClassTable(network.class_names)

    @property
    def fields(self) -> list[pa.Field]:
        """Its columns in the rows."""
        return [pa.field(column, _TYPES[what]) for what, column in verdict_columns(self.name).items()]

    @property
    def n_classes(self) -> int:
        return len(self._its)

    @property
    def is_numbered(self) -> bool:
        """Whether its classes have numbers for names, since nobody said what they are called."""
        is_named = self.network.sources["class_names"] != "nobody"
        return not is_named and self._its.names == [str(k) for k in range(self.n_classes)]

    def class_of(self, target: int) -> int | None:
        """The class that is called as class ``target`` of the maker is; None = it has none.

        Where both have the same classes in the same order, it is the same one; otherwise names decide.

        Raises:
            AmbiguousClassError: If several classes of either are called so.
        """
        if self._its.names == self._theirs.names:
            return target
        if self.is_numbered:
            return None
        name = self._theirs.names[target]
        self._theirs.named(name)
        return self._its.named(name)

    def check(self, targets: Iterable[int]) -> None:
        """Whether it can judge images of these classes of the maker.

        Raises:
            InputError: If it has no class of a name, or several; names the classes.
        """
        try:
            missing = [target for target in dict.fromkeys(targets) if self.class_of(target) is None]
        except AmbiguousClassError as error:
            text = f"{self.role.option}: {self.name} is asked for a class by its name, and {error}"
            raise InputError(text) from error
        if missing:
            wanted = [repr(self._theirs.names[target]) for target in missing]
            raise InputError(
                f"{self.role.option}: {self.name} has no class called {_some(wanted, ' or ')}, {self.role.wish}; its "
                f"classes are {_some(self._its.names)}. A {self.role.word} is asked for a class by its name: take one "
                f"that knows it, or say its names, {{network: ..., class_names: ...}}."
            )

    def __call__(self, pixels: np.ndarray, target: int) -> Row:
        """Its columns of an image, or what failed: a part of the image's row.

        Args:
            pixels: The image, uint8 ``(H, W, 3)``, which is resized as a whole to the size that the network takes.
            target: The class of the maker that it is of.

        Raises:
            InputError: If it has no class of that name, or several.
        """
        self.check([target])
        index = self.class_of(target)
        assert index is not None
        logits = self.logits([pixels])
        (error,) = errors_of_logits(logits)
        if error is not None:
            return {"status": "failed", "error": f"the judge {self.name}: {error}"}
        # One order for the rank and the prediction, also where logits are equal.
        order = logits[0].argsort(descending=True, stable=True)
        numbers = {
            "probability": float(self.network.probabilities(logits)[0, index]),
            "rank": int((order == index).nonzero()) + 1,
            "prediction_name": self.network.class_names[int(order[0])],
        }
        return {column: numbers[what] for what, column in verdict_columns(self.name).items()}

    @torch.no_grad()
    def logits(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """What the network gives of pictures, each uint8 ``(H, W, 3)``: float32 ``(N, n_classes)``, where it is."""
        like = self.network.mean
        images = torch.stack([self._prepared(pixels) for pixels in pictures]).to(like.device, like.dtype)
        with trusted(), torch.autocast(like.device.type, enabled=False):
            return self.network(images.contiguous(memory_format=torch.channels_last)).float()

    def _prepared(self, pixels: np.ndarray) -> torch.Tensor:
        """The image as the network's own preparation has it, without a crop: ``(3, size, size)`` in [0, 1]."""
        size, mode = self.network.input_size, InterpolationMode(self.network.options["interpolation"])
        resized = F.resize(Image.fromarray(pixels), [size, size], mode, antialias=True)
        return F.convert_image_dtype(F.pil_to_tensor(resized), torch.float32)


JudgeT = TypeVar("JudgeT", bound=Judge)


def with_verdicts(judged: Row, judges: Sequence[Judge], pixels: np.ndarray, target: int) -> Row:
    """What is known of a finished image, and what each judge says of it; or, if one gives no numbers, that it failed.

    Args:
        judged: What is known already.
        judges: Those that are asked.
        pixels: The image, uint8 ``(H, W, 3)``.
        target: The class of the maker that it is of.
    """
    for judge in judges:
        said = judge(pixels, target)
        if "status" in said:
            return said
        judged = judged | said
    return judged


def load_judges(wanted: Sequence[str | Mapping[str, Any]], maker: Network) -> list[Judge]:
    """Loads networks that are to judge images which ``maker`` makes; see :func:`load_beside`."""
    return load_beside(Judge, wanted, maker)


def load_beside(kind: type[JudgeT], wanted: Sequence[str | Mapping[str, Any]], maker: Network) -> list[JudgeT]:
    """Loads networks that are asked beside the one of a run.

    Args:
        kind: What they are to be.
        wanted: Of each what :func:`~lightning_modules.networks.loading.load_network` takes: a network alone, or
            ``{"network": ..., "weights": ..., "class_names": ..., ...}``, with a ``name`` if the network's own does not
            tell it from others.
        maker: The network of the run.

    Raises:
        InputError: If one cannot be had, or two would be called the same; says which.
    """
    specifications = [_specification(each, kind.role) for each in wanted]
    names = _names(specifications, kind.role)
    judges = []
    for name, options in zip(names, specifications):
        arguments = {key: value for key, value in options.items() if key != "name"}
        try:
            judges.append(kind(name, load_network(**arguments), maker))
        except InputError as error:
            # What they call model.network and so on is here the judge's own.
            text = re.sub(rf"\bmodel\.({'|'.join(OPTIONS)})\b", r"\1", str(error))
            raise type(error)(f"{kind.role.option}, {name}: {text}") from error
    return judges


def tell_of(judges: Sequence[Judge], n_channels: int = 0, n_units: int = 0) -> None:
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


def _are_equal(network: Network, other: Network) -> bool:
    """Whether two networks have the same weights, under the same names."""
    one, two = network.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name].to(tensor)) for name, tensor in one.items())


def _some(names: Sequence[str], joint: str = ", ", most: int = 8) -> str:
    return joint.join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
