"""Packs a folder of images into tar shards, in WebDataset's layout, for file systems that are slow at many small files.

Every script that evaluates reads them with --data.root, and gives the same rows. The images' bytes stay as they are.
"""

from __future__ import annotations

from pathlib import Path

import _while_importing  # noqa: F401  first
from jsonargparse import ArgumentParser
from rich.progress import track

from datamodules import label_file, pack_folder
from lightning_modules.running import run_main

OPTIONS = {
    "data.root": "Folder of class folders, or of images.",
    "data.boxes": "Folder of box annotations in ILSVRC's XML layout; each goes into the sample of its image.",
    "data.labels": "File that says the class of each image, which goes into its sample.",
    "data.synsets": "In which order data.labels numbers the classes, if it is a list of numbers.",
    "out": "Folder to write, new or empty; the shards appear there when all are written.",
}


def main(args: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", type=str, help=text, required=name in ("data.root", "out"))
    parser.add_argument("--images_per_shard", type=int, default=1000, help="Images in a shard.")
    options = parser.parse_args(args)
    data, out = options.data, Path(options.out).expanduser()
    labels = label_file(data.labels, data.synsets)
    n_images = pack_folder(data.root, out, options.images_per_shard, data.boxes, track, labels)
    print(f"{n_images:,} images in {len(list(out.iterdir())):,} shards. Read them with --data.root {out}")


if __name__ == "__main__":
    run_main(main)
