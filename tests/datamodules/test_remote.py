from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from datamodules import DataError, ImageFolderDataModule, ahead, pack_folder, remote, tar_index
from datamodules.ahead import Ahead
from datamodules.boxes import Annotation, write_annotation
from datamodules.errors import UnreachableError
from datamodules.remote import StoredFile, read_range, remote_file
from datamodules.source import ListingOptions
from datamodules.tar import TarSource
from datamodules.tar_index import INDEX
from tests.datamodules.servers import FileServer, served
from tests.datamodules.test_tar import NAMES, png, same, samples, write_tar
from tests.images import make_images


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards, with boxes, and an image that is damaged."""
    root = tmp_path_factory.mktemp("shards")
    make_images(root / "images", *(f"cat/{k}.png" for k in range(7)), "dog/a.png", "dog/b.jpg", "dog/c.png")
    (root / "images/dog/empty.jpg").touch()
    (root / "boxes/cat").mkdir(parents=True)
    for k in range(4):
        write_annotation(root / f"boxes/cat/{k}.xml", Annotation(10, 10, ("cat",), ((0, 0, 5, 5),)))
    pack_folder(root / "images", root / "packed", images_per_shard=4, boxes=root / "boxes")
    return root / "packed"


@pytest.fixture(scope="module")
def folder_server(shards: Path) -> Iterator[FileServer]:
    with served(shards) as server:
        yield server


@pytest.fixture
def server(folder_server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    folder_server.requests.clear()
    folder_server.n_refused = folder_server.n_dropped = 0
    folder_server.has_ranges, folder_server.page = True, None
    monkeypatch.setattr(remote, "FIRST_WAITS", (0.0, 0.0))
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    return folder_server


@pytest.fixture
def copied(shards: Path, server: FileServer, tmp_path: Path) -> Iterator[tuple[Path, FileServer]]:
    """A server of shards that a test may change."""
    shutil.copytree(shards, tmp_path / "shards")
    with served(tmp_path / "shards") as own:
        yield tmp_path / "shards", own


def listed(root: str) -> TarSource:
    return TarSource.open(root, ListingOptions(NAMES))


class TestEqualFiles:
    @pytest.mark.parametrize("workers", [0, 3])
    @pytest.mark.parametrize("world", [1, 2])
    def test_by_ranges_of_a_server(self, shards: Path, server: FileServer, workers: int, world: int) -> None:
        assert same(samples(f"{server.address}/{{00000..00002}}.tar", world, workers), samples(shards))
        assert not [
            path for method, path, wanted in server.requests if method == "GET" and not wanted and "tar" in path
        ]

    def test_without_an_index(self, shards: Path, copied: tuple[Path, FileServer]) -> None:
        folder, server = copied
        (folder / INDEX).unlink()
        assert same(samples(f"{server.address}/{{00000..00002}}.tar"), samples(shards))

    def test_in_memory_by_a_pattern(self, shards: Path) -> None:
        memory = fsspec.filesystem("memory")
        for file in shards.iterdir():
            memory.pipe_file(f"/bucket/{file.name}", file.read_bytes())
        assert same(samples("memory://bucket/*.tar", workers=3), samples(shards))
        memory.rm("/bucket", recursive=True)

    def test_beside_files(self, shards: Path, server: FileServer) -> None:
        mixed = f"{shards}/00000.tar::{server.address}/00001.tar::{shards}/00002.tar"
        assert same(samples(mixed), samples(shards))

    def test_labelled_by_boxes_alone(self, shards: Path, server: FileServer, tmp_path: Path) -> None:
        make_images(tmp_path / "flat", *(f"{k}.png" for k in range(6)))
        (tmp_path / "boxes").mkdir()
        for k in range(0, 6, 2):
            write_annotation(tmp_path / f"boxes/{k}.xml", Annotation(10, 10, ("dog",), ((0, 0, 5, 5),)))
        pack_folder(tmp_path / "flat", tmp_path / "packed", boxes=tmp_path / "boxes")
        with served(tmp_path / "packed") as own:
            found = listed(f"{own.address}/00000.tar")
        assert found.labels.tolist() == [1, -1] * 3

    @pytest.mark.parametrize("name", ["a#b", "what?", "memory:", "50%"])
    def test_in_a_folder_of_any_name(self, shards: Path, tmp_path: Path, name: str) -> None:
        """The index beside the shards is found, here and in a store."""
        shutil.copytree(shards, tmp_path / name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tar_index, "index_shard", None)
            assert same(samples(tmp_path / name), samples(shards))
            memory = fsspec.filesystem("memory")
            for file in shards.iterdir():
                memory.pipe_file(f"/{name}/{file.name}", file.read_bytes())
            assert same(samples(f"memory://{name}/{{00000..00002}}.tar"), samples(shards))
        memory.rm(f"/{name}", recursive=True)

    def test_a_signature_is_no_part_of_the_name(self, shards: Path, server: FileServer) -> None:
        one, other = (listed(f"{server.address}/00000.tar?signature={k}") for k in (1, 2))
        assert one.fingerprint() == other.fingerprint() == listed(f"{server.address}/00000.tar").fingerprint()
        assert one.names() == listed(f"{shards}/00000.tar").names()


class TestRequests:
    def test_neighbours_come_in_one(self, server: FileServer) -> None:
        found = listed(f"{server.address}/{{00000..00002}}.tar")
        server.requests.clear()
        data = ImageFolderDataModule(f"{server.address}/{{00000..00002}}.tar", class_names=NAMES, num_workers=2)
        data.setup("test")
        server.requests.clear()
        assert sum(len(batch["path"]) + len(batch["failed"]) for batch in data.test_dataloader()) == len(found)
        assert len(server.requests) == 3

    def test_what_an_index_knows_is_not_read(self, server: FileServer) -> None:
        listed(f"{server.address}/{{00000..00002}}.tar")
        shards = [each for each in server.requests if ".tar" in each[1]]
        assert len(shards) == 6  # what each is, and whether parts of it can be had

    @pytest.mark.parametrize("done", [set(), {"cat/0.png", "cat/1.png"}])
    def test_only_what_is_left(self, shards: Path, server: FileServer, done: set[str]) -> None:
        root = f"{server.address}/{{00000..00002}}.tar"
        assert same(samples(root, done=done), samples(shards, done=done))

    def test_of_a_chosen_part(self, shards: Path, server: FileServer) -> None:
        root = f"{server.address}/{{00000..00002}}.tar"
        assert same(samples(root, sample=4, workers=2), samples(shards, sample=4))

    def test_ranges_far_apart_are_several(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr(ahead, "_GAP", 10)
        monkeypatch.setattr(ahead, "_BLOCK", 1000)
        monkeypatch.setattr(ahead, "read_range", lambda file, *ends: (asked.append((file.path, *ends)), bytes(2000))[1])
        files = [StoredFile("a", 9999, ""), StoredFile("b", 9999, "")]
        starts = np.array([0, 105, 300, 1000, 0, 950])
        found = Ahead(files, np.array([2, 3, 5, 6, 8, 9]), np.array([0, 0, 0, 0, 1, 1]), starts, starts + 100)
        for index, start in zip((2, 3, 5, 6, 8, 9), starts.tolist()):
            assert found.read(index, (start, start + 100), (start + 1, start + 2)) == [bytes(100), bytes(1)]
        assert sorted(asked) == [("a", 0, 205), ("a", 300, 400), ("a", 1000, 1100), ("b", 0, 100), ("b", 950, 1050)]
        assert not found.fetched

    def test_none_of_no_images(self) -> None:
        none = np.zeros(0, np.int64)
        assert len(Ahead([], none, none, none, none).left) == 0


class TestFaults:
    def test_a_server_that_is_busy(self, shards: Path, server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
        server.n_refused = 2
        assert same(samples(f"{server.address}/{{00000..00002}}.tar"), samples(shards))
        assert "tried again" in caplog.text

    def test_a_connection_that_drops(self, shards: Path, server: FileServer) -> None:
        root = f"{server.address}/{{00000..00002}}.tar"
        source = listed(root)
        server.n_dropped = 2
        file = StoredFile(*source.facts["shards"][0])
        assert read_range(file, 100, 3000) == (shards / "00000.tar").read_bytes()[100:3000]

    def test_what_stays_away_ends_the_run_and_fails_no_image(self, server: FileServer) -> None:
        data = ImageFolderDataModule(f"{server.address}/00000.tar", class_names=NAMES, num_workers=2)
        data.setup("test")
        loader = data.test_dataloader()
        server.n_refused = 1000
        with pytest.raises(UnreachableError, match=f"{re.escape(server.address)}/00000.tar cannot be read: .*503"):
            list(loader)

    def test_a_server_without_ranges(self, server: FileServer) -> None:
        server.has_ranges = False
        with pytest.raises(DataError, match=r"its server gives no parts of files .*copy it"):
            listed(f"{server.address}/00000.tar")

    @pytest.mark.parametrize("page", [b"<!DOCTYPE html>" + b" " * 2000, b"<html>sign in</html>"])
    def test_a_proxys_page(self, server: FileServer, page: bytes) -> None:
        server.page = page
        with pytest.raises(DataError, match=r"00000.tar cannot be read: a web page is there"):
            listed(f"{server.address}/00000.tar")

    def test_what_is_not_there(self, server: FileServer) -> None:
        with pytest.raises(DataError, match=r"00009.tar cannot be read: there is no such file"):
            listed(f"{server.address}/00009.tar")
        with pytest.raises(DataError, match="No shard matches memory://nowhere/"):
            listed("memory://nowhere/*.tar")
        assert len(server.requests) < 4  # nobody waits for it

    def test_what_is_no_archive(self, copied: tuple[Path, FileServer]) -> None:
        folder, server = copied
        (folder / "text.tar").write_bytes(b"no archive" * 1000)
        with pytest.raises(DataError, match=r"text.tar is no tar archive"):
            listed(f"{server.address}/text.tar")

    def test_damage(self, copied: tuple[Path, FileServer]) -> None:
        folder, server = copied
        write_tar(folder / "cut.tar", [(f"cat/{k}.png", png(k)) for k in range(30)])
        content = (folder / "cut.tar").read_bytes()
        (folder / "cut.tar").write_bytes(content[: len(content) // 2])
        found, there = listed(f"{server.address}/cut.tar"), listed(f"{folder}/cut.tar")
        assert found.columns["error"].to_pylist() == there.columns["error"].to_pylist()
        assert "the shard is damaged after its first" in found.columns["error"][-1].as_py()

    @pytest.mark.parametrize("root", ["s3://bucket/val", "memory://val", "https://host/val/", "file:///data/val"])
    def test_a_folder(self, root: str) -> None:
        with pytest.raises(DataError, match=f"{root} is an address, .*only tar shards .*pack_shards.py.*mount"):
            listed(root)

    def test_a_folder_to_pack(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"s3://bucket/val is an address, .*only tar shards"):
            pack_folder("s3://bucket/val", tmp_path / "out")

    def test_what_needs_another_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(remote.known_implementations, "s3", {"class": "no_s3fs.S3FileSystem", "err": "Install it"})
        with pytest.raises(DataError, match=r"s3://bucket/a.tar cannot be read: .*pip install no_s3fs"):
            remote_file("s3://bucket/a.tar")

    def test_an_unknown_kind_of_address(self) -> None:
        with pytest.raises(DataError, match=r"floppy://a.tar cannot be read: Protocol not known: floppy"):
            remote_file("floppy://a.tar")

    def test_compressed(self) -> None:
        with pytest.raises(DataError, match="is compressed as a whole"):
            listed("https://host/a.tar.gz")


class TestChanges:
    def change(self, file: Path) -> None:
        """Another content of the same size."""
        content = bytearray(file.read_bytes())
        content[600] ^= 1
        file.write_bytes(content)

    def test_another_file_of_the_same_size_has_another_fingerprint(self, copied: tuple[Path, FileServer]) -> None:
        folder, server = copied
        before = listed(f"{server.address}/00000.tar").fingerprint()
        self.change(folder / "00000.tar")
        assert listed(f"{server.address}/00000.tar").fingerprint() != before

    def test_one_that_is_replaced_while_it_is_read(self, copied: tuple[Path, FileServer]) -> None:
        folder, server = copied
        data = ImageFolderDataModule(f"{server.address}/00000.tar", class_names=NAMES, num_workers=0)
        data.setup("test")
        loader = data.test_dataloader()
        self.change(folder / "00000.tar")
        with pytest.raises(UnreachableError, match="it was replaced while it was being read"):
            list(loader)

    def test_without_tags_the_size_tells(self, copied: tuple[Path, FileServer]) -> None:
        folder, server = copied
        server.has_tags = False
        before = listed(f"{server.address}/00000.tar").fingerprint()
        shutil.copy(folder / "00001.tar", folder / "00000.tar")
        with (folder / "00000.tar").open("ab") as file:
            file.write(bytes(512))
        assert listed(f"{server.address}/00000.tar").fingerprint() != before

    def test_training_refuses_it(self) -> None:
        data = ImageFolderDataModule("s3://bucket/a.tar", class_names=NAMES)
        with pytest.raises(DataError, match=r"s3://bucket/a.tar holds shards"):
            data.setup("fit")
