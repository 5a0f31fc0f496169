from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pytest

from datamodules import SHAPE_NAMES, DataError, ShapesDataModule, decode_image, write_shapes
from datamodules.batch import boxes_of
from datamodules.boxes import read_annotation


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_is_deterministic_and_does_not_depend_on_the_number(tmp_path: Path, shapes: Path) -> None:
    write_shapes(tmp_path / "again", n_train=8, n_val=16, n_pairs=2, seed=0)
    files = [name for name in files_of(tmp_path / "again") if name != "shapes.json"]
    assert len(files) == 2 * (8 + 16 + 2 * 2)
    same, different, missing = filecmp.cmpfiles(tmp_path / "again", shapes, files, shallow=False)
    assert (same, different, missing) == (files, [], [])
    write_shapes(tmp_path / "other", n_train=0, n_val=8, n_pairs=0, seed=1)
    pictures = [name for name in files_of(tmp_path / "other") if name.endswith("JPEG")]
    assert len(pictures) == 8
    same, _, missing = filecmp.cmpfiles(tmp_path / "other", shapes, pictures, shallow=False)
    assert not same
    assert not missing


def test_layout(shapes: Path) -> None:
    for split, images_per_class in (("train", 8), ("val", 10)):
        assert sorted(path.name for path in (shapes / split).iterdir()) == SHAPE_NAMES
        assert all(len(list(path.iterdir())) == images_per_class for path in (shapes / split).iterdir())
    assert len(SHAPE_NAMES) >= 8


def test_boxes_hold_the_objects(shapes: Path) -> None:
    """An object is brighter or darker than what is around it, on average over many images."""
    contrasts = []
    for file in sorted((shapes / "val").glob("square/*.JPEG")):
        annotation = read_annotation((shapes / "annotations" / file.relative_to(shapes)).with_suffix(".xml"))
        image = decode_image(file)
        assert annotation.names == ("square",)
        assert image.size == (annotation.width, annotation.height)
        pixels = np.asarray(image, dtype=float).mean(2)
        left, top, right, bottom = (int(v) for v in annotation.boxes[0])
        middle = pixels[
            (top + bottom) // 2 - 5 : (top + bottom) // 2 + 5, (left + right) // 2 - 5 : (left + right) // 2 + 5
        ]
        edge = np.concatenate([pixels[top - 2, left:right], pixels[bottom + 1, left:right]])
        contrasts.append(abs(middle.mean() - edge.mean()))
    assert np.mean(contrasts) > 40


def test_objects_survive_the_crop(shapes: Path) -> None:
    for split, count in (("val", 1), ("pairs", 2)):
        data = ShapesDataModule(str(shapes), 64, 80, 60, split=split, num_workers=0)
        data.prepare_data()
        data.setup("test")
        for batch in data.test_dataloader():
            assert batch["image"].shape[1:] == (3, 112, 112)
            for i, label in enumerate(batch["label"]):
                boxes, labels = boxes_of(batch, i)
                assert len(boxes) == len(set(labels.tolist())) == count
                assert label in labels
                # Not cut by the border: no side lies on it.
                assert boxes.min() > 0
                assert boxes.max() < 112
                assert (boxes[:, 2:] - boxes[:, :2]).min() > 12


def test_pairs_do_not_overlap_and_are_filed_under_both(shapes: Path) -> None:
    files = sorted((shapes / "pairs").glob("*/*.JPEG"))
    assert len(files) == 120
    for file in files:
        annotation = read_annotation((shapes / "annotations" / file.relative_to(shapes)).with_suffix(".xml"))
        a, b = annotation.boxes
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert {(shapes / "pairs" / name / file.name).read_bytes() for name in annotation.names} == {file.read_bytes()}


def test_written_once_and_never_over_something_else(tmp_path: Path) -> None:
    write_shapes(tmp_path / "x", 0, 2, 0, seed=0)
    before = (tmp_path / "x/shapes.json").stat().st_mtime_ns
    write_shapes(tmp_path / "x", 0, 2, 0, seed=0)
    assert (tmp_path / "x/shapes.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"'n_val': 2.*, not .*'n_val': 3.*another folder"):
        write_shapes(tmp_path / "x", 0, 3, 0, seed=0)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="holds no generated shapes"):
        write_shapes(tmp_path / "mine", 0, 2, 0, seed=0)


def test_unknown_split() -> None:
    with pytest.raises(DataError, match="val or pairs, got 'test'"):
        ShapesDataModule(split="test")
