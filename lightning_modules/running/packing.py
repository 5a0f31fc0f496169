"""The options of what packs images."""

from __future__ import annotations

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from datamodules.batch import DataError
from lightning_modules.networks.network import Network
from lightning_modules.running.description import add_network_options, network_of
from lightning_modules.running.parsing.parser import HelpfulParser

TEXTS = {
    "data.root": "Folder of class folders, or of images.",
    "data.boxes": "Folder of box annotations in ILSVRC's XML layout; each goes into the sample of its image.",
    "data.labels": "File that says the class of each image, which goes into its sample.",
    "data.synsets": "In which order data.labels numbers the classes, if it is a list of numbers.",
    "out": "Folder to write, new or empty; the shards appear there when all are written.",
}


def packing_options(*, description: str | None, args: list[str] | None = None) -> tuple[Namespace, Network | None]:
    """Parses the options of packing; gives them, and the network that the images are to be decoded for, if any.

    Args:
        description: What help says first.
        args: The options; None = those of the command line.

    Raises:
        DataError: If what is for decoded shards alone is asked of others.
    """
    usage = "%(prog)s --data.root ROOT --out OUT [options]"
    parser = HelpfulParser(description=description or "", usage=usage)
    for name, text in TEXTS.items():
        parser.add_argument(f"--{name}", type=str, help=text, required=name in ("data.root", "out"))
    parser.add_argument(
        "--images_per_shard", type=int | None, default=None, help="Images in a tar shard; null = 1,000."
    )
    parser.add_argument("--decoded", action="store_true", help="Write what the network sees of the images, not files.")
    parser.add_argument(
        "--data.exif_orientation",
        type=bool,
        default=False,
        help="With --decoded, whether images are turned as their EXIF orientation asks.",
    )
    parser.add_argument(
        "--data.num_workers",
        type=NonNegativeInt | None,
        default=None,
        help="With --decoded, threads that decode images; 0 = the main one, null = as many as CPUs, at most 8.",
    )
    add_network_options(parser)
    options = parser.parse_args(args)
    if options.decoded and options.images_per_shard is not None:
        raise DataError("--images_per_shard is for tar shards: decoded images lie in one file, of any size.")
    options.images_per_shard = 1000 if options.images_per_shard is None else options.images_per_shard
    if options.data.exif_orientation and not options.decoded:
        raise DataError("--data.exif_orientation goes with --decoded: tar shards hold the files as they are.")
    return options, network_of(options) if options.decoded else None
