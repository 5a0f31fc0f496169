from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.running.training import Counts


def asking(*orientations: int) -> dict:
    return {"file_columns": [{"exif_orientation": each} for each in orientations], "label": orientations}


def test_images_that_ask_to_be_turned_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of the first epoch, in all processes together, and not those that the sanity check shows too."""
    strategy: Any = SimpleNamespace(reduce=lambda n, reduce_op: 3 * n)
    trainer: Any = SimpleNamespace(sanity_checking=True, strategy=strategy)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    callback = Counts()
    callback.on_validation_batch_end(trainer, module, None, asking(6, 6), 0)
    trainer.sanity_checking = False
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            callback.on_train_batch_end(trainer, module, None, asking(1, 8, 3), 0)
            callback.on_train_batch_end(trainer, module, None, {"image": torch.zeros(1)}, 1)
            callback.on_validation_batch_end(trainer, module, None, asking(2), 0)
            callback.on_train_epoch_end(trainer, module)
    told = [record.message for record in caplog.records if "EXIF" in record.message]
    assert len(told) == 1
    assert told[0].startswith("9 images ask by their EXIF orientation")
