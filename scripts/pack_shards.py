"""Packs a folder of images into tar shards, in WebDataset's layout, for file systems that are slow at many small files.

Every script that evaluates reads them with --data.root, and gives the same rows as from the folder. The bytes of the
images stay as they are. The shards appear in --out when all are written.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.progress import track

from datamodules import pack_folder
from lightning_modules.running import run_main

OPTIONS = {
    "data.root": ("Folder of class folders, or of images.", {"required": True}),
    "data.boxes": ("Folder of box annotations in ILSVRC's XML layout; each goes into the sample of its image.", {}),
    "out": ("Folder to write; new, or empty.", {"required": True}),
}


def main(args: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    for name, (text, more) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=str, help=text, **more)
    per_shard = "Images in a shard. Reading is fastest with several shards for each worker of each device."
    parser.add_argument("--images_per_shard", type=int, default=1000, help=per_shard)
    options = parser.parse_args(args)
    root, out = Path(options.data.root).expanduser(), Path(options.out).expanduser()
    boxes = None if options.data.boxes is None else Path(options.data.boxes).expanduser()
    n_images = pack_folder(root, out, options.images_per_shard, boxes, partial(track, description="Packing shards"))
    print(f"{n_images:,} images in {len(list(out.iterdir())):,} shards. Read them with --data.root {out}")


if __name__ == "__main__":
    run_main(main)
