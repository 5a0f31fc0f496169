"""Rows of maps that one forward and backward pass gives: against Captum, pytorch-grad-cam, torchcam and zennit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.map_peers import (
    captum_input_x_gradient,
    captum_maps,
    pytorch_grad_cam,
    pytorch_grad_cam_family,
    torchcam,
    zennit_guided,
)
from benchmarks.setting import Setting, peer_goals, prepared
from benchmarks.timing import LEEWAY, OURS, Contender, Goal, Row, assert_close, by_passes
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
CAPTUM_SPARING = "Captum, two calls and the product by hand"
BARE = "bare forward + backward"
BARE_FORWARD = "bare forward"
BARE_TO_LAYER = "bare forward + backward to the layer"
CAMS = [GradCAM(), GradCAMPlusPlus(), XGradCAM(), HiResCAM(), LayerCAM()]
THREE_MAPS = [GradCAM(), GuidedBackprop(), GuidedGradCAM()]
FAMILY = [*CAMS, GuidedBackprop(), GuidedGradCAM()]
FAMILY_IN_WORDS = "five class activation maps of a layer + Guided Backprop + Guided Grad-CAM"
Peer = Callable[[Network, Tensor, Tensor], Tensor]
"""A network, images, targets -> maps."""
EMULATED = "the processor has no bf16 arithmetic, so PyTorch emulates it, which takes many times as long as fp32"


def three_maps(setting: Setting, peers: bool = True) -> Row:
    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        all_ = [
            Contender(OURS, lambda: our_maps(setting.network, images, target)),
            Contender(BARE, lambda: setting.bare_gradient(images, target)),
        ]
        if not peers:
            return all_
        sparing = setting.peer(CAPTUM_SPARING, lambda network: captum_maps(network, images, target, product=True))
        return [*all_, *setting.peer(CAPTUM, lambda network: captum_maps(network, images, target)), *sparing]

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        said, images, target = "", setting.exact.images(1), setting.exact.target(1)
        for product in (False, True):
            peer = captum_maps(setting.exact.as_found, images, target, product)
            for ours, theirs in zip(our_maps(setting.exact.network, images, target), peer, strict=True):
                said = assert_close(ours, theirs, 1e-9, "maps, in float64,")
        return said

    n = setting.batch_size
    # Captum's Grad-CAM makes a forward pass, its Guided Backprop a backward pass too, its Guided Grad-CAM calls both.
    goals = [*peer_goals(CAPTUM, 6, 2), *peer_goals(CAPTUM_SPARING, 3, 2)] if peers else []
    work = f"Grad-CAM + Guided Backprop + Guided Grad-CAM, fp32, batch {n}"
    return Row("three_maps", work, contenders, n, [*goals, Goal(BARE, at_most=LEEWAY)], check)


def three_maps_bf16(setting: Setting, peers: bool = True) -> Row:
    # Where bfloat16 is emulated, a batch would take minutes.
    n = setting.batch_size if setting.has_fast_bf16() else 1
    bare_name, captum, captum_fp32 = BARE + ", bf16", CAPTUM + ", bf16", CAPTUM + ", fp32"

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def theirs() -> tuple[Tensor, ...]:
            with setting.bf16():
                return captum_maps(setting.prepared, images, target)

        def ours() -> tuple[Tensor, ...]:
            with setting.bf16():
                return our_maps(setting.network, images, target)

        def bare() -> Tensor:
            with setting.bf16():
                return setting.bare_gradient(images, target)

        all_ = [Contender(OURS, ours), Contender(bare_name, bare)]
        if not peers:
            return all_
        as_found = Contender(captum_fp32, lambda: captum_maps(setting.as_found, images, target), as_found=True)
        return [*all_, Contender(prepared(captum), theirs), as_found]

    goals = [by_passes(prepared(captum), 6, 2), Goal(captum_fp32)] if peers else []
    return Row(
        "three_maps_bf16",
        f"the same three maps, bf16, batch {n}",
        contenders,
        n,
        [*goals, Goal(bare_name, at_most=LEEWAY)],
        note="" if setting.has_fast_bf16() else EMULATED,
    )


def cam_family(setting: Setting, peers: bool = True) -> Row:
    """All class activation maps of one layer, with both guided ones."""
    n = max(1, setting.batch_size // 2)
    peer, names = "pytorch-grad-cam, five calls, and Captum's guided gradient", [type(cam).__name__ for cam in CAMS]

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        all_ = [
            Contender(OURS, lambda: explain(setting.network, images, FAMILY, target)),
            Contender(BARE, lambda: setting.bare_gradient(images, target)),
        ]
        if not peers:
            return all_
        return [*all_, *setting.peer(peer, lambda network: pytorch_grad_cam_family(network, images, target, names))]

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        ours = [stretched(outputs[OURS][name]) for name in names]
        # Its Grad-CAM++ adds 1e-6 to a denominator, which decides where gradients are small, so that map is another.
        for name, map_, theirs in zip(names, ours, outputs[prepared(peer)], strict=False):
            if name != "GradCAMPlusPlus":
                said = assert_close(map_, torch.from_numpy(theirs).to(map_), 1e-3, "maps, stretched to [0, 1],")
        return said

    goals = peer_goals(peer, 2 * len(CAMS) + 2, 2) if peers else []
    work = f"{FAMILY_IN_WORDS}, fp32, batch {n}"
    return Row("cam_family", work, contenders, n, [*goals, Goal(BARE, at_most=LEEWAY)], check)


def grad_cam(setting: Setting, peers: bool = True) -> Row:
    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        all_ = [
            Contender(OURS, lambda: explain(setting.network, images, [GradCAM()], target)["GradCAM"]),
            Contender(BARE_TO_LAYER, lambda: setting.bare_layer_gradient(images, target)),
            Contender(BARE_FORWARD, lambda: setting.bare_forward(images)),
        ]
        if not peers:
            return all_
        torchcams = setting.peer("torchcam", lambda network: torchcam(network, images, target))
        theirs = setting.peer("pytorch-grad-cam", lambda network: pytorch_grad_cam(network, images, target))
        return [*all_, *theirs, *torchcams]

    def check(outputs: dict[str, Any]) -> str:
        # Both peers stretch their maps to [0, 1]; torchcam leaves them on the layer's grid.
        if not peers:
            return ""
        cam = stretched(outputs[OURS])
        theirs = torch.from_numpy(outputs["pytorch-grad-cam"]).to(cam)
        return assert_close(cam, theirs, 1e-3, "maps, stretched to [0, 1],")

    n = setting.batch_size
    # pytorch-grad-cam goes back to the pixels, torchcam to the layer.
    goals = [*peer_goals("pytorch-grad-cam", 2, 1), *peer_goals("torchcam", 1, 1)] if peers else []
    goals += [Goal(BARE_TO_LAYER, at_most=LEEWAY), Goal(BARE_FORWARD)]
    return Row("grad_cam", f"Grad-CAM alone, fp32, batch {n}", contenders, n, goals, check)


def guided_backprop(setting: Setting, peers: bool = True) -> Row:
    return _of_gradient(setting, "guided_backprop", GuidedBackprop(), ("zennit", zennit_guided) if peers else None)


def input_x_gradient(setting: Setting, peers: bool = True) -> Row:
    peer = ("Captum", captum_input_x_gradient) if peers else None
    return _of_gradient(setting, "input_x_gradient", InputXGradient(), peer)


def _of_gradient(setting: Setting, name: str, method: AttributionMethod, peer: tuple[str, Peer] | None) -> Row:
    """The row of a method whose map is one gradient."""
    n = max(1, setting.batch_size // 4)

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        all_ = [
            Contender(OURS, lambda: explain(setting.network, images, [method], target)),
            Contender(BARE, lambda: setting.bare_gradient(images, target)),
        ]
        if peer is None:
            return all_
        who, theirs = peer
        return [*all_, *setting.peer(who, lambda network: theirs(network, images, target))]

    def check(outputs: dict[str, Any]) -> str:
        if peer is None:
            return ""
        images, target = setting.exact.images(1), setting.exact.target(1)
        (ours,) = explain(setting.exact.network, images, [method], target).values()
        return assert_close(ours, peer[1](setting.exact.as_found, images, target), 1e-9, "maps, in float64,")

    goals = peer_goals(peer[0], 2, 2) if peer else []
    work = f"{method} alone, fp32, batch {n}"
    return Row(name, work, contenders, n, [*goals, Goal(BARE, at_most=LEEWAY)], check)


def three_maps_large(setting: Setting, peers: bool = True) -> Row:
    return _large(setting, "three_maps_large", "Grad-CAM + Guided Backprop + Guided Grad-CAM", THREE_MAPS)


def cam_family_large(setting: Setting, peers: bool = True) -> Row:
    return _large(setting, "cam_family_large", FAMILY_IN_WORDS, FAMILY)


def input_x_gradient_large(setting: Setting, peers: bool = True) -> Row:
    return _large(setting, "input_x_gradient_large", "InputXGradient alone", [InputXGradient()])


def _large(setting: Setting, name: str, what: str, methods: Sequence[AttributionMethod]) -> Row:
    """Maps of a batch four times as large, against the bare network: what is added to it weighs least there."""
    n = 4 * setting.batch_size

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        bare = Contender(BARE, lambda: setting.bare_gradient(images, target))
        return [Contender(OURS, lambda: explain(setting.network, images, methods, target)), bare]

    return Row(name, f"{what}, fp32, batch {n}", contenders, n, [Goal(BARE, at_most=1.03)], rounds=2)


def our_maps(network: Network, images: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Grad-CAM, Guided Backpropagation and Guided Grad-CAM of one pass."""
    return tuple(explain(network, images, THREE_MAPS, target).values())


def stretched(maps: Tensor) -> Tensor:
    """Maps ``(N, 1, H, W)`` as pytorch-grad-cam has them, ``(N, H, W)``, each from 0 to 1."""
    cam = maps[:, 0]
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    return (cam - low) / (high - low)
