"""A demonstration: commands, each with what is to be seen, run one after the other in this process, and one page."""

from __future__ import annotations

import contextlib
import importlib
import io
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from lightning_modules.pages.page import Page, Section
from lightning_modules.pages.runs import section_of_run
from lightning_modules.running.cli import as_typed


class Step(NamedTuple):
    """A command of our scripts, a title of a few words, and what is to be seen."""

    title: str
    about: str
    words: list[str]

    @property
    def command(self) -> str:
        """The command as it is typed where ``scripts`` lies, an option a line."""
        return as_typed(["python", f"scripts/{self.words[0]}", *self.words[1:]])

    @property
    def out(self) -> Path | None:
        """The folder that the command fills, if any."""
        return Path(self.words[self.words.index("--out") + 1]) if "--out" in self.words else None


def demonstrate(plan: Path, out: Path) -> int:
    """Prints and runs the commands of a plan by their scripts' own ``main``, and writes the page of them all.

    Args:
        plan: A file beside the scripts, see :func:`parse_plan`.
        out: The folder for all that is made; the page is its ``index.html``.

    Returns:
        The exit code of the first command that failed, after which there is no page; else 0.
    """
    title, lead, steps = parse_plan(plan.read_text(encoding="utf-8"), out)
    sections = []
    for step in steps:
        print(f"\n$ {step.command}", flush=True)
        code, output = _run(step)
        if code:
            return code
        sections.append(
            section_of_run(step.out, [step.command], step.title, step.about)
            if step.out
            else Section(step.title, step.about, [step.command], output=output.strip("\n"))
        )
    Page(title, lead, sections).write(out / "index.html")
    return 0


def _run(step: Step) -> tuple[int, str]:
    """Runs a step and gives its exit code and, where it leaves no folder, what it printed."""
    if step.out:
        shutil.rmtree(step.out, ignore_errors=True)
    name, *options = step.words
    main = importlib.import_module(Path(name).stem).main
    before, sys.argv = sys.argv, [f"scripts/{name}"]  # from which a RUN knows the command that made it
    printed = io.StringIO()
    try:
        with contextlib.nullcontext() if step.out else contextlib.redirect_stdout(printed):
            return main(options) or 0, printed.getvalue()
    finally:
        sys.argv = before
        print(printed.getvalue(), end="", flush=True)


def parse_plan(text: str, out: Path) -> tuple[str, str, list[Step]]:
    """A title, the sentences below it, and steps, of YAML: ``title``, ``lead``, ``steps``.

    Args:
        text: Each step has a ``title``, ``about``, sentences, and a ``command``, in which ``OUT`` stands for ``out``.
        out: The folder.

    Example:
        >>> text = "{title: Demo, lead: All., steps: [{title: Look, about: A cat., command: predict.py OUT/cat.png}]}"
        >>> parse_plan(text, Path("runs"))[2]
        [Step(title='Look', about='A cat.', words=['predict.py', 'runs/cat.png'])]
    """
    plan = yaml.safe_load(text)
    steps = [
        Step(step["title"], step["about"], [word.replace("OUT", str(out)) for word in shlex.split(step["command"])])
        for step in plan["steps"]
    ]
    return plan["title"], plan["lead"], steps
