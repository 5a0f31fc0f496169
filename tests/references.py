"""Slow, obvious re-implementations that the tests compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytorch_grad_cam as peers
import torch
from scipy import stats
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightning_modules import (
    ForwardPass,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    Needs,
    Network,
    XGradCAM,
    as_network,
)
from lightning_modules.methods.cam import ClassActivationMap
from lightning_modules.random_numbers import seed_from


def full_pass(
    module: nn.Module,
    images: Tensor,
    target: Tensor | int | None = None,
    *,
    layers: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
) -> ForwardPass:
    """A pass of which everything can be read; of ``layers`` too, None = of the network's target layer."""
    network = module if isinstance(module, Network) else as_network(module, input_size=8)
    default = [network.target_layer] if network.target_layer else []
    needs = Needs(
        layer_gradients=frozenset(default if layers is None else layers),
        input_gradient=True,
        guided_gradient=True,
        loss_gradient=True,
    )
    return ForwardPass(network, images, target, needs=needs, keys=keys)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, as a share of the largest entry of ``reference``."""
    assert ours.shape == reference.shape
    return float((ours - reference).detach().abs().max() / reference.detach().abs().max())


PEER_CAMS: dict[type[ClassActivationMap], tuple[type[peers.base_cam.BaseCAM], float]] = {
    GradCAM: (peers.GradCAM, 1.0),
    # These add a number to a denominator, so that small gradients, or small activations, count otherwise than in the
    # papers. Their maps are of gradients times a factor and of activations divided by it, which the papers' stay of.
    GradCAMPlusPlus: (peers.GradCAMPlusPlus, 1e8),
    XGradCAM: (peers.XGradCAM, 1e-8),
    HiResCAM: (peers.HiResCAM, 1.0),
    LayerCAM: (peers.LayerCAM, 1.0),
}
"""Class activation maps -> pytorch-grad-cam's, and the factor."""


def peer_grid(cam: type[ClassActivationMap], activation: Tensor, gradient: Tensor) -> Tensor:
    """pytorch-grad-cam's map ``(N, 1, h, w)`` of ``(N, C, h, w)``, before negative values are cut off."""
    peer, factor = PEER_CAMS[cam]
    values = [(activation / factor).numpy(), (gradient * factor).numpy()]
    itself = SimpleNamespace(get_cam_weights=partial(peer.get_cam_weights, None))
    return torch.from_numpy(peer.get_cam_image(itself, None, None, None, *values, False))[:, None]


class _GuidedReLU(torch.autograd.Function):
    """A rectifier, flat below 0 and from ``top`` on, whose gradient follows the rule of Guided Backpropagation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < top))
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp_min(0) * ctx.saved_tensors[0], None


class _Patched(TorchFunctionMode):
    """Puts :class:`_GuidedReLU` in the place of the functions by which torchvision's and timm's networks rectify."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.relu, torch.relu, torch.relu_):
            return _GuidedReLU.apply(args[0], torch.inf)
        if func in (F.relu6, F.hardtanh):
            return _GuidedReLU.apply(args[0], 6.0)
        return func(*args, **(kwargs or {}))


def guided_gradient_by_patching(network: Network, images: Tensor, target: int) -> Tensor:
    """Guided Backpropagation by rectifiers that are exchanged as they are called, ``(N, 3, H, W)``."""
    images = images.clone().requires_grad_()
    with _Patched():
        network(images)[:, target].sum().backward()
    assert images.grad is not None
    return images.grad


class TinyNet(nn.Module):
    """A network small enough to differentiate by hand: 1×1 convolution, ReLU, mean over the image, linear.

    ``logit_k = sum_c readout[k, c] * mean_ij relu(sum_d mix[c, d] * x[d, i, j])``
    """

    target_layer = "features.1"

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=inplace))
        self.readout = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [-1.0, 1.0, 1.0]]).view(2, 3, 1, 1))
            self.readout.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.5], [-1.0, 3.0]]))
        self.eval().double()

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.features(x).mean((2, 3)))


def tiny_grad_cam(net: TinyNet, image: np.ndarray, target: int) -> np.ndarray:
    """Grad-CAM of TinyNet for one image ``(3, H, W)``, in loops."""
    mix = net.features[0].weight.detach().numpy()[:, :, 0, 0]
    readout = net.readout.weight.detach().numpy()
    _, height, width = image.shape
    cam = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for c in range(2):
                activation = max(0.0, float(mix[c] @ image[:, i, j]))
                # The gradient of a mean is 1/(H W) everywhere, and so is its mean over the map.
                cam[i, j] += readout[target, c] / (height * width) * activation
    return np.maximum(cam, 0)


def tiny_gradient(net: TinyNet, image: np.ndarray, target: int, guided: bool) -> np.ndarray:
    """Gradient of TinyNet's logit for one image ``(3, H, W)``, in loops, true or guided."""
    mix = net.features[0].weight.detach().numpy()[:, :, 0, 0]
    readout = net.readout.weight.detach().numpy()
    _, height, width = image.shape
    gradient = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            for c in range(2):
                above = readout[target, c] / (height * width)
                if mix[c] @ image[:, i, j] > 0 and not (guided and above < 0):
                    gradient[:, i, j] += mix[c] * above
    return gradient


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear upsampling of ``(h, w)`` with half-pixel centres and clamped edges, in loops."""
    out = np.zeros((height, width))
    h, w = image.shape
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def rise_scores(model: nn.Module, image: Tensor, explanation: np.ndarray, mode: str, step: int) -> np.ndarray:
    """The curve of RISE's ``CausalMetric.single_run``: scores of the predicted class, as its authors' code has it.

    Args:
        model: From normalized images to probabilities.
        image: One normalized image, ``(1, 3, H, W)``.
        explanation: Its map, ``(H, W)``.
        mode: ``del``: pixels become zero, which is the mean; ``ins``: pixels appear in a blurred image.
        step: Pixels that change at once.

    Reference: ``evaluation.py`` beside Petsiuk, Das & Saenko, "RISE", BMVC 2018. Its ``argsort`` leaves open in which
    order pixels of the same importance go; here it is stable.
    """
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = torch.zeros(3, 3, 11, 11)
    for c in range(3):
        kernel[c, c] = torch.from_numpy(gaussian_filter(impulse, 5))
    blurred = F.conv2d(image, kernel, padding=5)
    start, finish = (image.clone(), torch.zeros_like(image)) if mode == "del" else (blurred, image.clone())
    with torch.no_grad():
        c = int(model(image).argmax())
        n_steps = (explanation.size + step - 1) // step
        scores = np.empty(n_steps + 1)
        salient_order = np.flip(np.argsort(explanation.reshape(-1), kind="stable"))
        for i in range(n_steps + 1):
            scores[i] = float(model(start)[0, c])
            coords = salient_order[step * i : step * (i + 1)]
            start.numpy().reshape(3, -1)[:, coords] = finish.numpy().reshape(3, -1)[:, coords]
    return scores


def rise_auc(scores: np.ndarray) -> float:
    """RISE's area under a curve."""
    return float((scores.sum() - scores[0] / 2 - scores[-1] / 2) / (scores.shape[0] - 1))


def total_variation_in_loops(image: np.ndarray) -> float:
    """Anisotropic total variation of an image ``(C, H, W)`` for each of its values."""
    channels, height, width = image.shape
    total = 0.0
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                if i + 1 < height:
                    total += abs(image[c, i + 1, j] - image[c, i, j])
                if j + 1 < width:
                    total += abs(image[c, i, j + 1] - image[c, i, j])
    return total / image.size


def gini_index_by_pairs(values: Sequence[float]) -> float:
    """The mean absolute difference of all pairs of values, as a share of twice their mean."""
    differences = [abs(a - b) for a in values for b in values]
    return (sum(differences) / len(differences)) / (2 * sum(values) / len(values))


def split_mix(start: int, step: int, n: int) -> np.ndarray:
    """The first ``n`` words of SplitMix64 as its authors write it, in words without sign."""
    words = np.uint64(start) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(step)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def noise_of_keys(keys: Sequence[str], seed: int, n: int, images: Tensor, kind: Literal["normal", "uniform"]) -> Tensor:
    """``n`` images of noise of each key, one after the other: ``(n, N, C, H, W)``."""
    shape = (n, *images.shape[1:])
    return torch.stack([numbers_of(seed_from(seed, key), kind, shape) for key in keys], 1).to(images.dtype)


def numbers_of(seed: int, kind: Literal["normal", "uniform"], shape: Sequence[int]) -> Tensor:
    """Copies of random numbers of one seed, ``shape``, of which the first number is how many copies."""
    dtype, size = (np.int16, 4) if kind == "normal" else (np.int32, 2)
    start, step = (seed_from(seed, part) for part in ("start", "step"))
    n_copies, n = shape[0], math.prod(shape[1:])
    pieces = (
        split_mix(start, 2 * step + 1, n_copies * math.ceil(n / size))
        .view(dtype)
        .reshape(n_copies, -1)[:, :n]
        .astype(np.float64)
    )
    if kind == "normal":
        values = stats.norm.ppf((pieces + 2**15 + 0.5) / 2**16)
    else:
        values = (np.floor(pieces / 2**8) + 2**23) / 2**24
    return torch.from_numpy(values.astype(np.float32)).view(*shape)
