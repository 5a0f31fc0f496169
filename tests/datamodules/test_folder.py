from __future__ import annotations

import json
import os
import pickle
import sys
import tracemalloc
from pathlib import Path

import pytest

from datamodules import DataError, FolderSource, Source, list_folder
from datamodules.classes import ClassTable
from datamodules.imagenet import imagenet_class_names
from datamodules.preprocess import Preprocess
from datamodules.reader import SampleReader
from tests.images import make_images


def listed(root: Path, class_names: list[str] | None = None) -> list[tuple[str, int]]:
    listing = list_folder(root, class_names)
    return [(listing.path(k), int(listing.labels[k])) for k in range(len(listing))]


def test_wnids_decide_labels_of_a_part_of_imagenet(tmp_path: Path) -> None:
    make_images(tmp_path, "n02123045/a.JPEG", "n01440764/b.jpg", "n02123045/c.png", "n15075141/d.webp")
    assert listed(tmp_path, imagenet_class_names()) == [
        ("n01440764/b.jpg", 0),
        ("n02123045/a.JPEG", 281),
        ("n15075141/d.webp", 999),
        ("n02123045/c.png", 281),
    ]


def test_neither_matches(tmp_path: Path) -> None:
    make_images(tmp_path, "dog/a.png", "n02123045/b.png")
    with pytest.raises(DataError, match=r"1 of 2 .*without a match: n02123045\. .*network: ant, dog\."):
        list_folder(tmp_path, ["ant", "dog"])
    with pytest.raises(DataError, match=r"without a match: dog\. .*tench, goldfish.*1000 in all.*WordNet id"):
        list_folder(tmp_path, imagenet_class_names())


def test_first_images_show_different_classes(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{c}/{k}.png" for c in "abc" for k in range(3)), "c/9.png")
    assert [label for _, label in listed(tmp_path)] == [0, 1, 2] * 3 + [2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no images"),
        (["a.png", "b/c.png"], r"holds images \(a.png, ...\) beside folders \(b, ...\)"),
    ],
)
def test_unusable_folders(tmp_path: Path, names: list[str], message: str) -> None:
    make_images(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        list_folder(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        list_folder(tmp_path / "nowhere")
    make_images(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png is not a folder"):
        list_folder(tmp_path / "a.png")


def test_ambiguous_names_of_imagenet_are_apart() -> None:
    names = imagenet_class_names()
    assert len(set(names)) == 1000
    assert ClassTable(names).of_folders(names) == list(range(1000))


def test_order_goes_round_classes_of_different_sizes(tmp_path: Path) -> None:
    sizes = {"a": 3, "b": 0, "c": 7, "d": 1, "e": 5}
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        for k in range(size):
            (tmp_path / name / f"{k}.png").touch()
    full = [(name, n) for name, n in sizes.items() if n]
    expected = [(f"{name}/{k}.png", i) for k in range(7) for i, (name, n) in enumerate(full) if k < n]
    assert listed(tmp_path) == expected


def test_saved_listing(tmp_path: Path) -> None:
    make_images(tmp_path / "images", "cat/a.png", "cat/b c.png", "dog/a.png")
    os.rename(tmp_path / "images/dog/a.png", os.fsencode(tmp_path / "images/dog") + b"/\xff\n.png")
    source = list_folder(tmp_path / "images").without({"cat/a.png", "dog/\\xff\n.png"}).with_errors({2: "bad"})
    source.save(tmp_path / "run/listing.arrow")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["listing.arrow"]
    loaded = Source.load(tmp_path / "run/listing.arrow")
    assert isinstance(loaded, FolderSource)
    assert loaded.root == source.root
    assert loaded.columns["path"].to_pylist() == [b"cat/a.png", b"dog/\xff\n.png", b"cat/b c.png"]
    assert loaded.path(1) == "dog/\udcff\n.png"
    assert loaded.labels.tolist() == [0, 1, 0]
    assert loaded.todo().tolist() == [2]
    assert [loaded.todo(rank, 2).tolist() for rank in (0, 1)] == [[2], []]
    assert loaded.read(2, SampleReader(Preprocess())) == {"failed": ("cat/b c.png", "bad")}
    assert loaded.fingerprint() == source.fingerprint()
    # A process that is sent it opens the file; it gets no copy.
    sent = pickle.dumps(loaded)
    assert len(sent) < 1000
    assert pickle.loads(sent).columns["path"].equals(loaded.columns["path"])


def test_fingerprint(tmp_path: Path) -> None:
    def of(*names: str, class_names: list[str] | None = None) -> dict:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        found = list_folder(make_images(folder, *names), class_names).fingerprint()
        assert len(found.pop("sizes_sha256")) == 64
        return found

    base = of("cat/a.png", "dog/b.png")
    assert base == of("dog/b.png", "cat/a.png")
    assert base["n_images"] == 2
    others = [of("cat/a.png", "dog/c.png"), of("cat/a.png"), of("cat/a.png", "dog/b.png", class_names=["dog", "cat"])]
    assert len({json.dumps(found) for found in [base, *others]}) == 4


def test_fingerprint_covers_the_sizes(tmp_path: Path) -> None:
    listing = list_folder(make_images(tmp_path, "cat/a.png", "dog/b.png"))
    found = [listing.fingerprint()]
    (tmp_path / "cat/a.png").write_bytes(b"another")
    found.append(listing.fingerprint())
    (tmp_path / "dog/b.png").unlink()
    (tmp_path / "dog/b.png").symlink_to("nowhere")
    found.append(listing.fingerprint())
    assert len({f["sizes_sha256"] for f in found}) == 3
    assert len({f["sha256"] for f in found}) == 1


@pytest.mark.slow
def test_listing_takes_little_memory(tmp_path: Path) -> None:
    """Less than the paths would take as strings, however many there are: 1.3 million have to fit."""
    n, n_folders = 20_000, 40
    folders = [tmp_path / f"n{k:08d}" for k in range(n_folders)]
    for folder in folders:
        folder.mkdir()
    for k in range(n):
        os.mknod(f"{folders[k % n_folders]}/ILSVRC2012_val_{k:08d}.JPEG")
    tracemalloc.start()
    try:
        listing = list_folder(tmp_path)
        listed_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        listing.without({"x"}).save(tmp_path / "listing.arrow")
        loaded = Source.load(tmp_path / "listing.arrow")
        assert loaded.fingerprint()["n_images"] == n
        saved_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(listing) == n
    per_image = sys.getsizeof(f"n{0:08d}/ILSVRC2012_val_{0:08d}.JPEG") + 8
    assert max(listed_peak, saved_peak) < n * per_image * 0.6
