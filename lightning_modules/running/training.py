"""Training on the command line."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from datamodules.batch import UPRIGHT
from datamodules.writing import naming
from lightning_modules.networks.built_in.vgg16 import load_vgg16, save_vgg16
from lightning_modules.results.report import unturned_note
from lightning_modules.running import stopping
from lightning_modules.running.arithmetic import busy_cores_note
from lightning_modules.running.cli import RunCLI, as_typed
from lightning_modules.running.folder.run_folder import RunError, RunFolder
from lightning_modules.running.starts import WITHOUT_EFFECT_IN_TRAINING
from lightning_modules.text import plain_lines

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
    _refuse_what_trains_nothing(cli)
    run, is_first = RunFolder(cli.out), cli.trainer.is_global_zero
    try:
        if is_first:
            run.lock()
            begun = (cli.out / "checkpoints").exists()
            if begun:
                run.refuse_other_version()
            run.settle("config.yaml", cli.settings, fixed=begun, start_over=f"delete {cli.out}")
            run.begin_session(cli.command)
        if is_first and cli.trainer.strategy.root_device.type == "cpu" and (note := busy_cores_note()):
            rank_zero_info(note)
        _fit(cli)
        if is_first:
            finished = cli.out / "vgg16.pth"
            save_vgg16(load_vgg16(Path(cli.checkpoints.best_model_path)), finished)
            print(plain_lines(_outcome(cli, finished)))
    finally:
        run.unlock()


def _outcome(cli: TrainCLI, finished: Path) -> str:
    """What the network that was kept got right, of which images, and how it is explained."""
    data: Any = cli.datamodule
    accuracy, n = float(cli.checkpoints.best_model_score or 0), cli.counts.n_validated
    epoch = int(Path(cli.checkpoints.best_model_path).stem.removeprefix("epoch=").partition("-")[0])
    root = data.root / "val" if (data.root / "val").is_dir() else data.root
    command = ["python", "scripts/evaluate_attribution.py", "--data.root", str(root), "--model.weights", str(finished)]
    return (
        f"Validation accuracy {accuracy:.2%}: {round(accuracy * n):,} of {n:,} images that it does not learn from. By "
        f"it, epoch {epoch + 1} of {cli.trainer.current_epoch} was the best, and was kept: {finished}\n"
        "Explain what it sees:\n"
        f"{as_typed([*command, '--out', f'{cli.out}_explained'])}"
    )


def _fit(cli: TrainCLI) -> None:
    """Trains from where an earlier run stopped, if there was one."""
    last = cli.out / "checkpoints" / "last.ckpt"
    begun = str(last) if last.exists() else None
    stopping.save_at_the_end(None, lambda: GOES_ON)
    try:
        with naming(cli.out):
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=begun, weights_only=True)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise RunError(
            f"{str(error).splitlines()[0].rstrip('. ')}, as where memory is short: fewer --data.num_workers take less. "
            f"{GOES_ON}"
        ) from error


def _refuse_what_trains_nothing(cli: TrainCLI) -> None:
    trainer = cli.trainer
    for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches"):
        if getattr(trainer, name) == 0:
            raise RunError(f"trainer.{name} 0 trains no network, or validates none: it should be more.")
    for name, value in (
        ("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches),
        ("patience", cli.config["patience"]),
    ):
        if value < 1:
            raise RunError(f"{name} should be at least 1, got {value}.")


class Counts(Callback):
    """Says what is learnt from, before it is, and counts what is validated on.

    Attributes:
        n_validated: Images that the accuracy of the last validation is over, in all processes; kept in checkpoints.
    """

    def __init__(self) -> None:
        self.n_validated = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n_validated": self.n_validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.n_validated = state_dict["n_validated"]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.n_validated = 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.n_validated += len(batch["label"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        n = torch.tensor(self.n_validated, device=pl_module.device)
        self.n_validated = int(trainer.strategy.reduce(n, reduce_op="sum"))

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = pl_module.network.class_names
        rank_zero_info(
            f"{len(data.train_source):,} images to learn from, {len(data.val_source):,} to validate on, of "
            f"{len(names)} classes: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}."
        )


class UnturnedImages(Callback):
    """Says, after an epoch, how many images ask by their EXIF orientation to be turned, and were not."""

    def __init__(self) -> None:
        self.n: int | None = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._count(batch)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._count(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.n is None:  # each epoch has the same images
            return
        n = int(trainer.strategy.reduce(torch.tensor(self.n, device=pl_module.device), reduce_op="sum"))
        self.n = None
        if n:
            rank_zero_info(unturned_note(n))

    def _count(self, batch: Any) -> None:
        if self.n is not None:
            self.n += sum(of["exif_orientation"] > UPRIGHT for of in batch.get("file_columns", ()))


class TrainCLI(RunCLI):
    trainer_options = (
        *("max_epochs", "max_steps", "max_time", "gradient_clip_val", "accumulate_grad_batches"),
        *("limit_train_batches", "limit_val_batches"),
        *(name for name in RunCLI.trainer_options if name != "limit_test_batches"),
    )
    without_effect = WITHOUT_EFFECT_IN_TRAINING

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--patience", type=int, default=5, help="Epochs without better accuracy before stopping.")
        data_class = self._datamodule_class
        package = inspect.getmodule(data_class).__name__.partition(".")[0]  # type: ignore[union-attr]
        parser.set_defaults({"data": {"class_path": f"{package}.{data_class.__name__}"}})
        parser.link_arguments("data", "model.class_names", _class_names, apply_on="instantiate")
        parser.link_arguments("data", "model.input_size", _input_size, apply_on="instantiate")
        parser.link_arguments("data", "model.resize_size", _resize_size, apply_on="instantiate")
        parser.link_arguments("data", "model.interpolation", _interpolation, apply_on="instantiate")

    def callbacks(self) -> list[Callback]:
        folder = self.out / "checkpoints"
        self.counts = Counts()
        self.checkpoints = ModelCheckpoint(folder, filename="{epoch}", monitor="val/accuracy", mode="max")
        # The save_last of the best's callback is of the last best epoch; a run goes on from the last of all.
        last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
        return [
            self.counts,
            UnturnedImages(),
            self.checkpoints,
            last,
            EarlyStopping("val/accuracy", mode="max", patience=self.config["patience"]),
        ]


def _class_names(data: Any) -> list[str]:
    return data.class_names or data.train_class_names()


def _input_size(data: Any) -> int:
    return data.preprocess.input_size


def _resize_size(data: Any) -> int:
    return data.preprocess.short_side


def _interpolation(data: Any) -> str:
    return data.preprocess.interpolation
