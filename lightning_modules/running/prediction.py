"""Prediction on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pytorch_lightning import LightningDataModule, Trainer
from rich.console import Console
from rich.text import Text

from datamodules.batch import UPRIGHT, DataError
from lightning_modules.classifier import Prediction, PredictionModule
from lightning_modules.escaping import in_rich
from lightning_modules.judging.named import note_of_named
from lightning_modules.results.report import unturned_note
from lightning_modules.results.tables import Table
from lightning_modules.running.arithmetic import compute_to_float32
from lightning_modules.running.description import add_network_options, network_of
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.running.starts import TRAINER_REFUSES


def run_prediction(
    data_class: Callable[..., LightningDataModule], *, description: str | None, args: list[str] | None = None
) -> int:
    """Parses the options and prints the most probable classes of images; returns the exit code.

    Args:
        data_class: Makes the data of a list of images, ``batch_size``, ``num_workers``, ``input_size``,
            ``resize_size``, ``interpolation`` and ``exif_orientation``.
        description: What help says first.
        args: The options; None = those of the command line.
    """
    parser = HelpfulParser(description=description or "", usage="%(prog)s IMAGE... [options]")
    parser.add_argument("images", nargs="+", type=str, help="Image files, folders, or http(s) addresses.")
    add_network_options(parser)
    parser.add_argument("--top_k", type=int, default=5, help="Classes to print for each image, at least 1.")
    parser.add_argument("--batch_size", type=int, default=16, help="Images in a batch.")
    parser.add_argument("--num_workers", type=int, default=0, help="Threads that read images; 0 = the main one.")
    parser.add_argument(
        "--exif_orientation", type=bool, default=False, help="Whether images are turned as their EXIF asks."
    )
    parser.add_argument("--accelerator", type=str, default="auto", help="Lightning's name of it: auto, cpu, gpu, ...")
    options = parser.parse_args(args)
    for name, least in (("top_k", 1), ("batch_size", 1), ("num_workers", 0)):
        if getattr(options, name) < least:
            raise DataError(f"--{name} must be at least {least}, got {getattr(options, name)}.")
    compute_to_float32()
    network = network_of(options)
    data = data_class(
        options.images,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        input_size=network.input_size,
        resize_size=network.resize_size,
        interpolation=network.interpolation,
        exif_orientation=options.exif_orientation,
    )
    try:
        trainer = Trainer(
            accelerator=options.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except TRAINER_REFUSES as wrong:
        raise RunError(f"--accelerator {options.accelerator} does not fit: {wrong}") from wrong
    batches: list[Prediction] = trainer.predict(PredictionModule(network), data) or []  # type: ignore[assignment]
    console = Console()
    if any(batch["path"] for batch in batches):
        console.print(_table(batches, network.class_names, options.top_k).rich())
    for note in _notes(batches, network.class_names):
        console.print(in_rich(note), highlight=False, soft_wrap=True)
    failed = [failure for batch in batches for failure in batch["failed"]]
    for path, error in failed:
        console.print(Text("failed ", "red"), in_rich(f"{path}: {error}"), sep="", soft_wrap=True)
    return 1 if failed else 0


def _notes(batches: Sequence[Prediction], class_names: Sequence[str]) -> list[str]:
    """How many images are what they are named after, how many were not turned, and notes of files."""
    n = sum(of["exif_orientation"] > UPRIGHT for batch in batches for of in batch["file_columns"])
    unturned = unturned_note(n, "--exif_orientation true")
    notes = [
        f"{path}: {of['note']}"
        for batch in batches
        for path, of in zip(batch["path"], batch["file_columns"])
        if of["note"]
    ]
    paths = [path for batch in batches for path in batch["path"]]
    probabilities = torch.cat([torch.zeros(0, len(class_names)), *(b["probabilities"] for b in batches if b["path"])])
    named = note_of_named(paths, probabilities, class_names)
    return [note for note in (named, unturned, *notes) if note]


def _table(batches: Sequence[Prediction], class_names: Sequence[str], top_k: int) -> Table:
    rows = []
    for batch in batches:
        best = batch["probabilities"].topk(min(top_k, batch["probabilities"].shape[1]))
        for path, indices, values in zip(batch["path"], best.indices.tolist(), best.values.tolist()):
            rows += [
                ["" if rank else path, class_names[index], str(index), f"{value:.1%}"]
                for rank, (index, value) in enumerate(zip(indices, values))
            ]
    return Table(["image", "class", "index", "probability"], rows, n_left=4)
