"""How the peers make maps: Captum, pytorch-grad-cam, torchcam, zennit; each of any network of ours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.setting import LAYER
from lightning_modules import Network
from lightning_modules.networks.inputs import trusted


def captum_maps(network: Network, images: Tensor, target: Tensor, product: bool = False) -> tuple[Tensor, ...]:
    """Grad-CAM, Guided Backpropagation and Guided Grad-CAM by Captum, in three calls; or in two, with the product by
    hand.
    """
    from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam

    layer = network.layers[LAYER]
    size = (images.shape[2], images.shape[3])
    with warnings.catch_warnings(action="ignore"):
        cam = LayerGradCam(network, layer).attribute(images, target, relu_attributions=True)
        cam = LayerAttribution.interpolate(cam, size, "bilinear").detach()
        guided = captum_guided(network, images, target)
        if product:
            return cam, guided, cam * guided
        images = images.clone().requires_grad_()
        both = GuidedGradCam(network, layer).attribute(images, target, interpolate_mode="bilinear").detach()
    return cam, guided, both


def captum_guided(network: Network, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import GuidedBackprop

    with warnings.catch_warnings(action="ignore"):
        return GuidedBackprop(network).attribute(images.clone().requires_grad_(), target).detach()


def captum_smooth_grad(network: Network, images: Tensor, target: Tensor, n_samples: int, noise_level: float) -> Tensor:
    """Of one image: the deviation of the noise is a share of its range."""
    from captum.attr import NoiseTunnel, Saliency

    inputs, sigma = images.clone().requires_grad_(), noise_level * float(images.max() - images.min())
    options: dict[str, Any] = {"nt_type": "smoothgrad", "nt_samples": n_samples, "stdevs": sigma}
    with trusted():  # noise leads beyond [0, 1]
        return NoiseTunnel(Saliency(network)).attribute(inputs, target=target, abs=False, **options).detach()


def captum_input_x_gradient(network: Network, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import InputXGradient

    return InputXGradient(network).attribute(images.clone().requires_grad_(), target).detach()


def captum_integrated_gradients(network: Network, images: Tensor, target: Tensor, n_steps: int) -> Tensor:
    """By our rule, and as many points in a pass as ours."""
    from captum.attr import IntegratedGradients

    options: dict[str, Any] = {"n_steps": n_steps, "method": "riemann_right", "internal_batch_size": 32}
    return IntegratedGradients(network).attribute(images.clone(), target=target, **options).detach()


@torch.no_grad()
def captum_occlusion(network: Network, images: Tensor, target: Tensor, window: int, stride: int) -> Tensor:
    """From our baseline, and as many windows in a pass as ours."""
    from captum.attr import Occlusion

    options: dict[str, Any] = {
        "sliding_window_shapes": (3, window, window),
        "strides": (3, stride, stride),
        "baselines": network.mean_pixel[None].expand_as(images),
        "perturbations_per_eval": 32,
    }
    return Occlusion(network).attribute(images, target=target, **options)[:, :1]


def pytorch_grad_cam(network: Network, images: Tensor, target: Tensor, name: str = "GradCAM") -> Any:
    """A class activation map stretched to [0, 1], as an array ``(N, H, W)``."""
    import pytorch_grad_cam

    if not any(parameter.requires_grad for parameter in network.parameters()):
        images = images.clone().requires_grad_()  # or it would see no gradient
    return _stretched_map(getattr(pytorch_grad_cam, name), network, network.layers[LAYER], images, target)


def pytorch_grad_cam_family(network: Network, images: Tensor, target: Tensor, names: Sequence[str]) -> tuple[Any, ...]:
    """The same by each of several methods; and Captum's guided gradient, since pytorch-grad-cam has no rule for it."""
    maps = [pytorch_grad_cam(network, images, target, name) for name in names]
    return *maps, captum_guided(network, images, target)


def pytorch_score_cam(network: Network, images: Tensor, target: Tensor, layer: str) -> Any:
    """Of normalized images, so that what is hidden has the mean, as in the paper; in passes as large as ours."""
    from pytorch_grad_cam import ScoreCAM

    class Large(ScoreCAM):
        batch_size = 32

    with torch.no_grad(), redirect_stderr(io.StringIO()):  # a progress bar
        return _stretched_map(Large, network.module, network.layers[layer], network.normalized(images), target)


def _stretched_map(method: Any, module: nn.Module, layer: nn.Module, images: Tensor, target: Tensor) -> Any:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with method(model=module, target_layers=[layer]) as cam:
        maps = cam(input_tensor=images, targets=[ClassifierOutputTarget(k) for k in target.tolist()])
    module.zero_grad()
    return maps


def torchcam(network: Network, images: Tensor, target: Tensor) -> Any:
    from torchcam.methods import GradCAM

    with GradCAM(network, f"module.{LAYER}") as extractor:
        maps = extractor(target.tolist(), network(images.clone().requires_grad_()))
    network.zero_grad()
    return maps


def zennit_guided(network: Network, images: Tensor, target: Tensor) -> Tensor:
    from zennit.attribution import Gradient
    from zennit.composites import GuidedBackprop

    one_hot = torch.nn.functional.one_hot(target, len(network.class_names)).to(images)
    with Gradient(network, composite=GuidedBackprop()) as attributor:
        return attributor(images, one_hot)[1].detach()
