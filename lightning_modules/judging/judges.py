"""Networks beside that of a run: judges of the images that it makes, and victims of those attacked for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from datamodules.batch import AmbiguousClassError, ClassTable
from lightning_modules.errors import InputError
from lightning_modules.host import on_host
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.results.rows import errors_of_logits
from lightning_modules.results.storage import Row
from lightning_modules.results.summaries.verdicts import VERDICTS, verdict_columns


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


JUDGE = Role("judge", "model.judges", "of which data.classes wants images", "makes the images")
VICTIM = Role("victim", "model.victims", "of which images may be attacked", "is attacked")


class Judge:
    """A network that classifies images which were made or attacked for another one.

    Args:
        name: What columns and figures call it.
        network: From pixels in [0, 1] to logits, frozen.
        maker: The network of the run.
        role: Whether it is a judge or a victim.

    Attributes:
        had_part: Whether it is, weight by weight, the network of the run: no second opinion then.
    """

    def __init__(self, name: str, network: Network, maker: Network, role: Role = JUDGE) -> None:
        self.name = name
        self.network = network
        self.role = role
        self.had_part = _are_equal(network, maker)
        self._theirs, self._its = ClassTable(maker.class_names), ClassTable(network.class_names)

    @property
    def fields(self) -> list[pa.Field]:
        """Its columns in the rows."""
        names = verdict_columns(self.name, self.role.word)
        return [pa.field(names[what], kind) for what, kind in VERDICTS[self.role.word].items()]

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

    def verdicts(self, logits: torch.Tensor, targets: Sequence[int]) -> dict[str, list[Any]]:
        """Of each of N images the ``probability`` and the ``rank``, 1 = first, of its class, and ``prediction_name``.

        Args:
            logits: Of the images, ``(N, n_classes)``; on the host.
            targets: The class of each, as the network of the run numbers them.

        Raises:
            InputError: If it has no class of a name, or several.
        """
        self.check(targets)
        classes = torch.tensor([[self.class_of(target)] for target in targets])
        # One order for the rank and the prediction, also where logits are equal.
        order = logits.argsort(dim=1, descending=True, stable=True)
        return {
            "probability": self.network.probabilities(logits).gather(1, classes)[:, 0].tolist(),
            "rank": ((order == classes).int().argmax(1) + 1).tolist(),
            "prediction_name": [self.network.class_names[k] for k in order[:, 0].tolist()],
        }

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


def with_verdicts(judged: Row, judges: Sequence[Judge], pixels: np.ndarray, target: int) -> Row:
    """What is known of a finished image, and each judge's verdict; or, if one gives no numbers, that it failed.

    Args:
        judged: What is known already.
        judges: Those that are asked.
        pixels: The image, uint8 ``(H, W, 3)``, which each judge resizes as a whole to the size that it takes.
        target: The class of the maker that it is of.

    Raises:
        InputError: If a judge has no class of that name, or several.
    """
    for judge in judges:
        logits = on_host(judge.logits([pixels]))
        if (error := errors_of_logits(logits)[0]) is not None:
            return {"status": "failed", "error": f"the judge {judge.name}: {error}"}
        verdict = judge.verdicts(logits, [target])
        judged = judged | {column: verdict[what][0] for what, column in verdict_columns(judge.name).items()}
    return judged


def show_to(
    victims: Sequence[Judge],
    pictures: Sequence[torch.Tensor],
    targets: Sequence[int],
    targeted: bool,
    columns: Sequence[dict[str, Any]],
) -> list[str | None]:
    """Shows attacked images to victims and adds their verdicts to the columns of the rows.

    ``success`` is null of an image as which there is nothing to attack: the victim's prediction of the clean one is
    wrong already or, if the attack is targeted, right already.

    Args:
        victims: Other networks; what all of them give is read at once.
        pictures: The clean images, and those under each budget: 1 + k times uint8 ``(N, 3, H, W)``; on the host.
        targets: The class attacked of each image.
        targeted: Whether the attack leads to it.
        columns: Those of the clean images, and of each budget: 1 + k.

    Returns:
        Of each image why a victim gives no numbers; None = all do.
    """
    errors: list[str | None] = [None] * len(targets)
    as_files = [list(at_budget.permute(0, 2, 3, 1).contiguous().numpy()) for at_budget in pictures]
    logits = on_host([[victim.logits(at_budget) for at_budget in as_files] for victim in victims])
    for victim, at_budgets in zip(victims, logits):
        names = verdict_columns(victim.name, VICTIM.word)
        verdicts = [victim.verdicts(at_budget.double(), targets) for at_budget in at_budgets]
        fooled = [[(rank == 1) == targeted for rank in verdict["rank"]] for verdict in verdicts]
        for found, verdict, is_fooled in zip(columns, verdicts, fooled, strict=True):
            verdict["success"] = [None if nothing else is_so for nothing, is_so in zip(fooled[0], is_fooled)]
            found |= {column: verdict[what] for what, column in names.items()}
        for at_budget in at_budgets:
            found_errors = [error and f"the victim {victim.name}: {error}" for error in errors_of_logits(at_budget)]
            errors = [before or error for before, error in zip(errors, found_errors)]
    return errors


def _are_equal(network: Network, other: Network) -> bool:
    """Whether two networks have the same weights, under the same names."""
    one, two = network.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name].to(tensor)) for name, tensor in one.items())


def _some(names: Sequence[str], joint: str = ", ", most: int = 8) -> str:
    return joint.join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
