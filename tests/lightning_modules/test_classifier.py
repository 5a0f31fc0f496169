from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from datamodules.reader import NO_IMAGES
from lightning_modules import InputError
from lightning_modules.classifier import ClassifierModule


def validate(module: ClassifierModule) -> float:
    """The accuracy that two batches of images are given."""
    batch = {"image": torch.rand(4, 3, 32, 32), "label": torch.tensor([0, 1, 0, 1])}
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    (metrics,) = trainer.validate(module, DataLoader([batch, batch], batch_size=None), verbose=False)
    return metrics["val/accuracy"]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:GPU available")
def test_a_network_without_logits_has_no_accuracy() -> None:
    """By the arbitrary class of NaN it would be 50 %, and perhaps the best."""
    module = ClassifierModule(["a", "b"], "random", 0.05, 8, 32)
    assert 0 <= validate(module) <= 1
    with torch.no_grad():
        module.network.module.classifier[-1].bias[0] = torch.nan
    with pytest.raises(InputError, match=r"diverged: after epoch 0 .* of 8 images .* lower model\.learning_rate"):
        validate(module)


def test_a_batch_of_which_no_image_could_be_read_changes_nothing() -> None:
    """It has gradients all the same, which the other processes of a training wait for."""
    module = ClassifierModule(["a", "b"], "random", 0.05, 8, 32)
    batch: Any = {"image": NO_IMAGES, "label": torch.zeros(0, dtype=torch.long)}
    logged = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
        loss = module.training_step(batch, 0)
        module.validation_step(batch, 0)
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in module.network.parameters())
    # Of metrics all processes wait for each other, so each names them.
    assert list(logged) == ["train/accuracy", "val/loss", "val/accuracy"]
