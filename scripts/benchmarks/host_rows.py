"""What the host does for each image beyond loading it and the network's own passes, which cost next to nothing here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.run_rows import _trainer
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Goal, Result, compare
from datamodules.batch import Batch
from lightning_modules import AttributionModule, GradCAM, RobustnessModule, keep_freed_memory
from lightning_modules.evaluation import EvaluationModule

BUDGETS = ("1/255", "2/255", "4/255", "8/255")
N_IMAGES, BATCH_SIZE = 128, 32


class Instant(nn.Module):
    """A classifier of 1,000 classes that looks at the means of squares of 32 pixels."""

    input_size = 224
    target_layer = "body"
    mean = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
        self.head = nn.Linear(8, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.avg_pool2d(x, 32)).mean((2, 3)))


def host_time(rounds: int) -> list[Result]:
    """Processor time of one thread, an image of a run over images that lie in the memory; rows are written.

    What the same passes of the bare network take is measured in turns with each run, and told; the goal is what is
    left. A clean image costs a forward pass, with the way back to the pixels where it is attacked, an attacked one a
    forward pass. The way back to Grad-CAM's layer is not taken off.
    """
    keep_freed_memory()  # as the scripts do
    network = f"{Instant.__module__}.{Instant.__name__}"
    torch.manual_seed(0)
    modules: dict[str, EvaluationModule] = {
        "attribution, Grad-CAM": AttributionModule("random", [GradCAM()], [], n_figures=0, network=network),
        "robustness, FGSM under four budgets, Grad-CAM": RobustnessModule(
            "random", BUDGETS, methods=[GradCAM()], n_figures=0, network=network
        ),
        "robustness, FGSM under four budgets, no method": RobustnessModule(
            "random", BUDGETS, methods=[], n_figures=0, network=network
        ),
    }
    results = []
    for name, module in modules.items():
        turns = [(_of_a_run(module), _of_the_passes(module)) for _ in range(rounds + 1)][1:]  # the first one warms up
        all_of_it, passes = ([turn[k] for turn in turns] for k in (0, 1))
        work = f"{name}, a network that costs next to nothing: host time of an image"
        times = {OURS: all_of_it, "the bare passes": passes}
        results += compare("host", work, times, [Goal("the bare passes")], unit="ms")
        beyond = {OURS: [run - bare for run, bare in turns], "the goal": [2.0]}
        work = f"{name}: host time of an image beyond loading and these passes"
        results += compare("host", work, beyond, [Goal("the goal", at_most=1.0)], unit="ms")
    return results


def _of_a_run(module: EvaluationModule) -> float:
    """Milliseconds of an image, all in all."""
    batches = [_batch(k) for k in range(0, N_IMAGES, BATCH_SIZE)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(Setting("random", BATCH_SIZE, torch.device("cpu")), Path(folder))
        return _milliseconds_of_an_image(
            lambda: trainer.test(module, DataLoader(batches, batch_size=None), verbose=False)  # type: ignore[arg-type]
        )


def _of_the_passes(module: EvaluationModule) -> float:
    """Milliseconds of an image in the bare network, which gets its images as it likes them: channels_last."""
    images = [_batch(k)["image"].contiguous(memory_format=torch.channels_last) for k in range(0, N_IMAGES, BATCH_SIZE)]
    n_attacked = len(module.eps) if isinstance(module, RobustnessModule) else 0

    def passes() -> None:
        for of_batch in images:
            pixels = of_batch.detach().requires_grad_(n_attacked > 0)
            logits = module.network(pixels)
            if n_attacked:
                torch.autograd.grad(logits[:, 0].sum(), pixels)
            with torch.no_grad():
                for _ in range(n_attacked):
                    module.network(of_batch)

    return _milliseconds_of_an_image(passes)


def _milliseconds_of_an_image(run: Callable[[], Any]) -> float:
    """Processor time of one thread."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others would wait for their work, and count while they do
    try:
        start = time.process_time()
        run()
        return 1000 * (time.process_time() - start) / N_IMAGES
    finally:
        torch.set_num_threads(n_threads)


def _batch(first: int) -> Batch:
    """Images of smooth noise without boxes and figures, from number ``first`` on."""
    n = BATCH_SIZE
    coarse = torch.rand(n, 3, 56, 56, generator=torch.Generator().manual_seed(first))
    return {
        "image": F.interpolate(coarse, (Instant.input_size, Instant.input_size), mode="bilinear"),
        "label": torch.zeros(n, dtype=torch.long),
        "index": torch.arange(first, first + n),
        "path": [f"n01440764/{k}.JPEG" for k in range(first, first + n)],
        "boxes": torch.zeros(0, 4),
        "box_labels": torch.zeros(0, dtype=torch.long),
        "n_boxes": torch.zeros(n, dtype=torch.long),
        "box_error": [None] * n,
        "file_columns": [{"exif_orientation": 1, "note": None}] * n,
        "original": [None] * n,
        "failed": [],
    }
