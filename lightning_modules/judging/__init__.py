"""What is said of a finished image: by the network that made it, and by others, which had no part in it.

Nothing here optimizes an image or writes a file.
"""

from lightning_modules.judging.finished import judged_image, measured_image
from lightning_modules.judging.judges import JUDGE, VICTIM, Judge, show_to
from lightning_modules.judging.loading import load_judges, warn_of_judges

__all__ = ["JUDGE", "VICTIM", "Judge", "judged_image", "load_judges", "measured_image", "show_to", "warn_of_judges"]
