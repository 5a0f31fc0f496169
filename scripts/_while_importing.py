"""While a script imports, which takes seconds, Ctrl-C and SIGTERM end it in a sentence; then ``run_main`` sees to it.

Scripts import this first. It imports nothing that takes time, and does nothing where no script was started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import FrameType


def _end(signum: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        os.write(2, f"stopped by {signal.Signals(signum).name}.\n".encode())
    os._exit(128 + signum)


_started = getattr(sys.modules["__main__"], "__file__", None)
if _started and Path(_started).resolve().parent == Path(__file__).parent and multiprocessing.parent_process() is None:
    for _signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_signum) != signal.SIG_IGN:
            signal.signal(_signum, _end)
