"""Prints the most probable classes of images: files, folders (all images below them) and http(s) addresses.

Of images named after a class, by their file or folder, it says how many the network takes for it: so it judges class
images, whoever made them. What cannot be read is reported, and the rest still done; the exit code is then 1.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from lightning_modules.running import run_main, run_prediction


def main(args: list[str] | None = None) -> int:
    return run_prediction(description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
