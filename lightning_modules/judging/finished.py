"""All that is said of a finished image, in the columns of its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from lightning_modules.figures.synthesis import as_bytes
from lightning_modules.judging.judges import Judge, with_verdicts
from lightning_modules.judging.maker import OfMaker, clipped, judged_by_maker, measured_by_maker, unreached
from lightning_modules.networks.network import Network
from lightning_modules.results.storage import Row
from lightning_modules.synthesis import Objective, RandomShift


class Finished(NamedTuple):
    """A finished image, and what was measured of it.

    Attributes:
        pixels: As they are saved, uint8 ``(H, W, 3)``.
        is_finite: Whether all of them were, bool ``()``.
        clipped: The share of them that was clipped, ``()``.
        of_maker: What the network that made it gives of it.
    """

    pixels: Tensor
    is_finite: Tensor
    clipped: Tensor
    of_maker: OfMaker


def measured_image(
    image: Tensor, network: Network, objective: Objective, target: int, key: str, fresh: tuple[RandomShift, int]
) -> Finished:
    """Measures an image; what is measured is not read yet, so a GPU is not waited for.

    Args:
        image: ``(3, H, W)``, before it is rounded.
        network: What made it.
        objective: What was maximized.
        target: The class or channel.
        key: The image's: the shifts follow from it.
        fresh: How far the image is shifted, and how often, see :func:`measured_by_maker`.
    """
    pixels = as_bytes(image)
    of_maker = measured_by_maker(network, pixels, objective, target, key, *fresh)
    return Finished(pixels, image.isfinite().all(), clipped(image), of_maker)


def judged_image(
    finished: Finished,
    network: Network,
    objective: Objective,
    target: int,
    judges: Sequence[Judge],
    unreached_in: int | None,
) -> Row:
    """The numbers of an image, from the network that made it and from its judges; or why it failed.

    Args:
        finished: What was measured of it, on the host.
        network: What made it.
        objective: What was maximized.
        target: The class or channel.
        judges: They are asked of images of classes.
        unreached_in: The number of steps, if the objective's gradient reached the image in none of them.
    """
    judged = judged_by_maker(finished.of_maker, network.class_names)
    if not finished.is_finite:
        return {"status": "failed", "error": judged.get("error", "the pixels are NaN, as a gradient was")}
    if judged["status"] != "ok":
        return judged
    if unreached_in is not None:
        return {"status": "failed", "error": unreached(judged["activation"], unreached_in)}
    judged["clipped"] = float(finished.clipped)
    return judged if objective.layer is not None else with_verdicts(judged, judges, finished.pixels.numpy(), target)
