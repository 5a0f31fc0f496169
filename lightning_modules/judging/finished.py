"""The numbers of a finished image: of the network that made it, also where the image is shifted, and of its judges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.figures.synthesis import as_bytes
from lightning_modules.host import where_float64_is
from lightning_modules.judging.judges import Judge, with_verdicts
from lightning_modules.networks.network import Network
from lightning_modules.results.rows import FAULTS, faults_of
from lightning_modules.results.storage import Row
from lightning_modules.synthesis import Objective, RandomShift, generators, respond, total_variation


class Finished(NamedTuple):
    """What was measured of a finished image, and of V - 1 shifted crops of it; of V views the image is the first.

    Attributes:
        pixels: As they are saved, uint8 ``(H, W, 3)``.
        is_finite: Whether all of them were, bool ``()``.
        clipped: The share of their values that was at or beyond 0 or 1, where no detail shows, float64 ``()``.
        activation: Of each view, ``(V,)``.
        probability: Of the class, ``(V,)``; None = a channel was maximized.
        fault: What is wrong with the logits, by its number in :data:`FAULTS`: int ``(V,)``.
        prediction: The most probable class of the image as it is, long ``()``.
        total_variation: ``()``.
    """

    pixels: Tensor
    is_finite: Tensor
    clipped: Tensor
    activation: Tensor
    probability: Tensor | None
    fault: Tensor
    prediction: Tensor
    total_variation: Tensor


@torch.no_grad()
def measured_image(
    image: Tensor, network: Network, objective: Objective, target: int, key: str, fresh: tuple[RandomShift, int]
) -> Finished:
    """Measures an image, from the 8 bits that are saved; not read yet, so a GPU is not waited for.

    Args:
        image: ``(3, H, W)``, before it is rounded.
        network: What made it.
        objective: What was maximized.
        target: The class or channel.
        key: The image's: the shifts follow from it.
        fresh: How far the image is shifted, and how many shifted crops there are.
    """
    pixels = as_bytes(image)
    like = next(network.parameters())
    saved = pixels.to(like).permute(2, 0, 1)[None] / 255
    shift, n_fresh = fresh
    views = torch.cat([saved, *(shift(saved, generators([key], f"fresh {k}")) for k in range(n_fresh))])
    logits = respond(network, views, None).float()
    output = logits if objective.layer is None else respond(network, views, objective.layer).float()
    probabilities = network.probabilities(logits)
    return Finished(
        pixels=pixels,
        is_finite=image.isfinite().all(),
        clipped=where_float64_is((image <= 0) | (image >= 1)).double().mean(),
        activation=objective(output, torch.full((len(views),), target, device=logits.device)),
        probability=probabilities[:, target] if objective.layer is None else None,
        fault=faults_of(logits),
        prediction=probabilities[0].argmax(),
        total_variation=total_variation(saved)[0],
    )


def judged_image(
    finished: Finished,
    network: Network,
    objective: Objective,
    target: int,
    judges: Sequence[Judge],
    unreached_in: int | None,
) -> Row:
    """The numbers of an image, from the network that made it and from its judges; or why it failed.

    ``activation_shifted`` is the mean over the shifted crops.

    Args:
        finished: What was measured of it, on the host.
        network: What made it.
        objective: What was maximized.
        target: The class or channel.
        judges: They are asked of images of classes.
        unreached_in: The number of steps, if the objective's gradient reached the image in none of them.
    """
    error = _error_of(finished, unreached_in)
    if error is not None:
        return {"status": "failed", "error": error}
    prediction = int(finished.prediction)
    numbers = {"activation": finished.activation}
    if finished.probability is not None:
        numbers["probability"] = finished.probability
    judged: Row = {name: float(values[0]) for name, values in numbers.items()}
    judged |= {f"{name}_shifted": float(values[1:].mean()) for name, values in numbers.items()}
    judged |= {"status": "ok", "prediction": prediction, "prediction_name": network.class_names[prediction]}
    judged |= {"total_variation": float(finished.total_variation), "clipped": float(finished.clipped)}
    return judged if objective.layer is not None else with_verdicts(judged, judges, finished.pixels.numpy(), target)


def _error_of(finished: Finished, unreached_in: int | None) -> str | None:
    """Why an image failed; None = it did not."""
    for view, (value, fault) in enumerate(zip(finished.activation.tolist(), finished.fault.tolist())):
        error = FAULTS[fault] if math.isfinite(value) else f"the activation is {value}"
        if error is not None:
            return error + ", in a shifted crop of the image" * (view > 0)
    if not finished.is_finite:
        return "the pixels are NaN, as a gradient was"
    if unreached_in is None:
        return None
    # Penalties alone may have moved it.
    return (
        f"no gradient reached the image: at none of {unreached_in} steps would another pixel have changed the "
        f"activation ({float(finished.activation[0]):.4g} in the end), as where a ReLU keeps a channel at 0. Another "
        "data.seed starts elsewhere"
    )
