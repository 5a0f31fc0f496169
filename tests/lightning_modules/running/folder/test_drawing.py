"""Figures are the same wherever they are drawn, come in order, and take nothing down with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from lightning_modules import AttributionModule, GradCAM, GuidedBackprop, RobustnessModule
from lightning_modules.figures import fonts
from lightning_modules.figures.saving import Drawing, save_figure
from lightning_modules.figures.synthesis import Growth
from lightning_modules.running.folder import drawing
from lightning_modules.running.folder.drawing import Drawer
from lightning_modules.synthesis import Progress
from tests.lightning_modules.fragile import batch_of, dim_images

pytestmark = pytest.mark.process


@pytest.fixture
def drawer(tmp_path: Path) -> Iterator[Drawer]:
    drawer = Drawer(tmp_path / "figures")
    drawer.start()
    yield drawer
    drawer.close()
    assert not multiprocessing.active_children()


def empty() -> Figure:
    return Figure((1, 1))


def broken() -> Figure:
    raise ValueError("no such map")


def slow(go: Path) -> Figure:
    while not go.exists():
        time.sleep(0.01)
    return Figure((1, 1))


def who(note: Path) -> Figure:
    """Says which process draws."""
    note.write_text(str(os.getpid()))
    return Figure((1, 1))


def warning() -> Figure:
    warnings.warn("a letter is missing", stacklevel=1)
    return Figure((1, 1))


def figures() -> dict[str, Figure | Drawing]:
    """What the three modules have drawn, each of an image."""
    batch: Any = batch_of(dim_images(1)) | {"path": ["a/caf\u00e9 $1$.png"]}
    boxes = {"boxes": torch.tensor([[2.0, 3.0, 20.0, 30.0]]), "box_labels": torch.tensor([0])}
    batch |= boxes | {"n_boxes": torch.tensor([1])}
    found = {}
    for module in (
        AttributionModule("shapes", [GradCAM(), GuidedBackprop()], []),
        RobustnessModule("shapes", ["4/255", "8/255"], target="predicted"),
    ):
        found[type(module).__name__] = module.test_step(batch, 0)["figures"][0]
    growth = Growth(2)
    for step in (1, 2):
        growth.add(Progress(step, torch.rand(1, 3, 32, 32), torch.rand(1), torch.ones(1) > 0), 0)
    return found | {"Growth": growth.draw("a cat, seed 0")}


def test_the_files_are_those_that_this_process_writes_to_the_byte(drawer: Drawer, tmp_path: Path) -> None:
    for name, figure in figures().items():
        save_figure(figure, tmp_path / "here", name)
        drawer.hand_over(figure, name, "a.png")
    drawer.wait()
    here, there = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in tmp_path.iterdir())
    assert len(here) == 3
    assert here == there


def test_another_process_draws_while_this_one_goes_on(drawer: Drawer, tmp_path: Path) -> None:
    drawer.hand_over(partial(slow, tmp_path / "go"), "0", "a.png")
    drawer.hand_over(partial(who, tmp_path / "pid"), "1", "b.png")
    assert (drawer.n_handed_over, drawer.n_drawn, drawer.drawn_within(0)) == (2, 0, 0)
    (tmp_path / "go").touch()
    assert drawer.drawn_within(60) == 2
    assert drawer.n_drawn == 0  # until this process looks
    drawer.look()
    assert drawer.n_drawn == 2
    assert int((tmp_path / "pid").read_text()) != os.getpid()


def test_one_after_the_other_in_the_order_in_which_they_came(drawer: Drawer, tmp_path: Path) -> None:
    names = [str(k) for k in (3, 1, 2, 0)]
    for name in names:
        drawer.hand_over(empty, name, "a.png")
    drawer.wait()
    assert [path.stem for path in sorted(drawer.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)] == names


def test_only_so_many_wait(drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MOST_WAITING", 1)
    drawer.hand_over(partial(slow, tmp_path / "go"), "0", "a.png")
    (tmp_path / "go").touch()
    drawer.hand_over(empty, "1", "b.png")
    assert drawer.n_drawn >= 1


@pytest.mark.parametrize("starts", [True, False])
def test_what_cannot_be_drawn_names_its_image(tmp_path: Path, starts: bool) -> None:
    drawer = Drawer(tmp_path)
    if starts:
        drawer.start()

    def draw() -> None:
        drawer.hand_over(broken, "0", "a/cat.png")
        drawer.wait()

    with pytest.raises(RuntimeError, match=r"The figure of a/cat\.png cannot be drawn: ValueError: no such map"):
        draw()
    drawer.close()


def test_a_file_that_cannot_be_written_is_named(drawer: Drawer) -> None:
    drawer.folder.touch()
    drawer.hand_over(empty, "0", "a.png")
    with pytest.raises(OSError, match=r"exists: '.*/figures'"):
        drawer.wait()


def test_this_process_draws_what_it_has_to(drawer: Drawer, tmp_path: Path) -> None:
    """What cannot be handed over, and what is a Figure already, in its turn."""
    note = tmp_path / "pid"
    drawer.hand_over(partial(slow, tmp_path / "go"), "0", "a.png")
    drawer.hand_over(lambda: who(note), "1", "b.png")
    drawer.hand_over(Figure((1, 1)), "2", "c.png")
    assert not note.exists()
    (tmp_path / "go").touch()
    drawer.wait()
    assert int(note.read_text()) == os.getpid()
    assert sorted(path.name for path in drawer.folder.iterdir()) == ["0.png", "1.png", "2.png"]


def test_where_nothing_can_be_forked_this_process_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    drawer = Drawer(tmp_path)
    drawer.start()
    drawer.hand_over(partial(who, tmp_path / "pid"), "0", "a.png")
    assert (drawer.n_drawn, int((tmp_path / "pid").read_text())) == (1, os.getpid())


def test_where_the_process_cannot_start_this_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    drawer = Drawer(tmp_path)
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.warns(UserWarning, match=r"cannot be started \(\[Errno 11\] Resource .*\): this one draws them\."):
        drawer.start()
    drawer.hand_over(empty, "0", "a.png")
    assert drawer.n_drawn == 1


def test_a_process_that_is_killed_is_told_and_done_without(drawer: Drawer, tmp_path: Path) -> None:
    drawer.hand_over(partial(slow, tmp_path / "go"), "0", "a.png")
    drawer.hand_over(partial(who, tmp_path / "pid"), "1", "b.png")
    os.kill(drawer._pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    with pytest.warns(UserWarning, match=r"that draws figures was killed, as where memory is short: this one draws"):
        drawer.wait()
    assert (drawer.n_drawn, int((tmp_path / "pid").read_text())) == (2, os.getpid())
    drawer.hand_over(empty, "2", "c.png")
    assert drawer.n_drawn == 3


def test_one_that_is_killed_while_it_waits_is_told_too(drawer: Drawer) -> None:
    os.kill(drawer._pid, signal.SIGKILL)
    wait_until(lambda: drawer._pool is not None and bool(drawer._pool._broken))
    with pytest.warns(UserWarning, match="that draws figures was killed"):
        drawer.hand_over(empty, "0", "a.png")
    assert drawer.n_drawn == 1


def sleeping_elsewhere(here: int) -> Figure:
    if os.getpid() != here:
        time.sleep(600)
    return Figure((1, 1))


def test_a_process_that_is_silent_is_done_without(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "SECONDS_PER_FIGURE", 0.2)
    drawer.hand_over(partial(sleeping_elsewhere, os.getpid()), "0", "a.png")
    with pytest.warns(UserWarning, match="has not answered for 0 s: this one draws them"):
        drawer.wait()
    assert drawer.n_drawn == 1


def test_warnings_come_out_here(drawer: Drawer) -> None:
    drawer.hand_over(warning, "0", "a.png")
    with pytest.warns(UserWarning, match="a letter is missing"):
        drawer.wait()


def test_missing_letters_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts._Told, "yet", False)
    monkeypatch.setattr(fonts, "_fonts_with", lambda letters: [])
    drawer = Drawer(tmp_path)
    drawer.start()
    drawer.hand_over(unknown_letter, "0", "a.png")
    with pytest.warns(UserWarning, match="No font of this machine has the letters"):
        drawer.wait()
    drawer.hand_over(unknown_letter, "1", "b.png")
    drawer.close()
    save_figure(unknown_letter, tmp_path, "2")


def test_at_the_end_nothing_is_left(drawer: Drawer, tmp_path: Path) -> None:
    """What was not begun is not drawn."""
    shared = set(Path("/dev/shm").iterdir())
    drawer.hand_over(partial(slow, tmp_path / "go"), "0", "a.png")
    for k in range(1, 5):
        drawer.hand_over(empty, str(k), "b.png")
    threading.Timer(0.2, (tmp_path / "go").touch).start()
    drawer.close()
    assert has_ended(drawer._pid)
    assert "4.png" not in {path.name for path in drawer.folder.iterdir()}
    wait_until(lambda: not set(Path("/dev/shm").iterdir()) - shared)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    def run() -> None:
        drawer = Drawer(tmp_path)
        drawer.start()
        drawer.hand_over(partial(slow, tmp_path / "never"), "0", "a.png")
        (tmp_path / "pid").write_text(f"{drawer._pid} ")
        time.sleep(600)

    first = multiprocessing.get_context("fork").Process(target=run)
    first.start()
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith(" "))
    pid = int((tmp_path / "pid").read_text())
    assert not has_ended(pid)
    first.kill()
    first.join()
    wait_until(lambda: has_ended(pid))


def test_signals_are_for_the_first_process(drawer: Drawer, tmp_path: Path) -> None:
    drawer.hand_over(partial(slow, tmp_path / "go"), "0", "a.png")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(drawer._pid, signum)
    (tmp_path / "go").touch()
    drawer.wait()
    assert not has_ended(drawer._pid)


def unknown_letter() -> Figure:
    figure = Figure((1, 1))
    figure.text(0, 0, "\u732b")
    return figure


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but to be noted."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
