"""VGG16 and what is computed from it."""

from lightning_modules.activation_maximization import ActivationMaximizationModule
from lightning_modules.attacks.base import FGSM, PGD, Attack
from lightning_modules.attribution import AttributionModule
from lightning_modules.classifier import ClassifierModule, PredictionModule
from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.memory import keep_freed_memory
from lightning_modules.methods.base import (
    AttributionMethod,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    Saliency,
    SmoothGrad,
)
from lightning_modules.networks.loading import load_network, normalized
from lightning_modules.networks.vgg16 import VGG16, fold_batch_norm, load_vgg16, save_vgg16
from lightning_modules.networks.weight_files import WeightsError
from lightning_modules.robustness import RobustnessModule
from lightning_modules.running.callbacks import FigureWriter, ReportWriter, RowWriter, RunFigureWriter, Summarizer
from lightning_modules.running.synthesis_callbacks import ImageWriter, SheetWriter, SynthesisProgress

__all__ = [
    "FGSM",
    "PGD",
    "VGG16",
    "ActivationMaximizationModule",
    "Attack",
    "AttributionMethod",
    "AttributionModule",
    "ClassifierModule",
    "FigureWriter",
    "ForwardPass",
    "GradCAM",
    "GuidedBackprop",
    "GuidedGradCAM",
    "ImageWriter",
    "InputError",
    "PredictionModule",
    "ReportWriter",
    "RobustnessModule",
    "RowWriter",
    "RunFigureWriter",
    "Saliency",
    "SheetWriter",
    "SmoothGrad",
    "Summarizer",
    "SynthesisProgress",
    "WeightsError",
    "fold_batch_norm",
    "keep_freed_memory",
    "load_network",
    "load_vgg16",
    "normalized",
    "save_vgg16",
]
