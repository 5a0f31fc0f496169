from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from PIL import Image

from datamodules import DataError, ImageFolderDataModule, pack_folder
from datamodules.errors import printable
from tests.images import make_images


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_layout(tmp_path: Path) -> None:
    make_images(tmp_path / "images", "cat/a.png", "cat/b.v2.JPEG", "dog/a.png", "dog/a.jpg")
    (tmp_path / "images/dog/a.jpg").write_bytes(b"not an image, and kept as it is")
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/a.xml").write_bytes(b"boxes")
    assert pack_folder(tmp_path / "images", tmp_path / "out", 3, boxes=tmp_path / "boxes") == 4
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["00000.tar", "00001.tar", "index.parquet"]
    images = tmp_path / "images"
    # In the listing's order, which goes round the classes.
    assert list(members(tmp_path / "out/00000.tar").items()) == [
        ("cat/a.png", (images / "cat/a.png").read_bytes()),
        ("cat/a.xml", b"boxes"),
        ("dog/a.jpg", (images / "dog/a.jpg").read_bytes()),
        ("dog/a.xml", b"boxes"),
        ("cat/b_v2_2.JPEG", (images / "cat/b.v2.JPEG").read_bytes()),
        ("cat/b_v2_2.path", b"cat/b.v2.JPEG"),
    ]
    assert list(members(tmp_path / "out/00001.tar")) == ["dog/a.png", "dog/a.xml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes", "images", "out"]


def test_every_image_is_one_in_its_shard(tmp_path: Path) -> None:
    """Also one that is known by its first bytes alone, or whose name means something to WebDataset."""
    names = ["no_extension", "x.jpg.bak", "x.jpg~", "odd.cls", "space.png ", "two\nlines.png", "[a].png", "\udcff.png"]
    paths = [*(f"cat/{name}" for name in names), "cat/z.\udcfd", "cat/x", "cat/x.png", "cat/x.jpg", "__dog__/a.png"]
    for path in paths:
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / "images" / path).open("wb") as file:
            Image.new("RGB", (8, 8)).save(file, "PNG")
    (tmp_path / "images/cat/phone").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    for name in ("drawing.svg", "web.html.jpg", "photo.HEIF", "empty.png", "camera.dng"):
        (tmp_path / "images/cat" / name).write_bytes(b"text" * (name != "empty.png"))
    pack_folder(tmp_path / "images", tmp_path / "shards")
    read = []
    for root in (tmp_path / "images", tmp_path / "shards"):
        data = ImageFolderDataModule(str(root), class_names=["cat", "__dog__"], num_workers=0, input_size=8)
        data.setup("test")
        (batch,) = data.test_dataloader()
        read.append((dict(zip(batch["path"], batch["label"].tolist())), batch["failed"]))
    assert read[0] == read[1]
    assert read[0][0] == {printable(path): int(path[0] == "_") for path in paths}


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    make_images(tmp_path / "images", *(f"{c}/{k}.png" for c in ("cat", "dog") for k in range(5)))
    for name in ("one", "two"):
        pack_folder(tmp_path / "images", tmp_path / name, 4)
    shards = sorted((tmp_path / "one").iterdir())
    assert [shard.read_bytes() for shard in shards] == [(tmp_path / "two" / s.name).read_bytes() for s in shards]


def test_all_or_nothing(tmp_path: Path) -> None:
    make_images(tmp_path / "images", "cat/a.png")
    (tmp_path / "images/cat/b.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"cat/b\.png cannot be packed: No such file.*Repair or delete it"):
        pack_folder(tmp_path / "images", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    (tmp_path / "images/cat/b.png").unlink()
    (tmp_path / "out").mkdir()
    assert pack_folder(tmp_path / "images", tmp_path / "out") == 1
    with pytest.raises(DataError, match=r"out exists and is not an empty folder"):
        pack_folder(tmp_path / "images", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"images_per_shard": 0}, "images_per_shard must be at least 1, got 0"), ({"boxes": Path("x")}, "data.boxes")],
)
def test_bad_options(tmp_path: Path, options: dict, message: str) -> None:
    make_images(tmp_path / "images", "cat/a.png")
    with pytest.raises(DataError, match=message):
        pack_folder(tmp_path / "images", tmp_path / "out", **options)
