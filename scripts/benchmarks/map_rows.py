"""Rows of attribution: three maps, Grad-CAM, Guided Backpropagation, SmoothGrad; against Captum and others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Row, assert_close
from lightning_modules import GradCAM, GuidedBackprop, GuidedGradCAM, Network, SmoothGrad, explain

CAPTUM = "Captum, the three calls"
CAPTUM_SPARING = "Captum, two calls and the product by hand"
CAPTUM_PREPARED = "Captum, the three calls, given our network and memory"
BARE = "bare forward + backward"
BARE_FORWARD = "bare forward"
LAYER = "features.29"
EMULATED = "the processor has no bf16 arithmetic, so PyTorch emulates it, which takes many times as long as fp32"


def three_maps(setting: Setting, peers: bool = True) -> Row:
    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        all_ = [
            Contender(OURS, lambda: our_maps(setting.network, images, target)),
            Contender(BARE, lambda: setting.bare_gradient(images, target)),
        ]
        if peers:
            all_ += [
                Contender(CAPTUM, lambda: captum_maps(setting.as_found, images, target), as_found=True),
                Contender(CAPTUM_SPARING, lambda: captum_maps(setting.as_found, images, target, True), as_found=True),
                Contender(CAPTUM_PREPARED, lambda: captum_maps(setting.prepared, images, target)),
            ]
        return all_

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        said, images, target = "", setting.exact.images(1), setting.exact.target(1)
        for product in (False, True):
            peer = captum_maps(setting.exact.as_found, images, target, product)
            for ours, theirs in zip(our_maps(setting.exact.network, images, target), peer, strict=True):
                said = assert_close(ours, theirs, 1e-9, "maps, in float64,")
        return said

    goals = [Goal(CAPTUM, faster=5.5), Goal(CAPTUM_SPARING, faster=3.3), Goal(CAPTUM_PREPARED)] if peers else []
    n = setting.batch_size
    work = f"Grad-CAM + Guided Backprop + Guided Grad-CAM, fp32, batch {n}"
    return Row("three_maps", work, contenders, n, [*goals, Goal(BARE, at_most=1.05)], check)


def three_maps_bf16(setting: Setting, peers: bool = True) -> Row:
    # Where bfloat16 is emulated, a batch would take minutes.
    n = setting.batch_size if setting.has_fast_bf16() else 1

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def ours() -> tuple[Tensor, ...]:
            with setting.bf16():
                return our_maps(setting.network, images, target)

        def bare() -> Tensor:
            with setting.bf16():
                return setting.bare_gradient(images, target)

        all_ = [Contender(OURS, ours), Contender(BARE + ", bf16", bare)]
        return all_ + (
            [Contender(CAPTUM + ", fp32", lambda: captum_maps(setting.as_found, images, target), as_found=True)] * peers
        )

    goals = [Goal(CAPTUM + ", fp32", faster=11)] if peers else []
    return Row(
        "three_maps_bf16",
        f"the same three maps, bf16, batch {n}",
        contenders,
        n,
        [*goals, Goal(BARE + ", bf16", at_most=1.05)],
        note="" if setting.has_fast_bf16() else EMULATED,
    )


def grad_cam(setting: Setting, peers: bool = True) -> Row:
    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def ours() -> Tensor:
            return explain(setting.network, images, [GradCAM()], target)["GradCAM"]

        all_ = [Contender(OURS, ours), Contender(BARE_FORWARD, lambda: setting.bare_forward(images))]
        if peers:
            all_ += [
                Contender("pytorch-grad-cam", _pytorch_grad_cam(setting.as_found, images, target), as_found=True),
                Contender("torchcam", _torchcam(setting.as_found, images, target), as_found=True),
            ]
        return all_

    def check(outputs: dict[str, Any]) -> str:
        # Both peers stretch their maps to [0, 1]; torchcam leaves them on the layer's grid.
        cam = outputs[OURS][:, 0]
        low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
        if "pytorch-grad-cam" not in outputs:
            return ""
        theirs = torch.from_numpy(outputs["pytorch-grad-cam"]).to(cam)
        return assert_close((cam - low) / (high - low), theirs, 1e-3, "maps, stretched to [0, 1],")

    n = setting.batch_size
    goals = [Goal("pytorch-grad-cam", faster=3.8), Goal("torchcam")] if peers else []
    work = f"Grad-CAM alone, fp32, batch {n}"
    return Row("grad_cam", work, contenders, n, [*goals, Goal(BARE_FORWARD, at_most=1.15)], check)


def guided_backprop(setting: Setting, peers: bool = True) -> Row:
    n = max(1, setting.batch_size // 4)

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        ours = Contender(OURS, lambda: explain(setting.network, images, [GuidedBackprop()], target))
        bare = Contender(BARE, lambda: setting.bare_gradient(images, target))
        return [ours, bare] + (
            [Contender("zennit", _zennit_guided(setting.as_found, images, target), as_found=True)] * peers
        )

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        images, target = setting.exact.images(1), setting.exact.target(1)
        (ours,) = explain(setting.exact.network, images, [GuidedBackprop()], target).values()
        return assert_close(ours, _zennit_guided(setting.exact.as_found, images, target)(), 1e-9, "maps, in float64,")

    goals = [Goal("zennit")] if peers else []
    work = f"Guided Backprop alone, fp32, batch {n}"
    return Row("guided_backprop", work, contenders, n, [*goals, Goal(BARE, at_most=1.05)], check)


def smooth_grad(setting: Setting, peers: bool = True, bf16: bool = False, n_samples: int = 25) -> Row:
    level, captum, bare_loop = 0.15, "Captum NoiseTunnel" + ", fp32" * bf16, f"bare passes of the {n_samples} samples"

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)
        sigma = level * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))
        noisy = images.repeat(n_samples, 1, 1, 1)

        def ours() -> Tensor:
            with setting.bf16(bf16):
                (map_,) = explain(setting.network, images, [SmoothGrad(n_samples, level)], target).values()
                return map_

        def bare() -> Tensor:
            with setting.bf16(bf16):
                return setting.bare_gradient(noisy, target.repeat(n_samples))

        all_ = [Contender(OURS, ours), Contender(bare_loop, bare)]
        call = _captum_smooth_grad(setting.as_found, images, target, n_samples, float(sigma[0])) if peers else None
        return all_ + ([Contender(captum, call, as_found=True)] if call else [])

    def check(outputs: dict[str, Any]) -> str:
        if bf16 or not peers:
            return ""
        # The noise differs, so it is the maps without noise that can be equal; Captum wants some.
        images, target, network = setting.exact.images(1), setting.exact.target(1), setting.exact.network
        (ours,) = explain(network, images, [SmoothGrad(1, 0.0)], target).values()
        theirs = _captum_smooth_grad(network, images, target, 1, 1e-14)()
        return assert_close(ours, theirs, 1e-6, "maps without noise, in float64,")

    goals = [Goal(captum, faster=3 if bf16 else 1.4)] if peers else []
    work = f"SmoothGrad, {n_samples} samples, {'bf16' if bf16 else 'fp32'}, 1 image"
    return Row("smooth_grad" + "_bf16" * bf16, work, contenders, 1, [*goals, Goal(bare_loop, at_most=1.05)], check)


def our_maps(network: Network, images: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Grad-CAM, Guided Backpropagation and Guided Grad-CAM of one pass."""
    return tuple(explain(network, images, [GradCAM(), GuidedBackprop(), GuidedGradCAM()], target).values())


def captum_maps(network: Network, images: Tensor, target: Tensor, product: bool = False) -> tuple[Tensor, ...]:
    """The same by Captum, in three calls, or in two with the product by hand."""
    from captum.attr import GuidedBackprop as CaptumGuidedBackprop
    from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam

    layer = network.layers[LAYER]
    size = (images.shape[2], images.shape[3])
    with _silent():
        cam = LayerGradCam(network, layer).attribute(images, target, relu_attributions=True)
        cam = LayerAttribution.interpolate(cam, size, "bilinear").detach()
        guided = CaptumGuidedBackprop(network).attribute(images.clone().requires_grad_(), target).detach()
        if product:
            return cam, guided, cam * guided
        images = images.clone().requires_grad_()
        both = GuidedGradCam(network, layer).attribute(images, target, interpolate_mode="bilinear").detach()
    return cam, guided, both


def _captum_smooth_grad(
    network: Network, images: Tensor, target: Tensor, n_samples: int, sigma: float
) -> Callable[[], Tensor]:
    from captum.attr import NoiseTunnel, Saliency

    def run() -> Tensor:
        inputs = images.clone().requires_grad_()
        options: dict[str, Any] = {"nt_type": "smoothgrad", "nt_samples": n_samples, "stdevs": sigma}
        return NoiseTunnel(Saliency(network)).attribute(inputs, target=target, abs=False, **options).detach()

    return run


def _pytorch_grad_cam(network: Network, images: Tensor, target: Tensor) -> Callable[[], Any]:
    from pytorch_grad_cam import GradCAM as PeerGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def run() -> Any:
        with PeerGradCAM(model=network, target_layers=[network.layers[LAYER]]) as cam:
            maps = cam(input_tensor=images, targets=[ClassifierOutputTarget(k) for k in target.tolist()])
        network.zero_grad()
        return maps

    return run


def _torchcam(network: Network, images: Tensor, target: Tensor) -> Callable[[], Any]:
    from torchcam.methods import GradCAM as PeerGradCAM

    def run() -> Any:
        with PeerGradCAM(network, f"module.{LAYER}") as extractor:
            maps = extractor(target.tolist(), network(images.clone().requires_grad_()))
        network.zero_grad()
        return maps

    return run


def _zennit_guided(network: Network, images: Tensor, target: Tensor) -> Callable[[], Tensor]:
    from zennit.attribution import Gradient
    from zennit.composites import GuidedBackprop as PeerGuidedBackprop

    def run() -> Tensor:
        one_hot = torch.nn.functional.one_hot(target, len(network.class_names)).to(images)
        with Gradient(network, composite=PeerGuidedBackprop()) as attributor:
            return attributor(images, one_hot)[1].detach()

    return run


@contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
