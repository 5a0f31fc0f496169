from __future__ import annotations

import io
import warnings

import pytest
from rich.console import Console
from rich.text import Text

from lightning_modules.text import in_rich, plain, plain_lines, show_warnings_plainly

FROM_OUTSIDE = {
    "an end tag": "[/b]",
    "a tag": "[red]x",
    "a tag and its end": "[red]red[/red]",
    "any end tag": "[/]",
    "a link of Rich's": "[link=http://x]x[/link]",
    "an action": "[@click=quit]x",
    "an emoji's name": ":cat:",
    "an emoji's name and style": ":heart-text:",
    "an escaped tag": r"\[b]",
    "a backslash at the end": "C:\\folder\\",
    "a starred backslash": "\\*",
    "stars": "*bold* and **bold**",
    "underscores": "_emphasis_, snake_case",
    "backquotes": "`code`",
    "a bar": "a|b",
    "a link": "[link](http://x)",
    "HTML": "<b>bold</b> & <script>",
    "a formula": "$x_",
    "Chinese": "\u732b",
    "Korean": "\uace0\uc591\uc774",
    "a family": "\U0001f468\u200d\U0001f469",
}
"""What it is -> a name that has it, all of which can be seen."""

STEERING = {
    "colours": ("\x1b[31mred", " [31mred"),
    "an address": ("\x1b]8;;http://x\x1b\\x", " ]8;;http://x \\x"),
    "a bell": ("a\x07", "a "),
    "a carriage return": ("a.jpg\rb.jpg", "a.jpg b.jpg"),
    "lines": ("a\nb", "a b"),
    "a line separator": ("a\u2028b", "a b"),
    "the other direction": ("a\u202egpj.exe", "a gpj.exe"),
    "an isolate": ("a\u2066b", "a b"),
    "one byte's control": ("\x9b31m", " 31m"),
    "half a letter": ("a\ud800", "a "),
}
"""What it is -> a name that steers a terminal, and what is shown."""


def shown(text: Text | str) -> str:
    file = io.StringIO()
    Console(file=file, width=500, force_terminal=True, color_system=None).print(text)
    return file.getvalue().removesuffix("\n")


@pytest.mark.parametrize("text", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_what_can_be_seen_is_shown_as_it_is(text: str) -> None:
    assert plain(text) == text
    assert shown(in_rich(text)) == text


@pytest.mark.parametrize(("text", "expected"), STEERING.values(), ids=STEERING)
def test_what_steers_a_terminal_does_not(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert shown(in_rich(text)) == expected


def test_lines_of_our_own_stay() -> None:
    assert plain_lines("first\nsecond\x1b[2J\r") == "first\nsecond [2J "


def test_a_warning_steers_nothing(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    for _ in range(2):  # what runs twice is the same
        show_warnings_plainly()
    # What a user can mend is a line, without that of the code, which would look like a crash.
    text = warnings.formatwarning("no \x1b[31mcat:\nfound", UserWarning, "file.py", 3, "line")
    assert text == "warning: no  [31mcat: found\n"
    text = warnings.formatwarning("no \x1b[31mcat", FutureWarning, "file.py", 3, "line")
    assert "file.py:3: FutureWarning: no  [31mcat\n" in text
