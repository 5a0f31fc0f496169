from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import ImageFolderDataModule
from datamodules.batch import boxes_of, with_pixels
from lightning_modules import (
    ActivationMaximizationModule,
    AttributionModule,
    GradCAM,
    InputError,
    Network,
    RobustnessModule,
    SmoothGrad,
    as_network,
)
from lightning_modules.gradients.fitting import is_out_of_memory, results_of_parts


def step(most: int, sizes: list[int]) -> Any:
    """A step that gives the paths, and has memory for so many images."""

    def step(batch: Any) -> list[str]:
        sizes.append(len(batch["image"]))
        if len(batch["image"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nDetails")
        return [*batch["path"], *batch["failed"]]

    return step


def a_batch(n: int) -> dict[str, Any]:
    return {"image": torch.zeros(n, 3, 2, 2), "path": list("abcdefg")[:n], "failed": ["bad"]}


def test_a_batch_that_fits_is_computed_once() -> None:
    sizes: list[int] = []
    assert results_of_parts(step(7, sizes), a_batch(7)) == [(0, [*"abcdefg", "bad"])]
    assert sizes == [7]


def test_halves_of_halves() -> None:
    sizes: list[int] = []
    with pytest.warns(UserWarning, match=r"A batch of 7 does not fit .* A data\.batch_size of 3") as told:
        parts = results_of_parts(step(2, sizes), a_batch(7))
    assert len(told) == 1
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert parts == [(0, ["a", "bad"]), (1, ["b", "c"]), (3, ["d", "e"]), (5, ["f", "g"])]


def test_boxes_go_with_their_images() -> None:
    n_boxes = torch.tensor([2, 0, 1, 0, 3, 1, 1])
    image = torch.arange(7).repeat_interleave(n_boxes)
    batch = a_batch(7) | {"boxes": image[:, None] + torch.zeros(8, 4), "box_labels": image, "n_boxes": n_boxes}

    def boxes(batch: Any) -> list[tuple[list[int], list[int]]]:
        if len(batch["path"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        found = [boxes_of(batch, i) for i in range(len(batch["path"]))]
        return [(of_image[:, 3].int().tolist(), labels.tolist()) for of_image, labels in found]

    with pytest.warns(UserWarning, match="does not fit"):
        parts = results_of_parts(boxes, batch)
    assert [own for _, part in parts for own in part] == [([i] * n, [i] * n) for i, n in enumerate(n_boxes.tolist())]


def test_a_single_image_that_does_not_fit() -> None:
    with (
        pytest.warns(UserWarning, match="does not fit"),
        pytest.raises(InputError, match=r"memory does not suffice for a single image: CUDA out of memory.*GiB\.$"),
    ):
        results_of_parts(step(0, []), a_batch(2))


def test_other_errors_are_raised_as_they_are() -> None:
    def broken(batch: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        results_of_parts(broken, a_batch(4))


class Hungry(torch.nn.Module):
    """A network that has memory for a certain number of images."""

    def __init__(self, network: Any, most: int) -> None:
        super().__init__()
        self.network = network
        self.most = most
        self.target_layer = "network.features.29"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network(images)


def hungry(network: Network, most: int) -> Network:
    options = {name: getattr(network, name) for name in ("class_names", "input_size", "resize_size")}
    mean, std = (values.flatten().tolist() for values in (network.mean, network.std))
    module = Hungry(network.module, 5).eval()
    made = as_network(module, mean=mean, std=std, **options)
    module.most = most  # once it was looked at
    return made


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(lambda: AttributionModule("shapes", [GradCAM(), SmoothGrad(2, max_batch=2)]), id="attribution"),
        pytest.param(lambda: RobustnessModule("shapes", ["2/255"]), id="robustness"),
    ],
)
def test_a_modules_rows_are_those_of_the_whole_batch(shapes: Path, module: Callable[[], Any]) -> None:
    data = ImageFolderDataModule(str(shapes / "val"), batch_size=4, num_workers=0, input_size=112, resize_size=112)
    data.setup("test")
    batch = with_pixels(next(iter(data.test_dataloader())))
    module = module()
    whole = module.test_step(batch, 0)["rows"]
    network = module.network
    module.network = hungry(network, 3)
    with pytest.warns(UserWarning, match="A batch of 4 does not fit"):
        halves = module.test_step(batch, 0)["rows"]
    module.network = network
    key = lambda row: (row["path"], row.get("method"), row.get("eps"))  # noqa: E731
    for a, b in zip(sorted(whole, key=key), sorted(halves, key=key), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == (pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value), name


def test_synthesis_leaves_the_number_to_the_user() -> None:
    module = ActivationMaximizationModule("shapes", steps=1, n_figures=0, images_per_pass=2)
    module.network = hungry(module.network, 1)
    seed = {"seed": torch.zeros(2, dtype=torch.long), "index": torch.arange(2), "layer": [None, None]}
    batch = {"target": torch.arange(2), "path": ["a.png", "b.png"], "name": ["a", "b"], **seed}
    with pytest.raises(InputError, match=r"does not suffice for 2 images at a time.*model\.images_per_pass"):
        module.test_step(batch, 0)


@pytest.mark.parametrize(
    ("error", "is_of_memory"),
    [
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_how_libraries_say_that_memory_is_short(error: Exception, is_of_memory: bool) -> None:
    assert is_out_of_memory(error) == is_of_memory
