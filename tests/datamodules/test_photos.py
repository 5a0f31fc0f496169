from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, Preprocess
from datamodules.photos import PhotoFolder


def write(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (12 + k, 17, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def photos(root: Path, workers: int = 0) -> PhotoFolder:
    return PhotoFolder(str(root), "data.exemplars", Preprocess(10, 8), workers)


@pytest.mark.parametrize("names", [("b.png", "a.png"), ("n01440764/a.png", "whatever/b.png")])
def test_all_of_a_folder_flat_or_of_class_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, *names)
    (tmp_path / names[0]).with_name("broken.jpg").write_bytes(b"x")
    (batch,) = photos(tmp_path).batches()
    assert sorted(batch["path"]) == sorted(names)
    assert [Path(path).name for path, _ in batch["failed"]] == ["broken.jpg"]
    for number, index in enumerate(batch["index"].tolist()):
        pixels = photos(tmp_path).pixels(index)
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), batch["image"][number])


@pytest.mark.process
def test_batches_are_the_same_with_workers(tmp_path: Path) -> None:
    write(tmp_path, *(f"{k:02d}.png" for k in range(40)))
    alone, shared = ([batch["path"] for batch in photos(tmp_path, workers).batches()] for workers in (0, 2))
    assert alone == shared
    assert [len(paths) for paths in alone] == [32, 8]


def test_other_photos_have_another_fingerprint(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    before = photos(tmp_path).fingerprint()
    write(tmp_path, "a.png", "b.png")
    assert photos(tmp_path).fingerprint() != before


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.exemplars: The image folder .*nowhere does not exist"):
        photos(tmp_path / "nowhere").fingerprint()
    write(tmp_path, "a.png")
    folder = photos(tmp_path)
    assert len(folder) == 1
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"data\.exemplars: a\.png cannot be read any more: No such file"):
        folder.pixels(0)
