"""Packs a folder of images into tar shards, in WebDataset's layout, for file systems that are slow at many small files.

Every script that evaluates reads them with --data.root, and gives the same rows as from the folder. The bytes of the
images stay as they are. The shards appear in --out when all are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.progress import track

from datamodules import pack_folder
from lightning_modules.running.cli import run_main


def main(args: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data.root", type=str, required=True, help="Folder of class folders, or of images.")
    parser.add_argument(
        "--data.boxes",
        type=str,
        help="Folder of box annotations in ILSVRC's XML layout; each goes into the sample of its image.",
    )
    parser.add_argument("--out", type=str, required=True, help="Folder to write; new, or empty.")
    parser.add_argument(
        "--images_per_shard",
        type=int,
        default=1000,
        help="Images in a shard. Reading is fastest with several shards for each worker of each device.",
    )
    options = parser.parse_args(args)
    out = Path(options.out).expanduser()
    boxes = None if options.data.boxes is None else Path(options.data.boxes).expanduser()
    root = Path(options.data.root).expanduser()
    n_images = pack_folder(root, out, options.images_per_shard, boxes, track=_show)
    print(f"{n_images:,} images in {len(list(out.iterdir())):,} shards. Read them with --data.root {out}")


def _show(shards: range) -> Iterable[int]:
    return track(shards, "Packing shards")


if __name__ == "__main__":
    run_main(main)
