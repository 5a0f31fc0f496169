"""Loaders give bytes; LightningModules get floats, equal to torchvision's to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torchvision.models import VGG16_Weights
from torchvision.transforms import functional as F

from datamodules import DataError, ImageFolderDataModule, ImageSourcesDataModule
from datamodules.batch import pixels_of, with_pixels

NEEDS_CUDA = pytest.mark.cuda
BYTES = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_each_byte_equals_to_tensors(device: str) -> None:
    expected = F.to_tensor(BYTES.numpy()[:, None, None]).flatten()
    found = pixels_of(BYTES.to(device))
    assert found.dtype == torch.float32
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(pixels_of(BYTES.expand(3, 256).to(device)).cpu(), expected.expand(3, 256))


def test_floats_stay_as_they_are() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        images = torch.rand(2, 3, 4, 4, dtype=dtype)
        assert pixels_of(images) is images


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.bool])
def test_other_integers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(DataError, match=f"uint8, or floating-point in .0, 1., got {dtype}"):
        pixels_of(torch.ones(2, 3, 4, 4, dtype=dtype))


def test_a_batch_is_not_changed(tmp_path: Path) -> None:
    batch: Any = {"image": BYTES.view(1, 1, 16, 16), "path": ["a"]}
    assert with_pixels(batch)["image"].dtype == torch.float32
    assert batch["image"].dtype == torch.uint8


class Strangers(pl.LightningModule):
    """A module that knows nothing of bytes, and has a weight, so that it has a precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: dict[str, list[torch.Tensor]] = {}

    def keep(self, batch: Any, step: str) -> None:
        self.seen.setdefault(step, []).append(batch["image"])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.keep(batch, "train")
        return self.layer(torch.ones(1, 1, dtype=self.dtype)).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.keep(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.keep(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> list[str]:
        self.keep(batch, "predict")
        return batch["path"]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("train/cat/a.png", "val/cat/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("64-true", torch.float64)])
def test_any_module_gets_pixels_of_the_trainers_precision(images: Path, precision: Any, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"accelerator": "cpu", "precision": precision, "max_epochs": 1, "enable_model_summary": False}
    module = Strangers()
    pl.Trainer(**options).fit(module, ImageFolderDataModule(str(images), num_workers=0))
    pl.Trainer(**options).test(module, ImageFolderDataModule(str(images / "val"), num_workers=0), verbose=False)
    pl.Trainer(**options).predict(module, ImageSourcesDataModule([str(images / "val")]))
    transforms = VGG16_Weights.IMAGENET1K_V1.transforms()
    transforms.mean, transforms.std = [0, 0, 0], [1, 1, 1]
    expected = transforms(Image.open(images / "val/cat/b.png"))[None].to(dtype)
    assert module.seen.keys() == {"train", "val", "test", "predict"}
    for step, seen in module.seen.items():
        for batch in seen:
            assert batch.dtype == dtype, step
            if step != "train":
                assert torch.equal(batch, expected), step
            assert 0 <= batch.min() < batch.max() <= 1, step


def test_all_loaders_give_bytes(images: Path) -> None:
    data = ImageFolderDataModule(str(images), num_workers=0)
    data.setup("fit")
    of_val = ImageFolderDataModule(str(images / "val"), num_workers=0)
    of_val.setup("test")
    sources = ImageSourcesDataModule([str(images / "val")])
    loaders = (data.train_dataloader(), data.val_dataloader(), of_val.test_dataloader(), sources.predict_dataloader())
    for loader in loaders:
        (batch,) = loader
        assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (1, 3, 224, 224))
