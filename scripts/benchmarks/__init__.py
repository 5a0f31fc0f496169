"""The rows of ``benchmark.py``: what is timed, against whom, and what must come out equal first."""
