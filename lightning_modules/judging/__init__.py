"""What is said of a finished image: by the network that made it, and by judges, which had no part in it.

Nothing here optimizes an image or writes a file.
"""

from lightning_modules.judging.judges import Judge, load_judges, tell_of, with_verdicts
from lightning_modules.judging.maker import clipped, judged_by_maker, unreached

__all__ = ["Judge", "clipped", "judged_by_maker", "load_judges", "tell_of", "unreached", "with_verdicts"]
