from __future__ import annotations

import pickle
import tarfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pytest

from datamodules import DataError, FolderListing, ImageFolderDataModule, Listing, Preprocess, pack_decoded
from datamodules.batch import Batch
from datamodules.reading.samples import SampleReader, collate
from datamodules.sources import kinds
from datamodules.sources.decoded import DecodedListing
from datamodules.sources.kinds import KINDS, kind_at, load_listing
from datamodules.sources.listing import LoaderOptions, Share
from datamodules.sources.shards import ShardListing
from tests.images import make_images


def test_what_lies_there_decides(tmp_path: Path) -> None:
    make_images(tmp_path / "folder", "cat/a.png")
    make_images(tmp_path / "both", "cat/a.png")
    pack_decoded(tmp_path / "folder", tmp_path / "decoded", Preprocess(8, 8), num_workers=0)
    make_images(tmp_path / "with decoded", "cat/a.png")
    (tmp_path / "with decoded/0.decoded.arrow").touch()
    for folder in ("both", "shards"):
        (tmp_path / folder).mkdir(exist_ok=True)
        with tarfile.open(tmp_path / folder / "0.tar", "w") as tar:
            tar.add(tmp_path / "folder/cat/a.png", "cat/a.png")
    for kind, roots in {
        FolderListing: ("folder", "both", "nowhere", "with decoded", "decoded/listing.arrow"),
        ShardListing: ("shards", "shards/0.tar", "shards/{0..1}.tar", "nowhere.tgz"),
        DecodedListing: ("decoded", "decoded/00000.decoded.arrow", "{0..1}.decoded.arrow"),
    }.items():
        assert [kind_at(tmp_path / root) for root in roots] == [kind] * len(roots)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_listing_is_loaded_as_its_kind(tmp_path: Path, kind: type[Listing]) -> None:
    make_images(tmp_path / "folder", "cat/a.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "folder/cat/a.png", "cat/a.png")
    pack_decoded(tmp_path / "folder", tmp_path / "decoded", Preprocess(), num_workers=0)
    root = tmp_path / {FolderListing: "folder", ShardListing: "x.tar", DecodedListing: "decoded"}[kind]
    listing = kind_at(root).found_at(root, ["cat"]).without({"cat/a.png"})
    listing.save(tmp_path / "listing.arrow")
    for loaded in (load_listing(tmp_path / "listing.arrow"), pickle.loads(pickle.dumps(listing))):
        assert type(loaded) is kind
        assert loaded.labels.tolist() == [0]
        assert loaded.fingerprint() == listing.fingerprint()
        options: LoaderOptions = {"batch_size": 1, "num_workers": 0, "pin_memory": False}
        assert list(loaded.loader(SampleReader(Preprocess()), Share(), options)) == []


class TwiceListing(Listing):
    """A third kind, as somebody would add it: a text file that names images, each of which is read twice."""

    key: ClassVar[bytes] = b"twice"
    is_counted: ClassVar[bool] = False

    def __init__(self, root: Path, file: Path | None = None) -> None:
        self.root, self.file, self.labels = root, file, np.array([-1])

    @classmethod
    def lies_at(cls, root: Path) -> bool:
        return root.suffix == ".txt"

    @classmethod
    def found_at(cls, root: Path, class_names: Sequence[str] | None) -> TwiceListing:
        if not root.exists():
            raise DataError(f"{root} does not exist.")
        return cls(root)

    def without(self, done: Collection[str]) -> Self:
        return self

    def fingerprint(self) -> dict[str, Any]:
        return {"n_lines": len(self.root.read_text().splitlines())}

    def loader(self, reader: SampleReader, share: Share, options: LoaderOptions) -> Iterator[Batch]:
        for index, line in enumerate(self.root.read_text().splitlines()):
            yield collate([reader.read(line, f"{line}, {k}", -1, index) for k in range(2)])

    def to_table(self) -> pa.Table:
        return pa.table({}, metadata={self.key: str(self.root)})

    @classmethod
    def from_table(cls, table: pa.Table, file: Path) -> Self:
        return cls(Path(table.schema.metadata[cls.key].decode()), file)


def test_a_third_kind_is_a_class_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path, "a.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.png\n")
    monkeypatch.setattr(kinds, "KINDS", (TwiceListing, *KINDS))
    data = ImageFolderDataModule(str(tmp_path / "list.txt"), num_workers=0)
    data.listing_file = tmp_path / "run/listing.arrow"
    assert not data.limit_to(2)
    assert data.fingerprint() == {"n_lines": 1}
    data.prepare_data()
    data.setup("test")
    assert data.listing.file == data.listing_file
    (batch,) = data.test_dataloader()
    assert batch["path"] == [f"{tmp_path}/a.png, {k}" for k in range(2)]
    with pytest.raises(DataError, match=r"other\.txt does not exist"):
        ImageFolderDataModule(str(tmp_path / "other.txt")).fingerprint()
