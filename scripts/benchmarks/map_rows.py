"""Rows of maps that one forward and backward pass gives: against Captum, pytorch-grad-cam, torchcam and zennit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import map_peers as peers
from benchmarks.setting import Peer, Setting
from benchmarks.timing import Row, assert_close
from lightning_modules import (
    AttributionMethod,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputXGradient,
    LayerCAM,
    Network,
    XGradCAM,
    explain,
)

CAPTUM = "Captum, the three calls"
BARE = "bare forward + backward"
CAMS = [GradCAM(), GradCAMPlusPlus(), XGradCAM(), HiResCAM(), LayerCAM()]
THREE_MAPS = [GradCAM(), GuidedBackprop(), GuidedGradCAM()]


def maps_by(
    methods: Sequence[AttributionMethod], network: Network, images: Tensor, target: Tensor
) -> tuple[Tensor, ...]:
    """Our maps, of one pass."""
    return tuple(explain(network, images, methods, target).values())


def three_maps(setting: Setting) -> Row:
    n, ours = setting.batch_size, partial(maps_by, THREE_MAPS)
    work = f"Grad-CAM + Guided Backprop + Guided Grad-CAM, fp32, batch {n}"
    bare, sparing = {BARE: setting.bare_gradient}, partial(peers.captum_maps, product=True)
    # Captum's Grad-CAM makes a forward pass, its Guided Backprop a backward pass too, its Guided Grad-CAM calls both.
    others = [Peer(CAPTUM, peers.captum_maps, 6, 2)]
    others += [Peer("Captum, two calls and the product by hand", sparing, 3, 2)]
    check = partial(setting.exact.equal, ours, [peers.captum_maps, sparing], 1e-9, "maps, in float64,")
    return setting.row("three_maps", work, n, ours, bare, others, check)


def cam_family(setting: Setting) -> Row:
    """All class activation maps of one layer, with both guided ones."""
    n, ours = max(1, setting.batch_size // 2), partial(maps_by, [*CAMS, GuidedBackprop(), GuidedGradCAM()])
    theirs = {type(cam).__name__: cam for cam in CAMS}

    def check() -> str:
        # Its Grad-CAM++ adds 1e-6 to a denominator, which decides where gradients are small, so that map is another.
        for name in theirs.keys() - {"GradCAMPlusPlus"}:
            found = equal_stretched(setting, theirs[name], partial(peers.pytorch_grad_cam, name=name))
        return found

    work = f"five class activation maps of a layer + Guided Backprop + Guided Grad-CAM, fp32, batch {n}"
    run, passes = partial(peers.pytorch_grad_cam_family, names=list(theirs)), 2 * len(CAMS) + 2
    others = [Peer("pytorch-grad-cam, five calls, and Captum's guided gradient", run, passes, 2)]
    return setting.row("cam_family", work, n, ours, {BARE: setting.bare_gradient}, others, check)


def grad_cam(setting: Setting) -> Row:
    n = setting.batch_size
    # pytorch-grad-cam goes back to the pixels, torchcam to the layer.
    others = [Peer("pytorch-grad-cam", peers.pytorch_grad_cam, 2, 1), Peer("torchcam", peers.torchcam, 1, 1)]
    bare = {"bare forward + backward to the layer": setting.bare_layer_gradient, "bare forward": setting.bare_forward}
    check = partial(equal_stretched, setting, GradCAM(), peers.pytorch_grad_cam)  # torchcam's stay on the layer's grid
    work, ours = f"Grad-CAM alone, fp32, batch {n}", partial(maps_by, [GradCAM()])
    return setting.row("grad_cam", work, n, ours, bare, others, check)


def of_gradient(setting: Setting, name: str, method: AttributionMethod, who: str, theirs: Any) -> Row:
    """The row of a method whose map is one gradient."""
    n, ours, bare = max(1, setting.batch_size // 4), partial(maps_by, [method]), {BARE: setting.bare_gradient}
    check = partial(setting.exact.equal, ours, [theirs], 1e-9, "maps, in float64,")
    return setting.row(name, f"{method} alone, fp32, batch {n}", n, ours, bare, [Peer(who, theirs, 2, 2)], check)


guided_backprop = partial(
    of_gradient, name="guided_backprop", method=GuidedBackprop(), who="zennit", theirs=peers.zennit_guided
)
input_x_gradient = partial(
    of_gradient, name="input_x_gradient", method=InputXGradient(), who="Captum", theirs=peers.captum_input_x_gradient
)


def equal_stretched(setting: Setting, method: AttributionMethod, theirs: Any) -> str:
    """That our map is a peer's, an array ``(N, H, W)``, each of which goes from 0 to 1."""
    images, target = setting.images(1), setting.target(1)
    (maps,) = maps_by([method], setting.network, images, target)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    other = torch.from_numpy(theirs(setting.prepared, images, target)).to(maps)
    return assert_close(((maps - low) / (high - low))[:, 0], other, 1e-3, "maps, stretched to [0, 1],")
