"""What activation maximization is composed of: parametrizations, objectives, regularizers, transforms,
schedules.

Nothing here judges a finished image or writes it; methods and attacks are siblings.

To add one of these, derive a class in a file of your own, keep each option of ``__init__`` as the attribute of its
name, and name the class on the command line by its import path. The README.md of this folder shows an objective.
"""

from lightning_modules.synthesis.maximization import VARIANTS, Progress, Recipe, generators, maximize
from lightning_modules.synthesis.objectives import (
    Channel,
    ClassLogit,
    LogitMargin,
    Objective,
    respond,
    responses,
)
from lightning_modules.synthesis.parametrizations import FourierImage, Parametrization, PixelImage
from lightning_modules.synthesis.regularizers import L2, Regularizer, TotalVariation, total_variation
from lightning_modules.synthesis.schedules import CoarseToFine, Schedule
from lightning_modules.synthesis.transforms import (
    GaussianBlur,
    GaussianNoise,
    RandomRotation,
    RandomScale,
    RandomShift,
    Transform,
    shift,
)
from lightning_modules.synthesis.views import RandomColor, RandomView

__all__ = [
    "L2",
    "VARIANTS",
    "Channel",
    "ClassLogit",
    "CoarseToFine",
    "FourierImage",
    "GaussianBlur",
    "GaussianNoise",
    "LogitMargin",
    "Objective",
    "Parametrization",
    "PixelImage",
    "Progress",
    "RandomColor",
    "RandomRotation",
    "RandomScale",
    "RandomShift",
    "RandomView",
    "Recipe",
    "Regularizer",
    "Schedule",
    "TotalVariation",
    "Transform",
    "generators",
    "maximize",
    "respond",
    "responses",
    "shift",
    "total_variation",
]
