"""What the network that made an image says of it, also where the image is shifted."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_modules.networks.network import Network
from lightning_modules.results.rows import Row, errors_of_logits
from lightning_modules.synthesis import Objective, RandomShift, generators, respond, total_variation


@torch.no_grad()
def judged_by_maker(
    network: Network, pixels: np.ndarray, objective: Objective, target: int, key: str, fresh: RandomShift, n_fresh: int
) -> Row:
    """The numbers of a finished image, read from the 8 bits that are saved: a part of its row.

    Args:
        network: What made it.
        pixels: uint8 ``(H, W, 3)``.
        objective: What was maximized.
        target: The class or channel.
        key: The image's: the shifts follow from it.
        fresh: How far the image is shifted.
        n_fresh: How many shifted crops there are; ``activation_shifted`` is the mean over them.
    """
    like = next(network.parameters())
    image = torch.from_numpy(pixels).to(like).permute(2, 0, 1)[None] / 255
    crops = [fresh(image, generators([key], f"fresh {k}")) for k in range(n_fresh)]
    views = torch.cat([image, *crops])
    logits = network(views).float()
    output = logits if objective.layer is None else respond(network, views, objective.layer).float()
    activation = objective(output, torch.full((len(views),), target, device=logits.device))
    for view, (value, error) in enumerate(zip(activation.tolist(), errors_of_logits(logits))):
        error = error if math.isfinite(value) else f"the activation is {value}"
        if error is not None:
            return {"status": "failed", "error": error + ", in a shifted crop of the image" * (view > 0)}
    probabilities = logits.softmax(1)
    prediction = int(probabilities[0].argmax())
    numbers = {"activation": activation}
    if objective.layer is None:
        numbers["probability"] = probabilities[:, target]
    judged = {name: float(values[0]) for name, values in numbers.items()}
    judged |= {f"{name}_shifted": float(values[1:].mean()) for name, values in numbers.items()}
    return judged | {
        "status": "ok",
        "prediction": prediction,
        "prediction_name": network.class_names[prediction],
        "total_variation": float(total_variation(image)),
    }


def clipped(image: Tensor) -> float:
    """The share, in [0, 1], of the values of an image that lie at or beyond 0 or 1: detail that no pixel can show.

    Args:
        image: As it was made, before it is rounded to 8 bits, of any shape. What is NaN does not count.

    Example:
        >>> clipped(torch.tensor([0.0, 0.001, 0.999, 1.5]))
        0.5
    """
    return float(((image <= 0) | (image >= 1)).double().mean())


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
