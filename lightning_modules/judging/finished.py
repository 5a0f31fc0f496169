"""All that is said of a finished image, in the columns of its row."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_modules.figures.synthesis import to_uint8
from lightning_modules.judging.judges import Judge, with_verdicts
from lightning_modules.judging.maker import clipped, judged_by_maker, unreached
from lightning_modules.networks.network import Network
from lightning_modules.results.rows import Row
from lightning_modules.synthesis import Objective, RandomShift


def judged_image(
    image: Tensor,
    network: Network,
    objective: Objective,
    target: int,
    key: str,
    fresh: tuple[RandomShift, int],
    judges: Sequence[Judge],
    unreached_in: int | None,
) -> Row:
    """The numbers of an image, from the network that made it and from its judges; or why it failed.

    Args:
        image: ``(3, H, W)``, before it is rounded.
        network: What made it.
        objective: What was maximized.
        target: The class or channel.
        key: The image's: the shifts follow from it.
        fresh: How far the image is shifted, and how often, see :func:`judged_by_maker`.
        judges: They are asked of images of classes.
        unreached_in: The number of steps, if the objective's gradient reached the image in none of them.
    """
    pixels = to_uint8(image)
    judged = judged_by_maker(network, pixels, objective, target, key, *fresh)
    if not image.isfinite().all():
        return {"status": "failed", "error": judged.get("error", "the pixels are NaN, as a gradient was")}
    if judged["status"] != "ok":
        return judged
    if unreached_in is not None:
        return {"status": "failed", "error": unreached(judged["activation"], unreached_in)}
    judged["clipped"] = clipped(image)
    return judged if objective.layer is not None else with_verdicts(judged, judges, pixels, target)
