"""What is said of a finished image: by the network that made it, and by others, which had no part in it.

Nothing here optimizes an image or writes a file.
"""

from lightning_modules.judging.finished import judged_image, measured_image
from lightning_modules.judging.judges import Judge, load_judges, tell_of
from lightning_modules.judging.victims import Victim, load_victims, show_to

__all__ = ["Judge", "Victim", "judged_image", "load_judges", "load_victims", "measured_image", "show_to", "tell_of"]
