"""Says what is known of a network: classes, sizes, normalization, its layers, and which methods apply.

Every script looks at its network so before the first image.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from lightning_modules.running import run_description, run_main


def main(args: list[str] | None = None) -> int:
    return run_description(description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
