"""Networks and what is computed from them: explanations, their scores, attacks, images; and the runs that do so.

Of ``datamodules`` only ``datamodules.batch`` is imported below ``front``, the contract.
"""

from lightning_modules.activation_maximization import ActivationMaximizationModule
from lightning_modules.attacks.apgd import APGD
from lightning_modules.attacks.base import Attack
from lightning_modules.attacks.fgsm import FGSM
from lightning_modules.attacks.minimum_norm import DDN, FMN, DeepFool
from lightning_modules.attacks.noise import Noise
from lightning_modules.attacks.pgd import PGD
from lightning_modules.attacks.sparse_l1 import SparseL1Descent
from lightning_modules.attacks.spsa import SPSA
from lightning_modules.attribution import AttributionModule
from lightning_modules.classifier import ClassifierModule, PredictionModule
from lightning_modules.errors import InputError
from lightning_modules.evaluation import EvaluationModule
from lightning_modules.front.files import attack_files, class_images, explain_files, predict_files, preprocess_files
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.memory import keep_freed_memory
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import GradCAM, GuidedGradCAM
from lightning_modules.methods.cam_weights import GradCAMPlusPlus, HiResCAM, XGradCAM
from lightning_modules.methods.deep_lift import DeepLift
from lightning_modules.methods.explain import Explanation, explain
from lightning_modules.methods.gradient import GuidedBackprop, InputXGradient, Saliency
from lightning_modules.methods.integrated_gradients import IntegratedGradients
from lightning_modules.methods.layer_cam import LayerCAM
from lightning_modules.methods.occlusion import Occlusion
from lightning_modules.methods.rise import RISE
from lightning_modules.methods.score_cam import ScoreCAM
from lightning_modules.methods.smooth_grad import SmoothGrad
from lightning_modules.methods.uninformed import CentreGaussian, EdgeFilter, OtherImage, Random, UninformedMethod
from lightning_modules.methods.var_grad import VarGrad
from lightning_modules.networks.built_in.vgg16 import VGG16, fold_batch_norm, load_vgg16, save_vgg16
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.making import as_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.weights.files import WeightsError
from lightning_modules.results.adversarial import read_adversarial
from lightning_modules.results.maps import read_maps, score_maps
from lightning_modules.robustness import RobustnessModule
from lightning_modules.running.folder.writer import RunWriter
from lightning_modules.running.progress import SynthesisProgress

__all__ = [
    "APGD",
    "DDN",
    "FGSM",
    "FMN",
    "PGD",
    "RISE",
    "SPSA",
    "VGG16",
    "ActivationMaximizationModule",
    "Attack",
    "AttributionMethod",
    "AttributionModule",
    "CentreGaussian",
    "ClassifierModule",
    "DeepFool",
    "DeepLift",
    "EdgeFilter",
    "EvaluationModule",
    "Explanation",
    "ForwardPass",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputError",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "Needs",
    "Network",
    "Noise",
    "Occlusion",
    "OtherImage",
    "PredictionModule",
    "Random",
    "RobustnessModule",
    "RunWriter",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "SparseL1Descent",
    "SynthesisProgress",
    "UninformedMethod",
    "VarGrad",
    "WeightsError",
    "XGradCAM",
    "as_network",
    "attack_files",
    "class_images",
    "explain",
    "explain_files",
    "fold_batch_norm",
    "keep_freed_memory",
    "load_network",
    "load_vgg16",
    "predict_files",
    "preprocess_files",
    "read_adversarial",
    "read_maps",
    "save_vgg16",
    "score_maps",
]
