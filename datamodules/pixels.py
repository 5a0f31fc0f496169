"""What becomes of a loader's batches on their way to a LightningModule."""

from __future__ import annotations

import pytorch_lightning as pl

from datamodules.batch import Batch, with_pixels


class BytesDataModule(pl.LightningDataModule):
    """A LightningDataModule whose loaders give bytes; any LightningModule gets floats in [0, 1] of them.

    Bytes are a quarter of what is sent from the workers, pinned, and moved to the device.
    """

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """The batch with pixels in [0, 1], of the precision of the trainer, which it has given the weights."""
        batch = with_pixels(batch)
        if self.trainer is not None:
            batch["image"] = self.trainer.precision_plugin.convert_input(batch["image"])
        return batch
