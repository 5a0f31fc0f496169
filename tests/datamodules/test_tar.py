from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules import DataError, ImageFolderDataModule, pack_folder, tar_index
from datamodules.batch import boxes_of
from datamodules.boxes import Annotation, write_annotation
from datamodules.source import ListingOptions, Source
from datamodules.tar import TarSource
from datamodules.tar_index import INDEX
from tests.datamodules.trainers import fake_trainer
from tests.images import make_images

NAMES = ["cat", "dog"]


def samples(root: object, world: int = 1, workers: int = 0, done: set | None = None, **options: object) -> dict:
    """Every sample by its path, or (path, error) of those that failed; each is seen once."""
    found: dict[str, object] = {}
    for rank in range(world):
        options = {"class_names": NAMES, "num_workers": workers, "batch_size": 2, **options}
        data = ImageFolderDataModule(str(root), **options)  # type: ignore[arg-type]
        data.trainer = fake_trainer(rank, world)
        with tempfile.TemporaryDirectory() as run:
            data.begin_run(Path(run), lambda: done or set(), 1.0)
            data.prepare_data()
            data.setup("test")
        for batch in data.test_dataloader():
            rows = list(batch["failed"])
            boxes = [boxes_of(batch, i) for i in range(len(batch["path"]))]
            names = ("image", "label", "box_error", "original", "file_columns")
            rows += list(zip(batch["path"], zip(*(batch[name] for name in names), boxes), strict=True))
            for path, value in rows:
                assert path not in found
                found[path] = value
    return found


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)  # type: ignore[arg-type]
    if isinstance(a, dict | tuple):
        assert isinstance(b, dict | tuple)
        pairs = zip(a, b) if isinstance(a, tuple) else ((a[k], b[k]) for k in a.keys() | b.keys())  # type: ignore
        return len(a) == len(b) and all(same(x, y) for x, y in pairs)
    return bool(a == b)


def png(grey: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (50, 40), grey).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    names = [*(f"cat/{k}.png" for k in range(9)), "dog/a.png", "dog/a.jpg", "dog/v1.2 b.png", "dog/ü'.JPEG"]
    make_images(root / "images", *names)
    (root / "images/dog/empty.jpg").touch()
    os.rename(root / "images/cat/8.png", os.fsencode(root / "images/cat") + b"/\xff\n.png")
    (root / "boxes/cat").mkdir(parents=True)
    write_annotation(root / "boxes/cat/0.xml", Annotation(50, 40, ("cat",), ((10.0, 10.0, 20.0, 30.0),)))
    (root / "boxes/a.xml").write_text("<annotation>")
    pack_folder(root / "images", root / "shards", images_per_shard=5, boxes=root / "boxes")
    pack_folder(root / "images", root / "one", boxes=root / "boxes")
    return root


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (5, 1)])
def test_same_samples_as_from_the_folder(folder: Path, world: int, workers: int) -> None:
    expected = samples(folder / "images", boxes=str(folder / "boxes"))
    assert len(expected) == 14
    assert expected["dog/empty.jpg"] == "the file is empty"
    assert "cat/\\xff\n.png" in expected
    for image, error in ((k, v) for k, v in expected.items() if k in ("dog/a.jpg", "dog/a.png")):
        assert "no element found" in error[2], image
    # Messages name the file of the boxes, which is another one.
    del expected["dog/a.jpg"], expected["dog/a.png"]
    for shards in ("shards", "one", "shards/{00000..00002}.tar"):
        found = samples(folder / shards, world, workers)
        assert "dog/a.jpg.xml: no element found" in found.pop("dog/a.jpg")[2]
        assert "dog/a.png.xml: no element found" in found.pop("dog/a.png")[2]
        assert same(found, expected), shards


def test_done_samples_are_left_out_before_they_are_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"cat/\\xff\n.png", "dog/v1.2 b.png", "dog/empty.jpg"}
    found = samples(folder / "shards", world=2, done=done)
    assert found.keys() == samples(folder / "images").keys() - done
    monkeypatch.setattr("datamodules.reader.read_image", None)
    assert samples(folder / "shards", done=found.keys() | done) == {}


@pytest.mark.parametrize("world", [1, 3])
def test_figures_are_of_the_same_images_however_they_are_shared(folder: Path, world: int) -> None:
    found = samples(folder / "shards", world, n_originals=4)
    with_original = sorted(path for path, s in found.items() if isinstance(s, tuple) and s[3] is not None)
    first = samples(folder / "images", n_originals=4)
    assert with_original == sorted(path for path, s in first.items() if isinstance(s, tuple) and s[3] is not None)


def read_headers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards whose headers are read from now on."""
    read: list[str] = []
    index_shard = tar_index.index_shard
    monkeypatch.setattr(tar_index, "index_shard", lambda shard: read.append(shard.name) or index_shard(shard))
    return read


class TestIndex:
    def test_what_lies_beside_the_shards_is_what_the_headers_say(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = read_headers(monkeypatch)
        known = samples(folder / "shards")
        assert samples(folder / "shards/{00000..00002}.tar").keys() == known.keys()
        assert read == []
        shutil.copytree(folder / "shards", tmp_path / "bare", ignore=shutil.ignore_patterns(INDEX))
        assert same(samples(tmp_path / "bare"), known)
        assert read == ["00000.tar", "00001.tar", "00002.tar"]

    def test_shards_that_changed_are_read_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_images(tmp_path / "images", *(f"cat/{k}.png" for k in range(4)))
        pack_folder(tmp_path / "images", tmp_path / "shards", 2)
        write_tar(tmp_path / "shards/00001.tar", [("cat/x.png", png()), ("cat/y.png", png()), ("cat/z.png", png())])
        write_tar(tmp_path / "shards/00002.tar", [("dog/x.png", png())])
        read = read_headers(monkeypatch)
        assert sorted(samples(tmp_path / "shards")) == [*(f"cat/{k}.png" for k in "01xyz"), "dog/x.png"]
        assert read == ["00001.tar", "00002.tar"]

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"text"])
    def test_an_index_that_is_none(self, folder: Path, tmp_path: Path, content: bytes) -> None:
        shutil.copytree(folder / "shards", tmp_path / "shards")
        (tmp_path / "shards" / INDEX).write_bytes(content)
        assert same(samples(tmp_path / "shards"), samples(folder / "shards"))

    def test_a_run_that_goes_on_reads_no_headers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in "ab":
            write_tar(tmp_path / f"{name}.tar", [(f"cat/{k}.png", png()) for k in range(3)])
        read = read_headers(monkeypatch)
        options = ListingOptions(NAMES, earlier=tmp_path / "run/listing.arrow")
        first = TarSource.open(tmp_path, options)
        first.without({"a.tar/cat/1.png"}).save(tmp_path / "run/listing.arrow")
        again = TarSource.open(tmp_path, options)
        assert read == ["a.tar", "b.tar"]
        assert again.table.equals(first.table)
        assert again.fingerprint() == first.fingerprint()
        write_tar(tmp_path / "b.tar", [("cat/9.png", png())])
        assert len(TarSource.open(tmp_path, options)) == 4
        assert read == ["a.tar", "b.tar"] * 2


def test_a_listing_is_shared_as_a_file(folder: Path, tmp_path: Path) -> None:
    data = ImageFolderDataModule(str(folder / "shards"), class_names=NAMES, num_workers=0)
    data.begin_run(tmp_path, lambda: {f"cat/{k}.png" for k in range(8)}, 1.0)
    before = data.fingerprint()
    data.prepare_data()
    assert data.fingerprint() == before
    assert (before["n_shards"], before["n_images"]) == (3, 14)
    data.setup("test")
    assert isinstance(data.source, TarSource)
    assert isinstance(Source.load(tmp_path / "listing.arrow"), TarSource)
    assert data.n_left(0, 1) == 6
    assert sum(len(batch["path"]) for batch in data.test_dataloader()) == 5
    assert data.has_boxes


def test_several_shards_are_one_source(folder: Path) -> None:
    expected = samples(folder / "shards")
    for root in ("shards/*.tar", "shards/{00000,00001,00002}.tar", f"shards/0000[01].tar::{folder}/shards/00002.tar"):
        assert same(samples(folder / root), expected), root


class TestForeignShards:
    def test_labels(self, tmp_path: Path) -> None:
        files = [("0.png", png()), ("0.cls", b"1\n"), ("1.PNG", png()), ("1.cls", b"cat"), ("2.png", png())]
        files += [("dog/3.jpg", png()), ("dog/3.cls", b"0"), ("./dog/4.jpg", png()), ("dog/4.seg.png", b"no image")]
        files += [("__info__/x.json", b""), ("readme", b"")]
        found = samples(write_tar(tmp_path / "x.tar", files))
        labels = {path: sample[1].item() for path, sample in found.items()}
        assert labels == {"0.png": 1, "1.PNG": 0, "2.png": -1, "dog/3.jpg": 0, "dog/4.jpg": 1}

    def test_bad_samples_fail_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        files = [("a.png", png()), ("b.txt", b""), ("c.png", png()), ("c.jpg", png()), ("d.png", png())]
        files += [("d.cls", b"2"), ("e.png", b"x"), ("f.png", png()), ("f.png", png()), ("mouse/g.png", png())]
        files += [("h.png", png()), ("i.v1.png", png()), ("i.v2.png", png()), ("dog/j.png", png())]
        found = samples(write_tar(tmp_path / "x.tar", files))
        errors = {path: sample for path, sample in found.items() if isinstance(sample, str)}
        assert found.keys() - errors.keys() == {"a.png", "h.png", "dog/j.png"}
        assert errors.keys() == {"b", "c", "d.png", "e.png", "f.png", "mouse/g.png", "i"}
        assert errors["b"] == "a sample should hold one image; this one holds txt"
        assert errors["c"] == "a sample should hold one image; this one holds jpg, png"
        assert errors["d.png"] == "its .cls is '2', which is no class of the network"
        assert "this one holds v1.png, v2.png; WebDataset takes a name up to its first dot" in errors.pop("i")
        assert errors["e.png"] == "not an image in a known format"
        assert "duplicate file name" in errors["f.png"]
        assert errors["mouse/g.png"] == "its folder is 'mouse', which is no class of the network"
        write_tar(tmp_path / "x.tar", [("a.png", png()), ("b.png", png()), ("a.png", png())])
        with pytest.raises(DataError, match=r"x\.tar has several samples named a\.png"):
            samples(tmp_path / "x.tar")

    def test_names_that_begin_anew_in_each_shard(self, tmp_path: Path) -> None:
        """The usual way of WebDataset's own writers; each sample is still known, also to a run that is continued."""
        for shard, name in enumerate(("cat", "dog")):
            files = [
                (f"{k:04d}.{end}", png(k) if end == "png" else name.encode())
                for k in range(3)
                for end in ("png", "cls")
            ]
            write_tar(tmp_path / f"{shard}.tar", files)
        found = samples(tmp_path, world=2)
        assert sorted(found) == [f"{shard}.tar/{k:04d}.png" for shard in (0, 1) for k in range(3)]
        assert {path[:1]: sample[1].item() for path, sample in found.items()} == {"0": 0, "1": 1}
        assert samples(tmp_path, done={f"0.tar/{k:04d}.png" for k in range(3)}).keys() == {
            f"1.tar/{k:04d}.png" for k in range(3)
        }
        (tmp_path / "more").mkdir()
        write_tar(tmp_path / "more/0.tar", [("0000.png", png()), ("0000.cls", b"dog")])
        both = samples(f"{tmp_path}/{{0,more/0}}.tar")  # two files of one name
        assert sorted(both) == [f"{tmp_path}/0.tar/{k:04d}.png" for k in range(3)] + [f"{tmp_path}/more/0.tar/0000.png"]

    def test_links_are_told(self, tmp_path: Path) -> None:
        make_images(tmp_path, "cat/a.png")
        (tmp_path / "cat/b.png").symlink_to("a.png")
        os.link(tmp_path / "cat/a.png", tmp_path / "cat/c.png")
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            for name in ("a", "b", "c"):
                archive.add(tmp_path / f"cat/{name}.png", f"cat/{name}.png")
        found = samples(tmp_path / "x.tar")
        assert len(found) == 3
        assert found["cat/b.png"] == found["cat/c.png"] == "a link; shards hold the files themselves"


class TestDamage:
    @pytest.fixture
    def shard(self, tmp_path: Path) -> Path:
        return write_tar(tmp_path / "x.tar", [(f"cat/{k}.png", png(k)) for k in range(6)])

    @pytest.mark.parametrize(
        ("cut", "n_good", "message"),
        [
            (3 * 1024 + 100, 2, "truncated header at byte 3,072"),
            (3 * 1024 + 512, 2, "unexpected end of data"),
            (3 * 1024 + 600, 2, "unexpected end of data"),
            (3 * 1024, 2, "empty header at byte 3,072"),
        ],
    )
    def test_truncated(self, shard: Path, cut: int, n_good: int, message: str) -> None:
        assert len(png()) < 512
        shard.write_bytes(shard.read_bytes()[:cut])
        self.check(shard, n_good, message)

    def check(self, shard: Path, n_good: int, message: str) -> None:
        found = samples(shard, world=2)
        error = str(found.pop("x.tar"))
        assert error.startswith(f"the shard is damaged after its first {n_good} samples: ")
        assert message in error
        assert found.keys() == {f"cat/{k}.png" for k in range(n_good)}

    def test_garbage_in_place_of_a_header(self, shard: Path) -> None:
        content = bytearray(shard.read_bytes())
        content[3 * 1024 : 3 * 1024 + 100] = b"x" * 100
        shard.write_bytes(content)
        self.check(shard, 2, "bad checksum at byte 3,072")

    def test_zeros_in_place_of_a_header(self, shard: Path) -> None:
        content = bytearray(shard.read_bytes())
        content[3 * 1024 : 3 * 1024 + 512] = bytes(512)
        shard.write_bytes(content)
        self.check(shard, 2, "end of file header at byte 3,072")

    def test_deleted_after_the_listing(self, folder: Path, tmp_path: Path) -> None:
        pack_folder(folder / "images", tmp_path / "shards", images_per_shard=5)
        data = ImageFolderDataModule(str(tmp_path / "shards"), class_names=NAMES, num_workers=0)
        data.setup("test")
        (tmp_path / "shards/00001.tar").unlink()
        batches = list(data.test_dataloader())
        failures = dict(failure for batch in batches for failure in batch["failed"])
        assert [error for path, error in failures.items() if path != "dog/empty.jpg"] == [
            "cannot be read: No such file or directory"
        ] * 4


class TestUnusable:
    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ([], "x.tar holds no samples"),
            ([("readme", b"")], "x.tar holds no samples"),
            ([("mouse/a.png", b"")], "1 of 1 class folders match no class of the network.*mouse.*cat, dog"),
            ([("a.png", b""), ("a.cls", b"7")], "x.tar cannot be labelled: of a.png, its .cls is '7'"),
        ],
    )
    def test_first_sample(self, tmp_path: Path, files: list, message: str) -> None:
        with pytest.raises(DataError, match=message):
            samples(write_tar(tmp_path / "x.tar", files))

    def test_no_archive(self, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(b"text")
        with pytest.raises(DataError, match=r"x\.tar is no tar archive"):
            samples(tmp_path / "x.tar")

    def test_missing_shards(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"2 of 5 shards of .* do not exist: .*00003.tar, .*00004.tar"):
            samples(folder / "shards/{00000..00004}.tar")

    @pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar"])
    def test_compressed_as_a_whole(self, tmp_path: Path, name: str) -> None:
        write_tar(tmp_path / name, [("cat/a.png", png())], "w:gz")
        for root in (tmp_path / name, tmp_path):
            with pytest.raises(DataError, match=rf"{name} is compressed as a whole, .* unpack it to a \.tar"):
                samples(root)


def test_tars_beside_class_folders_are_not_shards(tmp_path: Path) -> None:
    """The archive from which somebody unpacked the folders."""
    make_images(tmp_path, "cat/a.png")
    write_tar(tmp_path / "val.tar", [("dog/b.png", png())])
    assert samples(tmp_path).keys() == {"cat/a.png"}
