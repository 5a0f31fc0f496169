"""The row of insertion and deletion, against as many bare forward passes."""

from __future__ import annotations

from typing import Any

from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Row
from lightning_modules import GradCAM, explain
from lightning_modules.metrics.causal import InsertionDeletion


def insertion_deletion(setting: Setting, peers: bool = True) -> Row:
    """Both curves of one map; the limit is the forwards of as many images in batches of the same size."""
    points, max_batch = -(-setting.network.input_size // 8) + 1, 64

    def contenders(n: int) -> list[Contender]:
        images = setting.images(n)
        maps = explain(setting.network, images, [GradCAM()], setting.target(n))
        no_boxes: Any = {}
        many = images.repeat_interleave(points, 0)

        def bare() -> None:
            for _ in range(2):
                for part in many.split(max_batch):
                    setting.bare_forward(part)

        ours = Contender(
            OURS, lambda: InsertionDeletion().score(maps["GradCAM"], maps.forward_pass, no_boxes, GradCAM())
        )
        return [ours, Contender(f"{2 * points} bare forwards an image", bare)]

    work = "insertion + deletion of a map, fp32, 1 image"
    goals = [Goal(f"{2 * points} bare forwards an image", at_most=1.05)]
    return Row("insertion_deletion", work, contenders, 1, goals, rounds=2)
