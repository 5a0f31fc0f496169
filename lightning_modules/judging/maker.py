"""What the network that made an image says of it, also where the image is shifted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.host import where_float64_is
from lightning_modules.networks.network import Network
from lightning_modules.results.rows import FAULTS, faults_of
from lightning_modules.results.storage import Row
from lightning_modules.synthesis import Objective, RandomShift, generators, respond, total_variation


class OfMaker(NamedTuple):
    """What the network that made an image gives of it as it is, first, and of V - 1 shifted crops of it.

    Attributes:
        activation: ``(V,)``.
        probability: Of the class, ``(V,)``; None = a channel was maximized.
        fault: What is wrong with the logits, by its number in :data:`FAULTS`: int ``(V,)``.
        prediction: The most probable class of the image as it is, long ``()``.
        total_variation: ``()``.
    """

    activation: Tensor
    probability: Tensor | None
    fault: Tensor
    prediction: Tensor
    total_variation: Tensor


@torch.no_grad()
def measured_by_maker(
    network: Network, pixels: Tensor, objective: Objective, target: int, key: str, fresh: RandomShift, n_fresh: int
) -> OfMaker:
    """The numbers of a finished image, from the 8 bits that are saved; not read yet.

    Args:
        network: What made it.
        pixels: uint8 ``(H, W, 3)``, where the network is.
        objective: What was maximized.
        target: The class or channel.
        key: The image's: the shifts follow from it.
        fresh: How far the image is shifted.
        n_fresh: How many shifted crops there are.
    """
    like = next(network.parameters())
    image = pixels.to(like).permute(2, 0, 1)[None] / 255
    crops = [fresh(image, generators([key], f"fresh {k}")) for k in range(n_fresh)]
    views = torch.cat([image, *crops])
    logits = respond(network, views, None).float()
    output = logits if objective.layer is None else respond(network, views, objective.layer).float()
    activation = objective(output, torch.full((len(views),), target, device=logits.device))
    probabilities = network.probabilities(logits)
    probability = probabilities[:, target] if objective.layer is None else None
    prediction = probabilities[0].argmax()
    return OfMaker(activation, probability, faults_of(logits), prediction, total_variation(image)[0])


def judged_by_maker(measured: OfMaker, class_names: Sequence[str]) -> Row:
    """The numbers of a finished image, as a part of its row: ``activation_shifted`` is the mean over shifted crops.

    Args:
        measured: See :func:`measured_by_maker`; on the host.
        class_names: Of the network that made it.
    """
    for view, (value, fault) in enumerate(zip(measured.activation.tolist(), measured.fault.tolist())):
        error = FAULTS[fault] if math.isfinite(value) else f"the activation is {value}"
        if error is not None:
            return {"status": "failed", "error": error + ", in a shifted crop of the image" * (view > 0)}
    prediction = int(measured.prediction)
    numbers = {"activation": measured.activation}
    if measured.probability is not None:
        numbers["probability"] = measured.probability
    judged = {name: float(values[0]) for name, values in numbers.items()}
    judged |= {f"{name}_shifted": float(values[1:].mean()) for name, values in numbers.items()}
    return judged | {
        "status": "ok",
        "prediction": prediction,
        "prediction_name": class_names[prediction],
        "total_variation": float(measured.total_variation),
    }


def clipped(image: Tensor) -> Tensor:
    """The share, in [0, 1], of the values of an image that lie at or beyond 0 or 1: float64 ``()``.

    That is detail that no pixel can show.

    Args:
        image: As it was made, before it is rounded to 8 bits, of any shape. What is NaN does not count.

    Example:
        >>> clipped(torch.tensor([0.0, 0.001, 0.999, 1.5]))
        tensor(0.5000, dtype=torch.float64)
    """
    return where_float64_is((image <= 0) | (image >= 1)).double().mean()


def unreached(activation: float, steps: int) -> str:
    """The error of an image that the objective never moved, in any of its steps; penalties alone may have.

    Args:
        activation: Of the image, as it was left.
        steps: How many there were.
    """
    return (
        f"no gradient reached the image: at none of {steps} steps would another pixel have changed the activation "
        f"({activation:.4g} in the end), as where a ReLU keeps a channel at 0. Another data.seed starts elsewhere"
    )
