"""Networks that see what was made to fool another one: does the attack transfer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import torch

from lightning_modules.host import on_host
from lightning_modules.judging.judges import Judge, Role, load_beside
from lightning_modules.networks.network import Network
from lightning_modules.results.rows import errors_of_logits
from lightning_modules.results.summaries.transfer import victim_columns

_TYPES = {"success": pa.bool_(), "probability": pa.float64(), "prediction_name": pa.string()}


class Victim(Judge):
    """A network that is shown images which were attacked for another one.

    It sees them as judges see images: as the 8 bits that a file holds, resized as a whole, by its own interpolation, to
    the size that it takes.
    """

    role: ClassVar = Role("victim", "model.victims", "of which images may be attacked", "is attacked")

    @property
    def fields(self) -> list[pa.Field]:
        return [pa.field(column, _TYPES[what]) for what, column in victim_columns(self.name).items()]

    def verdicts(
        self, logits: Sequence[torch.Tensor], targets: Sequence[int], *, targeted: bool
    ) -> tuple[list[dict[str, list[Any]]], list[str | None]]:
        """Its columns of N images as they are and under each budget, and what is wrong with each image; None = nothing.

        ``success`` is null of an image as which there is nothing to attack: the victim's prediction of the clean one is
        wrong already or, if the attack is targeted, right already.

        Args:
            logits: Of the clean images, and of those under each budget: 1 + k times ``(N, n_classes)``; on the host.
            targets: The class attacked of each image, as the network that is attacked numbers them.
            targeted: Whether the attack leads to it.

        Raises:
            InputError: If the victim has no class of a name, or several.
        """
        self.check(targets)
        classes = torch.tensor([self.class_of(target) for target in targets])
        names = victim_columns(self.name)
        is_so = [((of.argmax(1) == classes) == targeted).tolist() for of in logits]
        columns = []
        for of_logits, fooled in zip(logits, is_so):
            probability = self.network.probabilities(of_logits.double()).gather(1, classes[:, None])[:, 0]
            values: dict[str, list[Any]] = {
                "success": [None if nothing else is_fooled for nothing, is_fooled in zip(is_so[0], fooled)],
                "probability": probability.tolist(),
                "prediction_name": [self.network.class_names[k] for k in of_logits.argmax(1).tolist()],
            }
            columns.append({names[what]: of for what, of in values.items()})
        errors = [next((e for e in of if e is not None), None) for of in zip(*map(errors_of_logits, logits))]
        return columns, [e if e is None else f"the victim {self.name}: {e}" for e in errors]


def load_victims(wanted: Sequence[str | Mapping[str, Any]], attacked: Network) -> list[Victim]:
    """Loads networks that are to see images which were attacked for another one; see :func:`load_beside`."""
    return load_beside(Victim, wanted, attacked)


def show_to(
    victims: Sequence[Victim],
    pictures: Sequence[torch.Tensor],
    targets: Sequence[int],
    targeted: bool,
    columns: Sequence[dict[str, Any]],
) -> list[str | None]:
    """Shows attacked images to victims and adds what they say to the columns of the rows.

    Args:
        victims: Other networks; what all of them say is read at once.
        pictures: The clean images, and those under each budget: 1 + k times uint8 ``(N, 3, H, W)``; on the host.
        targets: The class attacked of each image.
        targeted: Whether the attack leads to it.
        columns: Those of the clean images, and of each budget: 1 + k.

    Returns:
        Of each image why a victim gives no numbers; None = all do.
    """
    errors: list[str | None] = [None] * len(targets)
    as_files = [list(of_budget.permute(0, 2, 3, 1).contiguous().numpy()) for of_budget in pictures]
    logits = on_host([[victim.logits(of_budget) for of_budget in as_files] for victim in victims])
    for victim, of in zip(victims, logits):
        said, of_victim = victim.verdicts(of, targets, targeted=targeted)
        for of_budget, more in zip(columns, said, strict=True):
            of_budget |= more
        errors = [before or error for before, error in zip(errors, of_victim)]
    return errors
