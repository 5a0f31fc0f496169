from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import RichProgressBar

from lightning_modules import AttributionModule, Occlusion, ScoreCAM
from lightning_modules.metrics import InsertionDeletion
from lightning_modules.running.progress import RunProgress
from tests.lightning_modules.fragile import NETWORK

N_PASSES = 1 + 4 + 225 + 2 * 2 * (32 // 8 + 1)


class Run:
    """A run of 20 images in one batch, with a clock that is set by hand."""

    def __init__(self, methods: list[Any], has_bar: bool = True) -> None:
        self.now = 0.0
        options: Any = {"weights": "random", "network": NETWORK, "metrics": [InsertionDeletion()]}
        self.module: Any = AttributionModule(methods=methods, **options)
        self.module.n_to_compute = lambda: 20
        bar = RichProgressBar() if has_bar else None
        self.trainer: Any = SimpleNamespace(
            progress_bar_callback=bar, is_global_zero=True, world_size=1, lightning_module=self.module
        )
        self.progress = RunProgress(lambda: self.now)
        self.progress.on_test_start(self.trainer, self.module)

    def show(self, n_images: int, seconds: float, n_in_hand: int = 1) -> None:
        """Shows the network images, after so many seconds, while some are being computed."""
        self.now += seconds
        self.module.n_in_hand = n_in_hand
        self.module.network(torch.rand(n_images, 3, 32, 32))

    def finish(self, n_images: int) -> None:
        self.progress.on_part_end(self.trainer, {"rows": [], "figures": {}}, batch(20), n_images)


def batch(n: int) -> dict[str, list]:
    return {"path": ["a"] * n, "failed": []}


def test_slow_methods_in_one_batch(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([ScoreCAM(), Occlusion(4, 2)])
    announced = capsys.readouterr().out
    assert announced.startswith(
        f"Each image takes about {N_PASSES} passes of the network (Occlusion(window=4, stride=2) 225, "
    )
    assert f": {20 * N_PASSES:,} for 20 images." in announced
    run.show(1, 20)
    run.show(99, 20)
    run.show(N_PASSES - 100, 20)
    run.finish(1)
    run.show(4, 15, n_in_hand=4)
    run.show(2 * N_PASSES - 4, 45, n_in_hand=4)
    assert capsys.readouterr().out.splitlines() == [
        f"0 of 20 images, 1 of {N_PASSES} passes of the next",
        f"0 of 20 images, 100 of {N_PASSES} passes of the next",
        f"0 of 20 images, {N_PASSES} of {N_PASSES} passes of the next",
        f"1 of 20 images, 4 of {4 * N_PASSES:,} passes of the next 4; about 23 min left",
        f"1 of 20 images, {2 * N_PASSES} of {4 * N_PASSES:,} passes of the next 4; about 11 min left",
    ]


def test_fast_ones_count_images(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([ScoreCAM()])
    run.show(8, 0.1)
    run.finish(8)
    run.now = 20
    run.finish(4)
    run.finish(8)  # at the end the summary says it
    assert capsys.readouterr().out == "12 of 20 images; about 13 s left\n"


def test_silent_without_a_bar_and_gone_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([Occlusion(4, 2)], has_bar=False)
    run.show(5, 100)
    run.finish(5)
    assert capsys.readouterr().out == ""
    other = Run([Occlusion(4, 2)])
    assert other.module.network.original._forward_pre_hooks
    other.progress.on_exception(other.trainer, other.module, RuntimeError())
    assert not other.module.network.original._forward_pre_hooks
