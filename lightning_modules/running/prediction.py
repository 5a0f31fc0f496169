"""Prediction on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning_fabric import Fabric
from rich.console import Console
from rich.text import Text

from datamodules.batch import UPRIGHT
from lightning_modules.front.files import predict_files
from lightning_modules.results.report import unturned_note
from lightning_modules.running.arithmetic import compute_to_float32
from lightning_modules.running.description import add_network_options, network_of
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.running.starts import TRAINER_REFUSES
from lightning_modules.text import in_rich


def run_prediction(*, description: str | None, args: list[str] | None = None) -> int:
    """Parses the options and prints the most probable classes of images; returns the exit code.

    Args:
        description: What help says first.
        args: The options; None = those of the command line.
    """
    parser = HelpfulParser(description=description or "", usage="%(prog)s IMAGE... [options]")
    parser.add_argument("images", nargs="+", type=str, help="Image files, folders, or http(s) addresses.")
    add_network_options(parser)
    parser.add_argument("--top_k", type=PositiveInt, default=5, help="Classes to print for each image.")
    parser.add_argument("--batch_size", type=PositiveInt, default=16, help="Images in a batch.")
    parser.add_argument("--num_workers", type=NonNegativeInt, default=0, help="Threads that read images; 0 = the main.")
    parser.add_argument(
        "--exif_orientation", type=bool, default=False, help="Whether images are turned as their EXIF asks."
    )
    parser.add_argument("--accelerator", type=str, default="auto", help="Lightning's name of it: auto, cpu, gpu, ...")
    options = parser.parse_args(args)
    compute_to_float32()
    network = network_of(options)
    try:
        device = Fabric(accelerator=options.accelerator, devices=1).device
    except TRAINER_REFUSES as wrong:
        raise RunError(f"--accelerator {options.accelerator} does not fit: {wrong}") from wrong
    reading = {name: options[name] for name in ("num_workers", "exif_orientation")}
    found = predict_files(network.to(device), options.images, options.top_k, batch_size=options.batch_size, **reading)
    console = Console()
    if found.paths:
        console.print(found.table.rich())
    for note in [note for note in (found.note, *_notes(found.paths, found.file_columns)) if note]:
        console.print(in_rich(note), highlight=False, soft_wrap=True)
    for path, error in found.failed:
        console.print(Text("failed ", "red"), in_rich(f"{path}: {error}"), sep="", soft_wrap=True)
    return 1 if found.failed else 0


def _notes(paths: Sequence[str], file_columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many images were not turned, and notes of files."""
    n = sum(of["exif_orientation"] > UPRIGHT for of in file_columns)
    unturned = [unturned_note(n, "--exif_orientation true")] if n else []
    return unturned + [f"{path}: {of['note']}" for path, of in zip(paths, file_columns) if of["note"]]
