"""Training on the command line."""

from __future__ import annotations

import traceback
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from datamodules.batch import UPRIGHT
from datamodules.writing import naming
from lightning_modules.networks.built_in.vgg16 import load_vgg16, save_vgg16
from lightning_modules.results.report import unturned_note
from lightning_modules.running import stopping
from lightning_modules.running.cli import RunCLI, as_typed
from lightning_modules.running.folder.run_folder import RunError, RunFolder
from lightning_modules.running.starts import WITHOUT_EFFECT_IN_TRAINING
from lightning_modules.text import plain_lines

LOST_A_READER = "Where memory is short, fewer processes that read images, --data.num_workers, take less."
GOES_ON = "The same command goes on after the last epoch that was whole."


def run_training(
    model_class: type[LightningModule],
    data_class: type[LightningDataModule],
    *,
    description: str | None,
    args: list[str] | None = None,
) -> None:
    """Parses the options, trains a VGG16, and writes the best one to ``RUN/vgg16.pth``.

    Args:
        model_class: Holds the VGG16 as ``network``.
        data_class: The data unless ``--data`` names another class, one of its kind.
        description: What help says first.
        args: The options; None = those of the command line.
    """
    cli = TrainCLI(
        model_class,
        data_class,
        any_data=True,
        description=description or "",
        args=args,
        max_epochs=10,
        log_every_n_steps=1,
        enable_model_summary=False,  # of which the count of operations is 0
    )
    for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches", "accumulate_grad_batches"):
        if getattr(cli.trainer, name) == 0:
            raise RunError(f"trainer.{name} 0 trains no network, or validates none: it should be more.")
    run, is_first = RunFolder(cli.out), cli.trainer.is_global_zero
    try:
        if is_first:
            run.lock()
            begun = (cli.out / "checkpoints").exists()
            if begun:
                run.refuse_other_version()
            run.settle("config.yaml", cli.settings, fixed=begun, start_over=f"delete {cli.out}")
            run.begin_session(cli.command)
        last = cli.out / "checkpoints" / "last.ckpt"  # where an earlier run stopped
        begun_at = str(last) if last.exists() else None
        stopping.save_at_the_end(None, lambda: GOES_ON)
        with naming(cli.out):
            try:
                cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=begun_at, weights_only=True)
            except RuntimeError as error:
                if not _is_of_the_loader(error):
                    raise
                raise RunError(f"{str(error).strip(' .')}. {LOST_A_READER} {GOES_ON}") from error
        if is_first:
            finished = cli.out / "vgg16.pth"
            save_vgg16(load_vgg16(Path(cli.checkpoints.best_model_path)), finished)
            print(plain_lines(_outcome(cli, finished)))
    finally:
        run.unlock()


def _is_of_the_loader(error: RuntimeError) -> bool:
    """Whether PyTorch's loader raised it by itself, as where one of its processes was killed."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("torch.utils.data")


def _outcome(cli: TrainCLI, finished: Path) -> str:
    """What the network that was kept got right, of which images, and how it is explained."""
    data: Any = cli.datamodule
    accuracy = float(cli.checkpoints.best_model_score or 0)
    epoch = int(Path(cli.checkpoints.best_model_path).stem.removeprefix("epoch=").partition("-")[0])
    root = data.root / "val" if (data.root / "val").is_dir() else data.root
    command = ["python", "scripts/evaluate_attribution.py", "--data.root", str(root), "--model.weights", str(finished)]
    return (
        f"Validation accuracy {accuracy:.2%}, of images that it does not learn from. By "
        f"it, epoch {epoch + 1} of {cli.trainer.current_epoch} was the best, and was kept: {finished}\n"
        "Explain what it sees:\n"
        f"{as_typed([*command, '--out', f'{cli.out}_explained'])}"
    )


class Counts(Callback):
    """Says what is learnt from, and which images ask by their EXIF orientation to be turned, and were not.

    Attributes:
        n_unturned: Of the first epoch; None = that is over, and it was said.
    """

    def __init__(self) -> None:
        self.n_unturned: int | None = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = pl_module.network.class_names
        rank_zero_info(
            f"{len(data.train_source):,} images to learn from, {len(data.val_source):,} to validate on, of "
            f"{len(names)} classes: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}."
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.n_unturned is not None:
            self.n_unturned += sum(of["exif_orientation"] > UPRIGHT for of in batch.get("file_columns", ()))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.n_unturned is not None:  # each epoch has the same images
            counted = torch.tensor(self.n_unturned, device=pl_module.device)
            n = int(trainer.strategy.reduce(counted, reduce_op="sum"))
            self.n_unturned = None
            if n:
                rank_zero_info(unturned_note(n))


class TrainCLI(RunCLI):
    trainer_options = (
        *("max_epochs", "max_steps", "max_time", "gradient_clip_val", "accumulate_grad_batches"),
        *("limit_train_batches", "limit_val_batches"),
        *(name for name in RunCLI.trainer_options if name != "limit_test_batches"),
    )
    without_effect = WITHOUT_EFFECT_IN_TRAINING

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--patience", type=PositiveInt, default=5, help="Epochs without better accuracy.")
        assert self.datamodule_class is not None
        package = self.datamodule_class.__module__.partition(".")[0]
        parser.set_defaults({"data": {"class_path": f"{package}.{self.datamodule_class.__name__}"}})
        parser.link_arguments("data", "model.class_names", _class_names, apply_on="instantiate")
        for name in ("input_size", "resize_size", "interpolation", "crop"):
            known = attrgetter(f"preprocess.{'short_side' if name == 'resize_size' else name}")
            parser.link_arguments("data", f"model.{name}", known, apply_on="instantiate")

    def callbacks(self) -> list[Callback]:
        folder = self.out / "checkpoints"
        self.counts = Counts()
        self.checkpoints = ModelCheckpoint(folder, filename="{epoch}", monitor="val/accuracy", mode="max")
        # The save_last of the best's callback is of the last best epoch; a run goes on from the last of all.
        last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
        return [
            self.counts,
            self.checkpoints,
            last,
            EarlyStopping("val/accuracy", mode="max", patience=self.config["patience"]),
        ]


def _class_names(data: Any) -> list[str]:
    return data.class_names or data.train_class_names()
