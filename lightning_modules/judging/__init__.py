"""What is said of a finished image: by the network that made it, and by judges, which had no part in it.

Nothing here optimizes an image or writes a file.
"""

from lightning_modules.judging.finished import judged_image, measured_image
from lightning_modules.judging.judges import Judge, load_judges, tell_of

__all__ = ["Judge", "judged_image", "load_judges", "measured_image", "tell_of"]
