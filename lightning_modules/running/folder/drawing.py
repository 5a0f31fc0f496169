"""Figures drawn in another process, while the next step runs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from lightning_modules.escaping import plain
from lightning_modules.figures.fonts import missing_letters_are_told, take_missing_letters_as_told
from lightning_modules.figures.saving import Drawing, FigureFormat, save_figure
from lightning_modules.running import stopping

MOST_WAITING = 16
"""Figures that wait to be drawn, at most: whoever hands over another one waits for the first of them."""

SECONDS_PER_FIGURE = 300.0
"""How long the other process may be silent before it is given up."""

KILLED = "was killed, as where memory is short"

Told = tuple[str, type[Warning], str, int]
"""A warning: what it says, its category, file and line."""

Answer = tuple[list[Told], bool]
"""Of a figure that was drawn elsewhere: its warnings, and whether that process has told of missing letters."""


@dataclass
class _Handed:
    """A figure that was handed over.

    Attributes:
        figure: Or what draws it; None = it is drawn.
        name: Of its file.
        of: The image, in messages.
        future: What the other process says of it; None = it is to be drawn in this one.
    """

    figure: Figure | Drawing | None
    name: str
    of: str
    future: Future[Answer] | None


class Drawer:
    """Draws figures in the order in which they are handed over: in another process, where that can be had.

    That process is forked, as those that read images are: it needs no start, no import and no memory of its own. It
    gets arrays and text, and never touches a device, which it could not use. It is forked before the others and before
    the first batch, so that it holds no pipe of theirs, and shares little memory that this process is going to write.

    Where there is none, or it dies, figures are drawn in this process; so are those that are Figures already, and
    those that cannot be handed over.

    Args:
        folder: Where the figures' files go.
        file_format: png, or pdf for both.

    Attributes:
        n_handed_over: Figures handed over so far.
        n_drawn: How many of them are drawn: the first ones.
    """

    def __init__(self, folder: Path, file_format: FigureFormat = "png") -> None:
        self.folder = folder
        self.file_format = file_format
        self.n_drawn = 0
        self._handed: list[_Handed] = []
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0

    @property
    def n_handed_over(self) -> int:
        return len(self._handed)

    def start(self) -> None:
        """Starts the other process, if it can be forked."""
        if self._pool is not None or multiprocessing.get_start_method() != "fork":
            return
        try:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _begin, (os.getpid(),))
            self._pid = self._pool.submit(os.getpid).result(SECONDS_PER_FIGURE)
        except (OSError, ImportError, BrokenProcessPool) as error:  # no process, or nothing that it could wait at
            self._give_up(f"cannot be started ({plain(str(error))})")

    def hand_over(self, figure: Figure | Drawing, name: str, of: str) -> None:
        """Has a figure drawn to ``name`` in the folder; waits while too many others do.

        Args:
            figure: The figure or, to be drawn in the other process, what draws it: such as a ``functools.partial`` of
                a module's function, with arrays and text alone.
            name: Of the file, without extension.
            of: The image, in messages.

        Raises:
            RuntimeError: If this figure, or one handed over before, cannot be drawn; names the image.
            OSError: If one cannot be written.
        """
        self._handed.append(_Handed(figure, name, of, self._sent(figure, name)))
        self.look()
        self.wait(MOST_WAITING)

    def look(self) -> None:
        """Takes note of what is drawn by now; raises what :meth:`wait` raises."""
        while self.n_drawn < self.n_handed_over and _is_done(self._handed[self.n_drawn].future):
            self._finish_next()

    def wait(self, most_left: int = 0) -> None:
        """Waits until at most so many figures are left to draw.

        Raises:
            RuntimeError: If one cannot be drawn; names the image.
            OSError: If one cannot be written.
        """
        while self.n_handed_over - self.n_drawn > most_left:
            self._finish_next()

    def drawn_within(self, seconds: float) -> int:
        """How many figures, the first ones, are drawn after at most so many seconds; any thread may ask."""
        end, n = time.monotonic() + seconds, self.n_drawn
        for handed in self._handed[n:]:
            if handed.future is None or not _is_done(handed.future, max(0.0, end - time.monotonic())):
                break
            if handed.future.cancelled() or handed.future.exception() is not None:
                break
            n += 1
        return n

    def close(self) -> None:
        """Ends the other process; what it has not begun to draw is not drawn any more."""
        if self._pool is None:
            return
        futures = [handed.future for handed in self._handed[self.n_drawn :] if handed.future is not None]
        begun = [future for future in futures if not future.cancel()]
        if not all(_is_done(future, SECONDS_PER_FIGURE) for future in begun):
            self._kill()
        self._pool.shutdown()
        self._pool = None

    def _sent(self, figure: Figure | Drawing, name: str) -> Future[Answer] | None:
        """What the other process is going to say of a figure; None = this one is to draw it."""
        if self._pool is None or isinstance(figure, Figure):
            return None
        try:
            content = pickle.dumps(figure)
        except Exception:  # such as of a lambda: of whatever kind, it matters only there
            return None
        try:
            return self._pool.submit(_draw, content, self.folder, name, self.file_format)
        except BrokenProcessPool:
            self._give_up(KILLED)
            return None

    def _finish_next(self) -> None:
        """Sees to it that the first figure that is left is drawn."""
        handed = self._handed[self.n_drawn]
        assert handed.figure is not None
        if not _is_done(handed.future, SECONDS_PER_FIGURE):
            self._kill()
            self._give_up(f"has not answered for {SECONDS_PER_FIGURE:.0f} s")
            handed.future = None
        try:
            if handed.future is not None:
                told, letters_are_told = handed.future.result()
                for warning in told:
                    warnings.warn_explicit(*warning)
                if letters_are_told:
                    take_missing_letters_as_told()
        except BrokenProcessPool:
            self._give_up(KILLED)
            handed.future = None
        except Exception as error:
            raise _named(error, handed.of) from error
        if handed.future is None:
            try:
                save_figure(handed.figure, self.folder, handed.name, self.file_format)
            except Exception as error:
                raise _named(error, handed.of) from error
        handed.figure = None
        self.n_drawn += 1

    def _give_up(self, why: str) -> None:
        """Tells of the other process's end; from now on this one draws."""
        if self._pool is not None:
            warnings.warn(f"The process that draws figures {why}: this one draws them.", stacklevel=2)
            self._pool.shutdown()
            self._pool = None

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


def _is_done(future: Future[Answer] | None, seconds: float = 0.0) -> bool:
    return future is None or future in wait([future], seconds).done


def _named(error: Exception, of: str) -> Exception:
    """An error of a figure, with the image's name; those of the file system name the figure's file."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return RuntimeError(f"The figure of {plain(of)} cannot be drawn: {type(error).__name__}: {error}")


def _begin(parent: int) -> None:
    """Readies the other process: signals are for the first one, which ends it; and it outlives that one by no means."""
    for signum in stopping.SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    torch.set_num_threads(1)  # those of the process that it was forked from are not there

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(stopping.SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the first process").start()


def _draw(content: bytes, folder: Path, name: str, file_format: FigureFormat) -> Answer:
    """Draws a figure, in the other process."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # the first process chooses
        save_figure(pickle.loads(content), folder, name, file_format)
    return [
        (str(each.message), each.category, each.filename, each.lineno) for each in caught
    ], missing_letters_are_told()
