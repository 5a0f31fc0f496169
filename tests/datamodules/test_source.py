from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pytest

from datamodules import (
    DataError,
    FolderSource,
    ImageFolderDataModule,
    ListingOptions,
    Preprocess,
    Source,
    modules,
    pack_decoded,
)
from datamodules.decoded import DecodedSource
from datamodules.modules import KINDS, kind_at
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.tar import TarSource
from tests.datamodules.trainers import fake_trainer
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
        FolderSource: ("folder", "both", "nowhere", "with decoded", "decoded/images.npy"),
        TarSource: ("shards", "shards/0.tar", "shards/{0..1}.tar", "shards/*.tar", "nowhere.tgz"),
        DecodedSource: ("decoded", "0.decoded.arrow"),
    }.items():
        assert [kind_at(tmp_path / root) for root in roots] == [kind] * len(roots)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_source_is_loaded_as_its_kind(tmp_path: Path, kind: type[Source]) -> None:
    make_images(tmp_path / "folder", "cat/a.png", "dog/b.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("cat/a.png", "dog/b.png"):
            tar.add(tmp_path / "folder" / name, name)
    pack_decoded(tmp_path / "folder", tmp_path / "decoded", Preprocess(), num_workers=0)
    root = tmp_path / {FolderSource: "folder", TarSource: "x.tar", DecodedSource: "decoded"}[kind]
    source = kind_at(root).open(root, ListingOptions(["dog", "cat"])).without({"cat/a.png"})
    source.save(tmp_path / "listing.arrow")
    reader = SampleReader(Preprocess())
    for loaded in (Source.load(tmp_path / "listing.arrow"), pickle.loads(pickle.dumps(source))):
        assert type(loaded) is kind
        assert loaded.labels.tolist() == [1, 0]
        assert loaded.todo().tolist() == [1]
        assert loaded.fingerprint() == source.fingerprint()
        sample = loaded.read(1, reader)
        assert "failed" not in sample
        assert (sample["path"], sample["label"]) == ("dog/b.png", 0)


class ListedSource(Source):
    """A fourth kind, as somebody would add it: a text file that names images."""

    kind = "list"

    @classmethod
    def matches(cls, root: Path) -> bool:
        return root.suffix == ".txt"

    @classmethod
    def list_images(cls, root: Path, options: ListingOptions) -> Self:
        if not root.exists():
            raise DataError(f"{root} does not exist.")
        paths = pa.array(root.read_bytes().splitlines(), pa.large_binary())
        return cls.make(paths, np.full(len(paths), -1), {})

    def read_one(self, i: int, reader: SampleReader) -> Sample | Failure:
        return reader.read(self.path(i), self.path(i), int(self.labels[i]), i)


def test_a_new_kind_is_a_class_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path, *(f"{k}.png" for k in range(5)))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{k}.png\n" for k in range(5)))
    monkeypatch.setattr(modules, "KINDS", (ListedSource, *KINDS))
    paths = []
    for rank in range(2):
        data = ImageFolderDataModule(str(tmp_path / "list.txt"), num_workers=2, sample=4, include="*[0-9].png")
        data.trainer = fake_trainer(rank, 2)
        data.begin_run(tmp_path / "run", lambda: {f"{tmp_path}/3.png"}, 1.0)
        if rank == 0:
            data.prepare_data()
        data.setup("test")
        paths += [Path(path).name for batch in data.test_dataloader() for path in batch["path"]]
    assert (data.n_listed, data.fingerprint()["n_images"]) == (4, 4)
    assert len(set(paths)) == len(paths) >= 3
    with pytest.raises(DataError, match=r"other\.txt does not exist"):
        ImageFolderDataModule(str(tmp_path / "other.txt")).fingerprint()


def test_a_new_column_of_a_file_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the README tells it: its type, for the rows, and its value."""
    from datamodules.images.decode import Decoded

    columns = Decoded.columns
    monkeypatch.setattr(Decoded, "columns", lambda self: {**columns(self), "width": self.image.width})
    make_images(tmp_path / "images", "cat/a.png")
    pack_decoded(tmp_path / "images", tmp_path / "decoded", Preprocess(), num_workers=0)
    for root in ("images", "decoded"):
        data = ImageFolderDataModule(str(tmp_path / root), num_workers=0, class_names=["cat"])
        data.setup("test")
        (found,) = data.test_dataloader()
        assert found["file_columns"] == [{"exif_orientation": 1, "note": None, "width": 50}]


def test_whatever_reading_raises_is_a_failed_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path, "cat/a.png")

    def fail(*args: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr("datamodules.reader.read_image", fail)
    data = ImageFolderDataModule(str(tmp_path), num_workers=1)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["failed"] == [("cat/a.png", "cannot be read: MemoryError: too large")]
