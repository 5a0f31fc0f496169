"""A demonstration: commands with what is to be seen, run side by side, printed one after the other, and one page."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from contextlib import closing
from pathlib import Path

from lightning_modules.pages.page import Page, Section
from lightning_modules.pages.runs import section_of_run
from lightning_modules.running.steps import Ended, Step, run_steps


def demonstrate(plan: Path, out: Path) -> int:
    """Runs the commands of a plan, prints each with what it prints, and writes the page of them all.

    Args:
        plan: A file beside the scripts, see :func:`parse_plan`.
        out: The folder for all that is made; the page is its ``index.html``.

    Returns:
        The exit code of the first command that failed, after which there is no page; else 0.
    """
    title, lead, steps = parse_plan(plan.read_text(encoding="utf-8"), out)
    for step in steps:
        if step.out is not None:
            shutil.rmtree(step.out, ignore_errors=True)
    sections = []
    with closing(run_steps(steps, plan.parent)) as endings:
        for step in steps:
            print(f"\n$ {step.command}", flush=True)
            ended = next(endings)
            print(ended.stdout, end="", flush=True)
            print(ended.stderr, end="", file=sys.stderr, flush=True)
            if ended.code:
                return ended.code
            sections.append(_section(ended))
    Page(title, lead, sections).write(out / "index.html")
    return 0


def parse_plan(text: str, out: Path) -> tuple[str, str, list[Step]]:
    """A title, what is said first, and steps, each a title (``## ``), sentences, and a command (``$ ``).

    Args:
        text: In it, ``OUT`` stands for the folder ``out``, and a line that ends in a backslash goes on in the next one.

    Example:
        >>> text = "# Demo\\nAll.\\n\\n## Look\\nIt is a cat.\\n\\n$ predict.py OUT/cat.png --top_k 1\\n"
        >>> parse_plan(text, Path("runs"))[2]
        [Step(title='Look', about='It is a cat.', words=['predict.py', 'runs/cat.png', '--top_k', '1'])]
    """
    first, *others = re.split(r"(?m)^##? ", text.replace("\\\n", " "))[1:]
    title, _, lead = first.partition("\n")
    steps = []
    for part in others:
        said, _, command = part.partition("\n$ ")
        name, _, about = said.partition("\n")
        words = [word.replace("OUT", str(out)) for word in shlex.split(command)]
        steps.append(Step(name, " ".join(about.split()), words))
    return title, " ".join(lead.split()), steps


def _section(ended: Ended) -> Section:
    step = ended.step
    if step.out is None:
        return Section(step.title, step.about, [step.command], output=ended.stdout.strip("\n"))
    return section_of_run(step.out, [step.command], step.title, step.about)
