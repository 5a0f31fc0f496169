"""What others make of the same images: Captum, pytorch-grad-cam, and RISE's formula in loops."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytorch_grad_cam
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import NoiseTunnel
from captum.attr import Occlusion as CaptumOcclusion
from captum.attr import Saliency as CaptumSaliency
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import (
    RISE,
    AttributionMethod,
    ForwardPass,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Needs,
    Network,
    Occlusion,
    ScoreCAM,
    SmoothGrad,
    VarGrad,
)
from lightning_modules.methods.baselines import baseline_images
from lightning_modules.random_numbers import RandomNumbers, seed_from
from tests.references import PEER_CAMS, bilinear, noise_of_keys, peer_grid

Oracle = Callable[[Network, Tensor, Tensor, list[str]], Tensor]
"""(network, images, target, keys) -> maps."""


def oracles(layer: str) -> Iterator[tuple[AttributionMethod, Oracle]]:
    """Methods, of which the class activation maps look at a layer, with what each should give."""
    for cam in PEER_CAMS:
        yield cam(layer), lambda *of, cam=cam: _cam(cam, layer, *of)
    yield InputXGradient(), lambda net, x, target, keys: CaptumInputXGradient(net).attribute(_leaf(x), target)
    for integral, rule in (
        (IntegratedGradients(6), "riemann_right"),
        (IntegratedGradients(5, "mean", "middle", max_batch=4), "riemann_middle"),
        (IntegratedGradients(4, "blur", "gauss_legendre"), "gausslegendre"),
        (IntegratedGradients(3, "noise", "middle"), "riemann_middle"),
    ):
        yield integral, lambda *of, i=integral, rule=rule: captum_integral(i, rule, *of)[0]
    guided = SmoothGrad(n_samples=3, method=GuidedBackprop(), max_batch=4)
    yield guided, lambda *of: _of_noise(CaptumGuidedBackprop, "smoothgrad", guided, *of)
    yield VarGrad(n_samples=4), lambda *of: _of_noise(CaptumSaliency, "vargrad", VarGrad(n_samples=4), *of)
    yield ScoreCAM(layer), lambda *of: _score_cam(layer, *of)
    for occlusion in (Occlusion(24, 17, max_batch=5), Occlusion(24, 20, "probability", "black")):
        yield occlusion, lambda *of, o=occlusion: _occlusion(o, *of)
    rise = RISE(n_masks=5, grid=3, p1=0.6, seed=2)
    yield rise, lambda *of: _rise(rise, *of)


def captum_integral(
    method: IntegratedGradients, rule: str, network: Network, images: Tensor, target: Tensor, keys: list[str]
) -> tuple[Tensor, Tensor]:
    """Captum's integral from our baseline, and how far it is from complete."""
    baseline = baseline_images(ForwardPass(network, images, target, keys=keys), method.baseline, method.seed)
    options: dict[str, Any] = {"n_steps": method.n_steps, "method": rule, "return_convergence_delta": True}
    return CaptumIntegratedGradients(network).attribute(_leaf(images), baseline, target, **options)


def _leaf(images: Tensor) -> Tensor:
    return images.clone().requires_grad_()


def _cam(cam: Any, layer: str, network: Network, images: Tensor, target: Tensor, keys: list[str]) -> Tensor:
    forward_pass = ForwardPass(network, images, target, needs=Needs(layer_gradients={layer}))
    grid = peer_grid(cam, forward_pass.activation(layer), forward_pass.layer_gradient(layer)).relu()
    return F.interpolate(grid, images.shape[2:], mode="bilinear", align_corners=False)


def _of_noise(
    of: Any, kind: str, method: SmoothGrad | VarGrad, network: Network, images: Tensor, target: Tensor, keys: list[str]
) -> Tensor:
    """Captum's noise tunnel, into which the noise is fed that follows from the keys."""
    drawn = noise_of_keys(keys, method.seed, method.n_samples, images, "normal")
    sigma = method.noise_level * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))[:, None, None, None]
    noise = iter(sigma * drawn)
    reference = copy.deepcopy(network)
    for module in reference.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # Captum's hooks cannot see through it
    options: dict[str, Any] = {} if of is CaptumGuidedBackprop else {"abs": False}
    with mock.patch("torch.normal", side_effect=lambda mean, std: next(noise)), _without_warnings():
        return NoiseTunnel(of(reference)).attribute(
            _leaf(images),
            nt_type=kind,
            nt_samples=method.n_samples,
            nt_samples_batch_size=1,
            target=target,
            **options,
        )


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _score_cam(layer: str, network: Network, images: Tensor, target: Tensor, keys: list[str]) -> Tensor:
    activation = ForwardPass(network, images, target, needs=Needs(activations={layer})).activation(layer)
    itself = SimpleNamespace(device="cpu", model=network.module, batch_size=32)
    targets = [ClassifierOutputTarget(int(k)) for k in target]

    def without_corners(size: Any) -> nn.Module:
        return nn.Upsample(size, mode="bilinear", align_corners=False)

    with mock.patch("torch.nn.UpsamplingBilinear2d", without_corners), mock.patch("tqdm.tqdm", lambda of: of):
        weights = pytorch_grad_cam.ScoreCAM.get_cam_weights(
            itself, network.normalized(images), None, targets, activation.numpy(), None
        )
    grid = (torch.from_numpy(weights)[:, :, None, None] * activation).sum(1, keepdim=True).relu()
    return F.interpolate(grid, images.shape[2:], mode="bilinear", align_corners=False)


def _occlusion(method: Occlusion, network: Network, images: Tensor, target: Tensor, keys: list[str]) -> Tensor:
    assert method.window is not None
    assert method.stride is not None
    score = network if method.score == "logit" else lambda images: network(images).softmax(1)
    shapes, strides = (3, method.window, method.window), (3, method.stride, method.stride)
    baseline = network.mean_pixel.expand(images.shape) if method.baseline == "mean" else 0
    with torch.no_grad():
        return CaptumOcclusion(score).attribute(images, shapes, strides, baseline, target)[:, :1]


def _rise(method: RISE, network: Network, images: Tensor, target: Tensor, keys: list[str]) -> Tensor:
    """RISE's formula, mask by mask, on normalized images."""
    _, _, height, width = images.shape
    maps, cell = np.zeros((len(images), height, width)), [math.ceil(side / method.grid) for side in (height, width)]
    for i, key in enumerate(keys):
        ((cells,), (shifts,)) = method._draw(RandomNumbers([seed_from(method.seed, key)], torch.device("cpu")))
        assert cells.float().mean() > 0.3  # some of each
        assert cells.float().mean() < 0.9
        for grid, shift in zip(cells, shifts, strict=True):
            y, x = (int(of * side) for of, side in zip(shift, cell, strict=True))
            large = bilinear(grid.numpy().astype(float), *((method.grid + 1) * side for side in cell))
            mask = large[y : y + height, x : x + width]
            with torch.no_grad():
                logits = network.module(network.normalized(images[i : i + 1]) * torch.from_numpy(mask))
            maps[i] += float(logits.softmax(1)[0, target[i]]) * mask
    return torch.from_numpy(maps)[:, None] / method.n_masks / method.p1
