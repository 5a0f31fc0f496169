from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.io import savemat

from datamodules import DataError, LabelFile, label_file
from datamodules.classes import ClassTable
from datamodules.imagenet import imagenet_class_names

NAMES = ["tench", "great white shark", "crane, bird"]


def written(tmp_path: Path, text: str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def of(tmp_path: Path, text: str, *paths: str, names: list[str] = NAMES) -> list[int]:
    return indices(LabelFile(written(tmp_path, text)), *paths, names=names)


def indices(labels: LabelFile, *paths: str, names: list[str] = NAMES) -> list[int]:
    texts = labels.match(pa.array(paths))[0].to_pylist()
    known = labels.indices(texts, ClassTable(names))
    return [known[text] for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,tench\nd/b.jpg,great white shark\n",
        "path,class\na.jpg,tench\nd/b.jpg,great_white_shark\n",
        "\ufefffilename,label\r\na.jpg,0\r\nd/b.jpg,1\r\n",
        "a.jpg\ttench\nd/b.jpg\tgreat white shark\n",
        "a.jpg;tench\nd/b.jpg;great white shark\n",
        "a.jpg 0\nd/b.jpg 1\n",
        "label,path,split\n0,a.jpg,val\n1,d/b.jpg,val\n",
        '"a.jpg","tench"\n"d/b.jpg","great white shark"\n\n',
        "Image_ID,Class Name\na,tench\nb,great white shark\n",
        "./a.jpg,tench\nd\\b.jpg,great white shark\n",
        "/data/val/a.jpg,tench\n/data/val/d/b.jpg,1\n",
        "# made by hand\npath,class\n# and more\na.jpg,tench\nd/b.jpg,great white shark\n",
        "# path,class\na.jpg,tench\nd/b.jpg,great white shark\n",
        ",path,class\n0,a.jpg,tench\n1,d/b.jpg,great white shark\n",
        ",class\na.jpg,tench\nd/b.jpg,great white shark\n",
        ",0\na.jpg,0\nd/b.jpg,1\n",
        "path,label\na.jpg,0.0\nd/b.jpg,1.0\n",
        "path,class,,\na.jpg,tench,,\nd/b.jpg,great white shark,,\n",
        "path,class,note\na.jpg,tench,\nd/b.jpg,great white shark,x\n",
        "a.jpg,tench,\nd/b.jpg,great white shark,\n",
        "a.jpg|tench\nd/b.jpg|great white shark\n",
        "a.jpg tench\nd/b.jpg great white shark\n",
        "index,path,wnid,class\n7,a.jpg,0,x\n8,d/b.jpg,1,x\n",
        "path,class\ra.jpg,tench\rd/b.jpg,great white shark\r",
    ],
    ids=[
        *("plain", "headed", "bom", "tsv", "semicolons", "spaces", "third", "quoted", "stems", "windows", "absolute"),
        *("comments", "commented", "index", "path_index", "series", "floats", "trailing", "notes", "headless"),
        *("bars", "spaced", "rows", "mac"),
    ],
)
def test_layouts(tmp_path: Path, text: str) -> None:
    assert of(tmp_path, text, "a.jpg", "d/b.jpg") == [0, 1]


@pytest.mark.parametrize("how", ["utf-16", "utf-16-be", "gzip"])
def test_as_spreadsheets_and_archives_have_it(tmp_path: Path, how: str) -> None:
    text = "path\tclass\r\na.jpg\ttench\r\n"
    content = gzip.compress(text.encode()) if how == "gzip" else ("\ufeff" * (how[-1] == "e") + text).encode(how)
    (tmp_path / "labels.csv").write_bytes(content)
    labels = LabelFile(tmp_path / "labels.csv")
    assert (labels.entries.to_pylist(), labels.classes.to_pylist()) == (["a.jpg"], ["tench"])


def test_a_class_with_a_comma_between_semicolons(tmp_path: Path) -> None:
    assert of(tmp_path, "a.jpg;crane, bird\nb.jpg;tench\n", "a.jpg", "b.jpg") == [2, 0]


@pytest.mark.parametrize(
    ("written_as", "on_disk"),
    [
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301", "caf\u00e9.jpg"),
        ('"two\nlines.jpg"', "two\nlines.jpg"),
        ("a\u2028b.jpg", "a\u2028b.jpg"),
        ("not_utf8_\\xff.jpg", "not_utf8_\\xff.jpg"),
        ("a.jpg ", "a.jpg "),
        ("#1.jpg", "#1.jpg"),
        ("[a] -b.jpg", "[a] -b.jpg"),
    ],
    ids=["composed", "decomposed", "lines", "separator", "escaped", "space", "hash", "brackets"],
)
def test_names_of_files(tmp_path: Path, written_as: str, on_disk: str) -> None:
    assert of(tmp_path, f"path,class\n{written_as},tench\n", on_disk) == [0]


def test_a_name_with_a_comma_needs_quotes(tmp_path: Path) -> None:
    assert of(tmp_path, 'a.jpg,"crane, bird"\n', "a.jpg") == [2]
    with pytest.raises(DataError, match=r"line 'b.jpg, crane, bird' should have 2 cells.*quotes"):
        of(tmp_path, "a.jpg,tench\nb.jpg,crane, bird\n", "a.jpg")


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    labels = LabelFile(written(tmp_path, "\n".join(f"{k}.jpg,tench" for k in range(6))))
    texts, notes = labels.match(pa.array(["0.jpg", "1.jpg", "x.jpg"]))
    assert texts.to_pylist() == ["tench", "tench", None]
    assert [note.partition("labels.csv ")[2] for note in notes] == [
        "names 4 images that are not there: 2.jpg, 3.jpg, 4.jpg, ...",
        "says nothing of 1 images: x.jpg",
    ]
    with pytest.raises(DataError, match=r"names none of the 1 images\. It names 0\.jpg.*the images are y\.jpg"):
        labels.match(pa.array(["y.jpg"]))


def test_a_name_alone_may_not_be_meant_for_two_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"may be meant for several images: 1 for cat/1\.jpg, dog/1\.jpg"):
        of(tmp_path, "1,tench\n", "cat/1.jpg", "dog/1.jpg")
    assert of(tmp_path, "cat/1,tench\ndog/1,1\n", "cat/1.jpg", "dog/1.jpg") == [0, 1]
    # A file of another extension is another file.
    assert of(tmp_path, "1.png,tench\n1.jpg,1\n", "1.jpg", "1.png") == [1, 0]


def test_an_image_of_another_folder_is_another_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names none of the 1 images"):
        of(tmp_path, "dog/1.jpg,tench\n", "cat/1.jpg")


def test_two_things_of_one_image(tmp_path: Path) -> None:
    assert of(tmp_path, "a.jpg,tench\na.jpg,tench\n", "a.jpg") == [0]
    with pytest.raises(DataError, match=r"says both 'tench' and '1' of a\.jpg"):
        of(tmp_path, "a.jpg,tench\na.jpg,1\n", "a.jpg")
    with pytest.raises(DataError, match=r"says both 'tench' and '1' of \./a\.jpg"):
        of(tmp_path, "a.jpg,tench\n./a.jpg,1\n", "a.jpg")
    with pytest.raises(DataError, match=r"says several things of d/a\.jpg: x/d/a\.jpg 'tench', y/d/a\.jpg '1'"):
        of(tmp_path, "x/d/a.jpg,tench\ny/d/a.jpg,1\n", "d/a.jpg")


def test_classes_that_the_network_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 classes that the network does not have: 'tenchh'\. Did you mean .*tench"):
        of(tmp_path, "a.jpg,tenchh\nb.jpg,tench\n", "a.jpg", "b.jpg")
    with pytest.raises(DataError, match=r"'3'\. Indices count from 0"):
        of(tmp_path, "a.jpg,1\nb.jpg,2\nc.jpg,3\n", "a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(DataError, match=r"names, in its column wnid, 1 classes that the network does not have"):
        of(tmp_path, "path,wnid,name\na.jpg,n99999999,tench\n", "a.jpg")
    with pytest.raises(DataError, match="may be one of 2 classes"):
        of(tmp_path, "a.jpg,crane\n", "a.jpg", names=["crane", "crane"])


def test_kaggles_solution(tmp_path: Path) -> None:
    text = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 85 1 499 272 n01440764 131 0 499 254 \n"
    assert of(tmp_path, text, "ILSVRC2012_val_00000001.JPEG", names=imagenet_class_names()) == [0]
    with pytest.raises(DataError, match=r"boxes of 2 classes for a: "):
        of(tmp_path, "ImageId,PredictionString\na,n01440764 1 1 2 2 n01443537 1 1 2 2\n", "a.jpg")


IMAGES = [f"ILSVRC2012_val_{k:08d}.JPEG" for k in (1, 2, 3)]


def test_ilsvrcs_own_numbers(tmp_path: Path) -> None:
    """They count from 1, in an order that is not that of the indices."""
    numbers = written(tmp_path, "2\n1\n3\n", "ILSVRC2012_validation_ground_truth.txt")
    with pytest.raises(DataError, match=r"in an order of its own.*--data\.synsets: meta\.mat"):
        LabelFile(numbers)
    wnids = ["n15075141", "n01440764", "n02123045"]
    text = written(tmp_path, "".join(f"{wnid} some words\n" for wnid in wnids), "synsets.txt")
    rows = [(k, wnid) for k, wnid in enumerate(wnids, start=1)] + [(1001, "n00000001")]
    table = np.array([(k, wnid) for k, wnid in rows[::-1]], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(tmp_path / "meta.mat", {"synsets": table[:, None]})
    for synsets in (text, tmp_path / "meta.mat"):
        labels = LabelFile(numbers, synsets)
        assert indices(labels, *IMAGES, names=imagenet_class_names()) == [0, 999, 281]
        assert not labels.match(pa.array(IMAGES))[1]
    # Other lists are in the order of the alphabet; whether this one is nobody can know.
    labels = LabelFile(numbers, written(tmp_path, "\n".join(sorted(wnids)), "sorted.txt"))
    (note,) = labels.match(pa.array(IMAGES))[1]
    assert "sorted.txt has WordNet ids in the order of the alphabet, in which ILSVRC's own lists do not" in note


@pytest.mark.parametrize(
    ("numbers", "synsets", "message"),
    [
        ("0\n1\n", "n01440764\nn01443537\n", r"numbers from 0 to 1; .* has 1 to 2"),
        ("1\n3\n", "n01440764\nn01443537\n", r"numbers from 1 to 3; .* has 1 to 2"),
        ("1\n", "tench\n", r"should have a WordNet id such as n02119789"),
        ("1\n", "", r"should have a WordNet id"),
        ("1\n", "n01440764\nn01443537\nn01440764\n", r"has 1 WordNet ids in several lines: n01440764"),
        ("a.jpg,tench\n", "n01440764\n", r"data\.synsets is for a list of numbers"),
    ],
    ids=["zero", "beyond", "names", "empty", "twice", "table"],
)
def test_synsets_that_do_not_fit(tmp_path: Path, numbers: str, synsets: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelFile(written(tmp_path, numbers), written(tmp_path, synsets, "synsets.txt"))


def test_a_mat_file_of_something_else(tmp_path: Path) -> None:
    savemat(tmp_path / "meta.mat", {"other": np.zeros(3)})
    with pytest.raises(DataError, match=r"meta\.mat \(data\.synsets\) is no meta\.mat of ILSVRC"):
        LabelFile(written(tmp_path, "1\n"), tmp_path / "meta.mat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"labels\.csv \(data\.labels\) is empty"),
        (b"\n \n", r"is empty"),
        (b"a.jpg,\xff\xfe\n", r"is no text in UTF-8"),
        (b"a,b,c\n1,2,3\n", r"columns path and class.*first line is 'a, b, c'"),
        (b"only_one_column\n", r"columns path and class"),
        (b"path,class\na.jpg,\n", r"the line 'a\.jpg' should have 2 cells"),
        (b"path,class\na.jpg\n", r"the line 'a\.jpg' should have 2 cells"),
        (b"path,class\na.jpg,tench,x\n", r"the line 'a\.jpg, tench, x' should have 2 cells"),
        (b"path,class\n", r"has headings, and no line below them"),
        (b'{\n  "a.jpg": 0,\n  "b.jpg": 1\n}', r"should be a table, CSV or TSV, .* its first line is '{'"),
        (b"PK\x03\x04\xff\xfe", r"is no text in UTF-8 .*; save it as CSV"),
        (b"\x1f\x8b broken", r"labels\.csv \(data\.labels\) cannot be read"),
    ],
    ids=[
        *("empty", "blank", "latin", "unknown", "one", "no_class", "short"),
        *("long", "headings", "json", "xlsx", "gzip"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        LabelFile(tmp_path / "labels.csv")


def test_options(tmp_path: Path) -> None:
    assert label_file(None, None) is None
    with pytest.raises(DataError, match=r"data\.synsets says in which order data\.labels.*is not given"):
        label_file(None, "synsets.txt")
    with pytest.raises(DataError, match=r"nowhere\.csv \(data\.labels\) cannot be read: No such file"):
        label_file(str(tmp_path / "nowhere.csv"), None)
