"""VGG16 as a classifier: predicting, and training on a user's own folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassAccuracy

from datamodules.batch import Batch
from lightning_modules.errors import InputError
from lightning_modules.evaluation import refuse_rounded_weights
from lightning_modules.networks.built_in.vgg16 import VGG16, load_vgg16
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.results.rows import errors_of_logits

LARGEST = 16
"""Times VGG16's channels, or its hidden features: beyond it is a slip of the keyboard."""


class ClassifierModule(pl.LightningModule):
    """Fine-tunes VGG16, or trains one of any width from scratch.

    Args:
        class_names: Name of each class, in the order of the labels.
        weights: What to start from: IMAGENET1K_V1 (torchvision's), the path of a .pth or .ckpt file, or random. The
            last layer is replaced unless the weights have these very classes.
        width: Factor on the channels of every convolution; 1 is VGG16. For random weights only.
        hidden_features: Width of the two hidden fully connected layers. For random weights only.
        input_size: Height and width in pixels of the images, at least 32. For random weights only.
        resize_size: Length in pixels of the shorter side before the crop. For random weights only.
        batch_norm: Whether to train with batch norms, without which VGG16 does not learn from scratch. They are
            folded into the convolutions at the end. For random weights only.
        learning_rate: Highest learning rate of AdamW, under a one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        dropout: Probability of dropping a hidden unit of the fully connected layers while training, in [0, 1).
        label_smoothing: Share of the target probability that is spread over all classes, in [0, 1).
        seed: Seed of random weights and of a new last layer.
        interpolation: How images are resized: bilinear, bicubic, ...
        crop: How images are brought to a square: center, squash, ...

    Example:
        >>> module = ClassifierModule(["cat", "dog"], weights="random", width=0.05, hidden_features=16, input_size=32)
        >>> module(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str = "IMAGENET1K_V1",
        width: float = 1.0,
        hidden_features: int = 4096,
        input_size: int = 224,
        resize_size: int = 256,
        batch_norm: bool = True,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        dropout: float = 0.5,
        label_smoothing: float = 0.0,
        seed: int = 0,
        interpolation: str = "bilinear",
        crop: str = "center",
    ) -> None:
        super().__init__()
        class_names = list(class_names)
        for name, value, is_right, wanted in (
            ("width", width, 0 < width <= LARGEST, f"above 0 and at most {LARGEST}"),
            ("hidden_features", hidden_features, 1 <= hidden_features <= 4096 * LARGEST, f"1 to {4096 * LARGEST:,}"),
            ("learning_rate", learning_rate, 0 < learning_rate < math.inf, "a number above 0"),
            ("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "a number of at least 0"),
            ("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1"),
            ("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "at least 0 and below 1"),
            ("seed", seed, 0 <= seed < 2**63, "a whole number of at least 0"),
        ):
            if not is_right:
                raise InputError(f"model.{name} should be {wanted}, got {value}.")
        if weights == "random":
            vgg16 = VGG16(
                class_names,
                width=width,
                hidden_features=hidden_features,
                input_size=input_size,
                resize_size=resize_size,
                batch_norm=batch_norm,
            ).initialize(seed)
        else:
            vgg16 = _with_classes(load_vgg16(weights).module, class_names, seed)
        vgg16.interpolation, vgg16.crop = interpolation, crop
        self.network = vgg16.network().train().requires_grad_(True)
        for module in vgg16.classifier:
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.train_accuracy = MulticlassAccuracy(len(class_names), average="micro")
        self.val_accuracy = MulticlassAccuracy(len(class_names), average="micro")
        self.val_failed = SumMetric()

    def forward(self, images: Tensor) -> Tensor:
        with trusted():
            return self.network(images)

    def on_fit_start(self) -> None:
        refuse_rounded_weights(self.network)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits, loss = self._logits_and_loss(batch)
        n = len(logits)
        if n:
            self.train_accuracy(logits, batch["label"])
            self.log("train/loss", loss, prog_bar=True, batch_size=n)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True, prog_bar=True, batch_size=n)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, loss = self._logits_and_loss(batch)
        n = len(logits)
        if n:
            self.val_accuracy(logits, batch["label"])
        self.val_failed.update((~logits.isfinite().all(1)).sum())
        self.log("val/loss", loss, batch_size=n, sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True, batch_size=n)

    def _logits_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the images that could be read; of none, no logits, and a loss of 0 whose gradients are 0.

        Other processes, whose batches hold images, wait for these gradients, and for what is logged.
        """
        if not len(batch["image"]):
            parameters = list(self.network.parameters())
            return parameters[0].new_zeros(0, len(self.network.class_names)), 0 * torch.stack(
                [p.sum() for p in parameters]
            ).sum()
        logits = self(batch["image"].contiguous(memory_format=torch.channels_last))
        return logits, self.loss(logits, batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Stops before a network that no longer gives numbers has an accuracy, which could be the best.

        Raises:
            InputError: If the logits of any image were NaN or infinite.
        """
        failed = int(self.val_failed.compute())
        self.val_failed.reset()
        if failed:
            raise InputError(
                f"The training has diverged: after epoch {self.current_epoch} the network's logits are NaN or infinite "
                f"of {failed:,} images to validate on. The best epoch before is in RUN/checkpoints; start over in "
                "another RUN with a lower model.learning_rate."
            )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # What load_vgg16 needs to build the same network from this file alone.
        checkpoint["vgg16"] = self.network.module.description()


class Prediction(TypedDict):
    """What a batch of N images is taken for.

    Attributes:
        probabilities: Of all classes, ``(N, n_classes)``.
        path: What each image is called.
        file_columns: Of each image what the rows hold of its file; see :class:`~datamodules.batch.Batch`.
        failed: (path, error) of each image that could not be read, or whose logits are NaN or infinite.
    """

    probabilities: Tensor
    path: list[str]
    file_columns: list[dict[str, Any]]
    failed: list[tuple[str, str]]


class PredictionModule(pl.LightningModule):
    """Predicts with a network as it is.

    Args:
        network: From pixels in [0, 1] to logits.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        with trusted():
            logits = self.network(images).float() if len(images) else images.new_zeros(0, 1)
        errors = errors_of_logits(logits)
        usable = [i for i, error in enumerate(errors) if error is None]
        return {
            "probabilities": self.network.probabilities(logits[usable]),
            "path": [batch["path"][i] for i in usable],
            "file_columns": [batch["file_columns"][i] for i in usable],
            "failed": [*((path, error) for path, error in zip(batch["path"], errors) if error), *batch["failed"]],
        }


def _with_classes(network: VGG16, class_names: Sequence[str], seed: int) -> VGG16:
    """The network with a last layer for ``class_names``; its own, if these are its classes."""
    if network.class_names != class_names:
        network.class_names = list(class_names)
        last = nn.Linear(network.hidden_features, len(class_names))
        nn.init.normal_(last.weight, 0, 0.01, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(last.bias)
        network.classifier[-1] = last
    return network
