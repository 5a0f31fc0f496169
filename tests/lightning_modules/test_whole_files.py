from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.writing import written_whole


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    with written_whole(path) as aside:
        aside.write_text("half")
        assert not path.exists()
        assert aside.parent == path.parent  # a rename goes no farther
        assert aside.name.startswith(".")
        aside.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")

    def write() -> None:
        with written_whole(path) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
