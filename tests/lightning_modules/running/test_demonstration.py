from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_modules.errors import InputError
from lightning_modules.running.demonstration import demonstrate, parse_plan

ROOT = Path(__file__).parents[3]

SCRIPT = """
import sys

def main(words):
    print(f"{sys.argv[0]} says {words[0]}")
    if words[0] == "stop":
        raise InputError("no")
    return 3 if words[0] == "fail" else None

from lightning_modules.errors import InputError
"""

PLAN = """title: Title
lead: First this.
steps:
- title: One
  about: About one.
  command: my_say.py hello
- title: Two
  about: About <two>.
  command: >-
    my_say.py {}
    --top_k 1
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_say.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["scripts/demo.py", "--out", "x"])
    yield tmp_path
    del sys.modules["my_say"]
    assert sys.argv == ["scripts/demo.py", "--out", "x"]


def test_a_plan(tmp_path: Path) -> None:
    title, lead, steps = parse_plan(PLAN.format("OUT/x --out OUT/y"), tmp_path)
    assert (title, lead) == ("Title", "First this.")
    assert [(step.title, step.about) for step in steps] == [("One", "About one."), ("Two", "About <two>.")]
    assert steps[1].words == ["my_say.py", f"{tmp_path}/x", "--out", f"{tmp_path}/y", "--top_k", "1"]
    assert (steps[0].out, steps[1].out) == (None, tmp_path / "y")
    assert steps[1].command == f"python scripts/my_say.py {tmp_path}/x \\\n    --out {tmp_path}/y \\\n    --top_k 1"


def test_the_demo_has_a_plan() -> None:
    title, lead, steps = parse_plan((ROOT / "scripts/demo.yml").read_text(), Path("runs/demo"))
    assert title
    assert lead
    assert len({step.title for step in steps}) == len(steps) > 5
    outs = [step.out for step in steps if step.out]
    assert len(set(outs)) == len(outs)
    for step in steps:
        assert (ROOT / "scripts" / step.words[0]).exists()
        assert step.about
        assert "OUT" not in step.command


def test_all_is_printed_in_order_and_on_the_page(scripts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (scripts / "plan.yaml").write_text(PLAN.format("hi"))
    assert demonstrate(scripts / "plan.yaml", scripts / "out") == 0
    first, second = "\n$ python scripts/my_say.py hello\n", "\n$ python scripts/my_say.py hi \\\n    --top_k 1\n"
    says = "scripts/my_say.py says "
    assert capfd.readouterr().out == f"{first}{says}hello\n{second}{says}hi\n"
    page = (scripts / "out/index.html").read_text()
    assert "About &lt;two&gt;." in page
    assert f"{says}hi" in page


def test_a_step_that_fails_ends_the_demo(scripts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    further = f"- title: Three\n  about: No.\n  command: my_say.py wait {scripts}/pid\n"
    (scripts / "plan.yaml").write_text(PLAN.format("fail") + further)
    assert demonstrate(scripts / "plan.yaml", scripts / "out") == 3
    (scripts / "plan.yaml").write_text(PLAN.format("stop") + further)
    with pytest.raises(InputError, match="no"):
        demonstrate(scripts / "plan.yaml", scripts / "out")
    output = capfd.readouterr().out
    assert "says fail" in output
    assert "says stop" in output
    assert "wait" not in output
    assert not (scripts / "out/index.html").exists()
