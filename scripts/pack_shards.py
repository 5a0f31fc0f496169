"""Packs a folder of images into tar shards, for file systems that are slow at many small files, or decoded ones.

Every script that evaluates reads them with --data.root, and gives the same rows. In tar shards the images' bytes stay
as they are. With --decoded they are decoded for a network once, so that a fast device need not wait for the decoder.
"""

from __future__ import annotations

from pathlib import Path

import _while_importing  # noqa: F401  first
from rich.progress import track

from datamodules import Preprocess, label_file, pack_decoded, pack_folder
from lightning_modules.running import packing_options, run_main


def main(args: list[str] | None = None) -> None:
    options, network = packing_options(description=__doc__, args=args)
    data, out = options.data, Path(options.out).expanduser()
    how = data.boxes, track, label_file(data.labels, data.synsets)
    if network is None:
        n_images = pack_folder(data.root, out, options.images_per_shard, *how)
    else:
        sees = Preprocess(**network.preprocessing)
        n_images = pack_decoded(data.root, out, sees, *how, data.exif_orientation, data.num_workers)
    sizes = [file.stat().st_size for file in out.iterdir()]
    print(f"{n_images:,} images in {len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB. Read them with --data.root {out}")


if __name__ == "__main__":
    run_main(main)
