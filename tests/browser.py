"""Pages in a headless chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=25000"),
)


def find_browser() -> str | None:
    """The browser that VGG_LENS_BROWSER names, which has to be there; else chromium, if it is in PATH."""
    return os.environ.get("VGG_LENS_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")


def visit(browser: str, address: str, folder: Path, *options: str, size: str = "1500,1100") -> str:
    """Opens a page; returns what the browser prints, such as the page's elements after its scripts have run.

    Args:
        browser: A chromium.
        address: Of the page.
        folder: Where the browser may write.
        *options: What it is to do: ``--dump-dom``, ``--screenshot=FILE``.
        size: Of the window: width,height.
    """
    command = [browser, *OPTIONS, f"--window-size={size}", f"--user-data-dir={folder / 'profile'}", *options, address]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def answers(browser: str, page: Path, folder: Path, script: str, *options: str) -> str:
    """What a script gives that runs in a page once all of it is loaded: text.

    Args:
        browser: A chromium.
        page: An HTML file; a copy is opened, into which the script is written.
        folder: Where the copy goes.
        script: An expression in JavaScript.
        *options: Further ones of the browser.
    """
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    ask = f"onload = async () => {{ document.documentElement.dataset.answer = String(await ({script})); }}"
    copy = folder / "asked.html"
    copy.write_text(html.replace("</head>", f"<script>{ask}</script></head>", 1), encoding="utf-8")
    shown = visit(browser, copy.as_uri(), folder, "--dump-dom", *options)
    found = re.search(r'<html[^>]*data-answer="([^"]*)"', shown)
    assert found is not None, shown[:2000]
    return found[1]
