"""Every kind of source that there is, and which of them lies somewhere."""

from __future__ import annotations

from pathlib import Path

from datamodules.sources.decoded import DecodedListing
from datamodules.sources.folder import FolderListing
from datamodules.sources.listing import Listing, read_arrow
from datamodules.sources.shards import ShardListing

KINDS: tuple[type[Listing], ...] = (ShardListing, DecodedListing, FolderListing)
"""In the order in which they are asked; the last one takes whatever there is, if only to say what is wrong with it."""


def kind_at(root: Path) -> type[Listing]:
    """How the images at ``root`` lie."""
    return next(kind for kind in KINDS if kind.lies_at(root))


def load_listing(file: Path) -> Listing:
    """Maps a listing of any kind, which its ``save`` wrote, into memory."""
    metadata = read_arrow(file).schema.metadata
    return next(kind for kind in KINDS if kind.key in metadata).load(file)
