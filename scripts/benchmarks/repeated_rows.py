"""Rows of methods that make many passes: SmoothGrad, Integrated Gradients, Score-CAM, Occlusion, RISE.

Each against as many bare passes in batches of the same size, and against a peer that makes as many, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from benchmarks import map_peers as peers
from benchmarks.map_rows import equal_stretched, maps_by
from benchmarks.setting import Peer, Setting
from benchmarks.timing import Row
from lightning_modules import RISE, AttributionMethod, IntegratedGradients, Occlusion, ScoreCAM, SmoothGrad

MOST = 32
"""Variants of an image in one pass, as our methods have it."""


def smooth_grad(setting: Setting, n: int = 25) -> Row:
    theirs, none = (partial(peers.captum_smooth_grad, n_samples=k, noise_level=x) for k, x in ((n, 0.15), (1, 1e-14)))
    # The noise differs, so it is the maps without noise that can be equal; Captum wants some.
    ours = partial(maps_by, [SmoothGrad(1, 0.0)])
    check = partial(setting.exact.equal, ours, [none], 1e-6, "maps without noise, in float64,")
    peer = Peer("Captum NoiseTunnel", theirs, 1, 1)
    return _row(setting, "smooth_grad", f"SmoothGrad, {n} samples", SmoothGrad(n, 0.15), n, peer, check)


def integrated_gradients(setting: Setting, n: int = 50) -> Row:
    theirs, few = (partial(peers.captum_integrated_gradients, n_steps=k) for k in (n, 2))
    ours = partial(maps_by, [IntegratedGradients(2)])
    check = partial(setting.exact.equal, ours, [few], 1e-6, "maps of 2 steps, in float64,")
    peer, work = Peer("Captum", theirs, 1, 1), f"IntegratedGradients, {n} steps"
    return _row(setting, "integrated_gradients", work, IntegratedGradients(n), n, peer, check)


def score_cam(setting: Setting, layer: str = "features.3") -> Row:
    """Of a layer with few channels, at the size of the image: 64, where the last one has 512."""
    n, theirs = setting.network.layer_channels[layer], partial(peers.pytorch_score_cam, layer=layer)
    method = ScoreCAM(layer)
    check, peer = partial(equal_stretched, setting, method, theirs), Peer("pytorch-grad-cam", theirs, 1, 1)
    return _row(setting, "score_cam", f"ScoreCAM of {layer}, {n} channels", method, n, peer, check, forward_only=True)


def occlusion(setting: Setting) -> Row:
    """Of windows twice as large as by default: 49 of them, not 225."""
    window, stride = setting.network.input_size // 4, setting.network.input_size // 8
    n = (-(-(setting.network.input_size - window) // stride) + 1) ** 2
    theirs, few = (partial(peers.captum_occlusion, window=k * window, stride=k * stride) for k in (1, 2))
    ours = partial(maps_by, [Occlusion(2 * window, 2 * stride)])
    check = partial(setting.equal, ours, [few], 1e-3, "maps of 9 windows")
    method, peer = Occlusion(window, stride), Peer("Captum", theirs, 1, 1)
    return _row(setting, "occlusion", f"Occlusion by {n} windows", method, n, peer, check, forward_only=True)


def rise(setting: Setting, n: int = 64) -> Row:
    return _row(setting, "rise", f"RISE, {n} masks", RISE(n), n, forward_only=True)


def _row(
    setting: Setting,
    name: str,
    work: str,
    method: AttributionMethod,
    n: int,
    peer: Peer | None = None,
    check: Callable[[], str] | None = None,
    forward_only: bool = False,
) -> Row:
    """The row of a method that makes a pass of each of its ``n`` variants; if forward only, one of the image before."""
    one_pass = setting.bare_forward if forward_only else setting.bare_gradient

    def bare(images: Tensor, target: Tensor) -> None:
        for start in range(0, n, MOST):
            k = min(MOST, n - start)
            one_pass(images.repeat(k, 1, 1, 1), target.repeat(k))
        if forward_only:
            setting.bare_forward(images)

    bares = {f"{n} bare forwards and that of the image" if forward_only else f"{n} bare passes": bare}
    others, ours = [peer] if peer else [], partial(maps_by, [method])
    return setting.row(name, f"{work}, fp32, 1 image", 1, ours, bares, others, check, rounds=2)
