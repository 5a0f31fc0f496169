from __future__ import annotations

import os
from pathlib import Path

import pytest

from datamodules.writing import written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "new/x.txt"
    for text in ("first", "second"):
        with written_whole(file) as aside:
            aside.write_text(text)
            assert aside.parent == file.parent
            assert aside.name.startswith(".")
            assert not file.exists() or file.read_text() == "first"
        assert file.read_text() == text
        assert names(file.parent) == ["x.txt"]


def test_a_folder_takes_its_place_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty one may be there
    with written_whole(tmp_path / "out") as aside:
        (aside / "inner").mkdir(parents=True)
        assert names(tmp_path / "out") == []
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["inner"]


@pytest.mark.parametrize("folder", [False, True])
def test_nothing_is_left_after_an_error(tmp_path: Path, folder: bool) -> None:
    (tmp_path / "x").write_text("before")

    def fail() -> None:
        with written_whole(tmp_path / "x") as aside:
            if folder:
                aside.mkdir()
                aside = aside / "inner"
            aside.write_text("half")
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fail()
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "before"


def test_what_a_killed_process_of_the_same_number_left_is_no_part(tmp_path: Path) -> None:
    left = tmp_path / f".out.{os.getpid()}.tmp"
    left.mkdir()
    (left / "old").touch()
    with written_whole(tmp_path / "out") as aside:
        aside.mkdir()
        (aside / "new").touch()
    assert names(tmp_path / "out") == ["new"]
