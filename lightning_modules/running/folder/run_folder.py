"""The folder of a run: who writes it, what it was made from, and whether it may be continued."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from datamodules.writing import written_whole
from lightning_modules.results.arrays import remove_unfinished_parts

FORMAT = 2
"""Of what a run leaves; counted up when its files come to mean something else."""

SPLIT = frozenset(
    (
        *("config", "figure_format", "out", "overwrite", "report", "strict"),
        # These five by where they lie or what they hold, however that is written: inputs.json.
        *("data.boxes", "data.exemplars", "data.labels", "data.root", "data.synsets"),
        *("data.batch_size", "data.num_workers", "model.compile", "trainer.accelerator", "trainer.devices"),
        *("trainer.limit_test_batches", "trainer.num_nodes", "trainer.strategy"),
    )
)
"""Options that decide how the work is split, how much of it is done, or how it is shown, never a number."""

FOLDERS = ("results", "maps", "adversarial", "figures", "images", "exemplars", "looks", "strategies", "tensorboard")
FILES = ("summary.json", "inputs.json", "sessions.json", "listing.arrow", "config.yaml", "report.json", "index.html")
LEFT = (*FOLDERS, *FILES)
"""What a run leaves in its folder; nothing else is ever deleted."""

KEPT = ("maps", "adversarial")
"""Where parts lie that are named after those of the rows."""

WAIT_S = 15.0
"""How long a lock is waited for: the other processes of a run whose first was killed notice it after their batch."""


class RunError(ValueError):
    """A RUN that cannot be used as asked; the message says why."""


class RunFolder:
    """The folder that holds all that a run leaves, locked against other runs while one writes it.

    Args:
        path: The folder; made when it is locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Takes the folder for this run alone; its first process calls this, before the others start.

        Raises:
            RunError: If another run writes it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"--out should be a folder, but {self.path} is a file.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"The folder --out {self.path} cannot be made: {error.strerror}.") from error
        self._take(fcntl.LOCK_EX)
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
            self._lock.flush()
        self.share()

    def share(self) -> None:
        """Takes part in the run that has the folder: it is in use until each of its processes has ended."""
        self._take(fcntl.LOCK_SH)

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def _take(self, kind: int) -> None:
        # Record locks: they end with the process, however it ends, and are not inherited by the workers that it forks.
        path = self.path / ".lock"
        if self._lock is None:
            self._lock = path.open("a+")
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return fcntl.lockf(self._lock, kind | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    warnings.warn(
                        f"{path} cannot be locked ({error.strerror}): start no second run there.", stacklevel=2
                    )
                    return self.unlock()
            if time.monotonic() > end:
                holder = path.read_text() or "another process"
                self.unlock()
                raise RunError(
                    f"{self.path} is being written by {holder}. Wait for it, or give this run another --out."
                )
            time.sleep(0.2)

    def has_rows(self) -> bool:
        return any((self.path / "results").glob("part-*.parquet"))

    def is_run(self) -> bool:
        """Whether a run has written here."""
        return (self.path / "sessions.json").exists()

    def clear(self, inputs: Sequence[Path]) -> None:
        """Deletes what an earlier run left; nothing where there was none.

        Raises:
            RunError: If one of ``inputs`` lies in what would be deleted, or there are rows of somebody else's.
        """
        if not self.is_run():
            if self.has_rows():
                raise RunError(f"{self.path}/results was not left by a run of ours. Give this run another --out.")
            return
        for path in inputs:
            if any(path.resolve().is_relative_to((self.path / name).resolve()) for name in LEFT):
                raise RunError(f"{path} lies in what --out {self.path} would replace. Give this run another --out.")
        for name in LEFT:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Deletes what a killed run was about to write, aside."""
        if not self.is_run():
            return
        aside = [path for name in FILES for path in self.path.glob(f".{name}.*.tmp")]
        for path in aside + [path for folder in FOLDERS for path in (self.path / folder).rglob(".*.tmp")]:
            path.unlink()
        for folder in KEPT:
            remove_unfinished_parts(self.path, folder)

    def refuse_other_version(self) -> None:
        """Asks that this version, or one that leaves the same files, began the run.

        Raises:
            RunError: If another one did.
        """
        if any(session.get("format") != FORMAT for session in self._sessions() or [{}]):
            raise RunError(
                f"{self.path} holds a run of another version of VGG Lens, which this one neither reads nor "
                "continues: compute it again, into another --out or with --overwrite."
            )

    def settle(self, name: str, text: str, *, fixed: bool, start_over: str = "start over with --overwrite") -> None:
        """Writes settings, YAML or JSON, to a file; or, where they are ``fixed``, compares them with what it holds.

        Args:
            name: The file.
            text: What it is to hold.
            fixed: Whether it holds that of a run that is to go on.
            start_over: How to, in words.

        Raises:
            RunError: If they differ; names each difference.
        """
        path = self.path / name
        if not (fixed and path.exists()):
            return write_text(path, text)
        before, now = yaml.safe_load(path.read_text()), yaml.safe_load(text)
        if differences := [f"{name} was {old!r}, is now {new!r}" for name, old, new in differences_of(before, now)]:
            raise RunError(
                f"{self.path} holds a run of other settings: {'; '.join(differences)}. Give this one another --out, or "
                f"{start_over}."
            )

    def begin_session(self, command: str) -> None:
        """Notes that a process began to add to the run, by which command."""
        session = {"began": time.time_ns(), "command": command, "format": FORMAT}
        self._write_sessions([*self._sessions(), session])

    def end_session(self) -> None:
        *before, last = self._sessions()
        self._write_sessions([*before, {**last, "ended": time.time_ns()}])

    def commands(self) -> list[str]:
        """The commands that added rows, each once, the first one first; where none did, the present one."""
        sessions = self._sessions_with_parts()
        return list(dict.fromkeys(session["command"] for session, parts in sessions if parts)) or [
            sessions[-1][0]["command"]
        ]

    def wall_time(self) -> float:
        """Seconds that the run took, over all its sessions; one that was killed ended with its last part."""
        return (
            sum(
                session.get("ended", max(parts, default=session["began"])) - session["began"]
                for session, parts in self._sessions_with_parts()
            )
            / 1e9
        )

    def has_grown(self) -> bool:
        """Whether the present session has added rows."""
        return bool(self._sessions_with_parts()[-1][1])

    def n_sessions(self) -> int:
        return len(self._sessions())

    def _sessions_with_parts(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Each session, and when the parts of its rows were written, in nanoseconds."""
        sessions = self._sessions()
        ends = [*(session["began"] for session in sessions[1:]), time.time_ns()]
        parts = [int(path.name.split("-")[1]) for path in (self.path / "results").glob("part-*.parquet")]
        return [
            (session, [part for part in parts if session["began"] <= part <= end])
            for session, end in zip(sessions, ends)
        ]

    def _sessions(self) -> list[dict[str, Any]]:
        path = self.path / "sessions.json"
        return json.loads(path.read_text()) if path.exists() else []

    def _write_sessions(self, sessions: list[dict[str, Any]]) -> None:
        write_text(self.path / "sessions.json", json.dumps(sessions))


def write_text(path: Path, text: str) -> None:
    """Writes a file that is either whole or as it was."""
    with written_whole(path) as aside:
        aside.write_text(text)


class _NotGiven:
    """What stands for an option that settings do not give: null is something else."""

    def __repr__(self) -> str:
        return "not given"


NOT_GIVEN = _NotGiven()


def differences_of(before: Any, now: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The name and both values of what differs between two settings, apart from how the work is split."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            difference
            for key in sorted(before.keys() | now.keys())
            if f"{prefix}{key}" not in SPLIT
            for difference in differences_of(before.get(key, NOT_GIVEN), now.get(key, NOT_GIVEN), f"{prefix}{key}.")
        ]
    return [] if before == now else [(prefix[:-1], before, now)]
