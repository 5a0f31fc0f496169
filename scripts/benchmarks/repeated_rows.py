"""Rows of methods that make many passes: SmoothGrad, Integrated Gradients, Score-CAM, Occlusion, RISE.

Each against as many bare passes in batches of the same size, and against a peer that makes as many, if there is one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.map_peers import (
    captum_integrated_gradients,
    captum_occlusion,
    captum_smooth_grad,
    pytorch_score_cam,
)
from benchmarks.map_rows import stretched
from benchmarks.setting import Setting, peer_goals, prepared
from benchmarks.timing import LEEWAY, OURS, Contender, Goal, Row, assert_close, by_passes
from lightning_modules import RISE, AttributionMethod, IntegratedGradients, Occlusion, ScoreCAM, SmoothGrad, explain

MOST = 32
"""Variants of an image in one pass, as our methods have it."""


def smooth_grad(setting: Setting, peers: bool = True, bf16: bool = False, n_samples: int = 25) -> Row:
    level, bare_loop = 0.15, f"bare passes of the {n_samples} samples"
    captum, captum_fp32 = "Captum NoiseTunnel" + ", bf16" * bf16, "Captum NoiseTunnel" + ", fp32" * bf16

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        sigma = float((level * (images.amax((1, 2, 3)) - images.amin((1, 2, 3))))[0])
        noisy = images.repeat(n_samples, 1, 1, 1)

        def ours() -> Tensor:
            with setting.bf16(bf16):
                return _map(setting, SmoothGrad(n_samples, level), images, target)

        def bare() -> Tensor:
            with setting.bf16(bf16):
                return setting.bare_gradient(noisy, target.repeat(n_samples))

        def theirs() -> Tensor:
            with setting.bf16(bf16):
                return captum_smooth_grad(setting.prepared, images, target, n_samples, sigma)

        def as_found() -> Tensor:
            return captum_smooth_grad(setting.as_found, images, target, n_samples, sigma)

        all_ = [Contender(OURS, ours), Contender(bare_loop, bare)]
        if not peers:
            return all_
        return [*all_, Contender(prepared(captum), theirs), Contender(captum_fp32, as_found, as_found=True)]

    def check(outputs: dict[str, Any]) -> str:
        if bf16 or not peers:
            return ""
        # The noise differs, so it is the maps without noise that can be equal; Captum wants some.
        exact = setting.exact
        images, target = exact.images(1), exact.target(1)
        theirs = captum_smooth_grad(exact.network, images, target, 1, 1e-14)
        return assert_close(
            _map(exact, SmoothGrad(1, 0.0), images, target), theirs, 1e-6, "maps without noise, in float64,"
        )

    goals = [by_passes(prepared(captum), 2, 2), Goal(captum_fp32)] if peers else []
    work = f"SmoothGrad, {n_samples} samples, {'bf16' if bf16 else 'fp32'}, 1 image"
    return Row("smooth_grad" + "_bf16" * bf16, work, contenders, 1, [*goals, Goal(bare_loop, at_most=LEEWAY)], check)


def integrated_gradients(setting: Setting, peers: bool = True, n_steps: int = 50) -> Row:
    bare_name, captum = f"{n_steps} bare passes", "Captum"

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def bare() -> None:
            for start in range(0, n_steps, MOST):
                k = min(MOST, n_steps - start)
                setting.bare_gradient(images.repeat(k, 1, 1, 1), target.repeat(k))

        all_ = [
            Contender(OURS, lambda: _map(setting, IntegratedGradients(n_steps), images, target)),
            Contender(bare_name, bare),
        ]
        if not peers:
            return all_
        return [
            *all_,
            *setting.peer(captum, lambda network: captum_integrated_gradients(network, images, target, n_steps)),
        ]

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        exact, few = setting.exact, 2
        images, target = exact.images(1), exact.target(1)
        theirs = captum_integrated_gradients(exact.as_found, images, target, few)
        ours = _map(exact, IntegratedGradients(few), images, target)
        return assert_close(ours, theirs, 1e-6, f"maps of {few} steps, in float64,")

    goals = peer_goals(captum, 2 * n_steps, 2 * n_steps) if peers else []
    work = f"IntegratedGradients, {n_steps} steps, fp32, 1 image"
    goals += [Goal(bare_name, at_most=LEEWAY)]
    return Row("integrated_gradients", work, contenders, 1, goals, check, rounds=2)


def score_cam(setting: Setting, peers: bool = True, layer: str = "features.3") -> Row:
    """Of a layer with few channels, at the size of the image: 64, where the last one has 512."""
    channels, peer = setting.network.layer_channels[layer], "pytorch-grad-cam"

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        ours = stretched(outputs[OURS])
        return assert_close(
            ours, torch.from_numpy(outputs[prepared(peer)]).to(ours), 1e-3, "maps, stretched to [0, 1],"
        )

    def theirs(network: Any, images: Tensor, target: Tensor) -> Any:
        return pytorch_score_cam(network, images, target, layer)

    method, work = ScoreCAM(layer), f"ScoreCAM of {layer}, {channels} channels, fp32, 1 image"
    return _of_forwards(setting, "score_cam", work, method, channels, (peer, theirs) if peers else None, check)


def occlusion(setting: Setting, peers: bool = True) -> Row:
    """Of windows twice as large as ours are unless told otherwise: 49 of them, not 225."""
    window = setting.network.input_size // 4
    stride = window // 2
    per_side = -(-(setting.network.input_size - window) // stride) + 1

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        images, target, few = setting.images(1), setting.target(1), (2 * window, window)
        ours = _map(setting, Occlusion(*few), images, target)
        return assert_close(ours, captum_occlusion(setting.prepared, images, target, *few), 1e-3, "maps of 9 windows")

    def theirs(network: Any, images: Tensor, target: Tensor) -> Any:
        return captum_occlusion(network, images, target, window, stride)

    method, n = Occlusion(window, stride), per_side**2
    work = f"Occlusion by {n} windows, fp32, 1 image"
    return _of_forwards(setting, "occlusion", work, method, n, ("Captum", theirs) if peers else None, check)


def rise(setting: Setting, peers: bool = True, n_masks: int = 64) -> Row:
    work = f"RISE, {n_masks} masks, fp32, 1 image"
    return _of_forwards(setting, "rise", work, RISE(n_masks), n_masks, None, None)


def _of_forwards(
    setting: Setting, name: str, work: str, method: AttributionMethod, n_variants: int, peer: Any, check: Any
) -> Row:
    """The row of a method that makes a forward pass of each of its variants, after one of the image itself."""
    bare_name = f"{n_variants} bare forwards and that of the image"

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def bare() -> None:
            setting.bare_forwards(n_variants, MOST)
            setting.bare_forward(images)

        all_ = [Contender(OURS, lambda: _map(setting, method, images, target)), Contender(bare_name, bare)]
        if peer is None:
            return all_
        who, theirs = peer
        return [*all_, *setting.peer(who, lambda network: theirs(network, images, target))]

    goals = peer_goals(peer[0], n_variants + 1, n_variants + 1) if peer else []
    return Row(name, work, contenders, 1, [*goals, Goal(bare_name, at_most=LEEWAY)], check, rounds=2)


def _map(setting: Setting, method: AttributionMethod, images: Tensor, target: Tensor) -> Tensor:
    (map_,) = explain(setting.network, images, [method], target).values()
    return map_
