from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_modules.running.demonstration import demonstrate, parse_plan
from lightning_modules.running.steps import Step, run_steps

ROOT = Path(__file__).parents[3]

SCRIPT = """
import os, sys, time
from pathlib import Path
from lightning_modules.running import run_main

def main():
    word = sys.argv[1]
    print(f"{sys.argv[0]} says {word}")
    if word == "fail":
        print("this is why", file=sys.stderr)
        return 3
    if word == "wait":
        Path(sys.argv[2]).write_text(str(os.getpid()))
        time.sleep(600)
"""

PLAN = """# Title
First
this.

## One
About one.

$ say.py hello

## Two
About <two>.

$ say.py {} \\
  --top_k 1
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    (tmp_path / "say.py").write_text(SCRIPT)
    return tmp_path


def test_a_plan(tmp_path: Path) -> None:
    title, lead, steps = parse_plan(PLAN.format("OUT/x --out OUT/y"), tmp_path)
    assert (title, lead) == ("Title", "First this.")
    assert [(step.title, step.about) for step in steps] == [("One", "About one."), ("Two", "About <two>.")]
    assert steps[1].words == ["say.py", f"{tmp_path}/x", "--out", f"{tmp_path}/y", "--top_k", "1"]
    assert (steps[0].out, steps[1].out) == (None, tmp_path / "y")
    assert steps[1].command == f"python scripts/say.py {tmp_path}/x \\\n    --out {tmp_path}/y \\\n    --top_k 1"


def test_the_demo_has_a_plan() -> None:
    title, lead, steps = parse_plan((ROOT / "scripts/demo.txt").read_text(), Path("runs/demo"))
    assert title
    assert lead
    assert len({step.title for step in steps}) == len(steps) > 5
    outs = [step.out for step in steps if step.out]
    assert len(set(outs)) == len(outs)
    for step in steps:
        assert (ROOT / "scripts" / step.words[0]).exists()
        assert step.about
        assert "OUT" not in step.command


@pytest.mark.process
def test_all_is_printed_in_order_and_on_the_page(scripts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (scripts / "plan.txt").write_text(PLAN.format("hi"))
    assert demonstrate(scripts / "plan.txt", scripts / "out") == 0
    first, second = "\n$ python scripts/say.py hello\n", "\n$ python scripts/say.py hi \\\n    --top_k 1\n"
    says = "scripts/say.py says "
    assert capfd.readouterr().out == f"{first}{says}hello\n{second}{says}hi\n"
    page = (scripts / "out/index.html").read_text()
    assert "About &lt;two&gt;." in page
    assert f"{says}hi" in page


@pytest.mark.process
def test_a_step_that_fails_ends_the_demo(scripts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (scripts / "plan.txt").write_text(PLAN.format("fail") + f"\n## Three\nNo.\n\n$ say.py wait {scripts}/pid\n")
    start = time.monotonic()
    assert demonstrate(scripts / "plan.txt", scripts / "out") == 3
    assert time.monotonic() - start < 300
    told = capfd.readouterr()
    assert "says fail" in told.out
    assert told.err.endswith("this is why\n")
    assert "wait" not in told.out
    assert not (scripts / "out/index.html").exists()


@pytest.mark.process
def test_a_step_starts_its_workers_as_if_it_had_been_typed(scripts: Path) -> None:
    method = "import multiprocessing\n\ndef main():\n    print(multiprocessing.get_start_method())\n"
    (scripts / "start.py").write_text(f"from lightning_modules.running import run_main\n{method}")
    (ended,) = run_steps([Step("", "", ["start.py"])], scripts)
    assert ended.stdout == f"{multiprocessing.get_start_method()}\n"


@pytest.mark.process
def test_a_step_that_is_killed_has_the_code_of_the_signal(scripts: Path) -> None:
    (scripts / "die.py").write_text("import os\nfrom lightning_modules.running import run_main\nmain = os.abort")
    (ended,) = run_steps([Step("", "", ["die.py"])], scripts)
    assert ended.code == 128 + signal.SIGABRT


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets, which are at most 107 bytes long."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.process
def test_steps_end_with_whoever_started_them(scripts: Path, short_folder: Path) -> None:
    waits, words = scripts / "pid", ["say.py", "wait", f"{scripts}/pid"]
    code = f"from lightning_modules.running.steps import *\nlist(run_steps([Step('', '', {words})], {str(scripts)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(short_folder)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        while not (waits.exists() and waits.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    pid = int(waits.read_text())
    while _is_alive(pid):  # the test's own limit ends this
        time.sleep(0.1)
    # No log is left; the folder of Python's own socket is, since nobody ended the process in order.
    assert [path for path in short_folder.rglob("*") if path.is_file()] == []


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
