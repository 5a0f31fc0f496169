"""Each method against Captum on the full-size network, in float64, on small images."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from torch import nn

from lightning_modules import (
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    Network,
    SmoothGrad,
)
from lightning_modules.methods import noisy_copies
from lightning_modules.networks.inputs import trusted
from tests.references import full_pass, relative_error


@pytest.mark.slow
class TestAgainstCaptum:
    """Full-size VGG16 with random weights, in float64, two images of different targets: grids of 6 × 6."""

    @pytest.fixture(scope="class")
    def setting(self, random_vgg16: Network) -> tuple[nn.Module, ForwardPass]:
        network = copy.deepcopy(random_vgg16).double()
        images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).double()
        forward_pass = full_pass(network, images, torch.tensor([281, 7]))
        # Captum's hooks cannot see through a ReLU that overwrites its input.
        reference = copy.deepcopy(network)
        for module in reference.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        return reference, forward_pass

    def test_grad_cam(self, setting: tuple[nn.Module, ForwardPass]) -> None:
        reference, forward_pass = setting
        cam = LayerGradCam(reference, reference.layers["features.29"]).attribute(
            forward_pass.images.detach(), forward_pass.target, relu_attributions=True
        )
        cam = LayerAttribution.interpolate(cam, (96, 96), "bilinear")
        assert relative_error(GradCAM()(forward_pass), cam) <= 1e-9

    @pytest.mark.filterwarnings("ignore:Setting backward hooks")
    def test_guided_backprop(self, setting: tuple[nn.Module, ForwardPass]) -> None:
        reference, forward_pass = setting
        images = forward_pass.images.detach().clone().requires_grad_()
        expected = CaptumGuidedBackprop(reference).attribute(images, forward_pass.target)
        assert relative_error(GuidedBackprop()(forward_pass), expected) <= 1e-9

    @pytest.mark.filterwarnings("ignore:Setting backward hooks")
    def test_guided_grad_cam(self, setting: tuple[nn.Module, ForwardPass]) -> None:
        reference, forward_pass = setting
        images = forward_pass.images.detach().clone().requires_grad_()
        expected = CaptumGuidedGradCam(reference, reference.layers["features.29"]).attribute(
            images, forward_pass.target, interpolate_mode="bilinear"
        )
        assert relative_error(GuidedGradCAM()(forward_pass), expected) <= 1e-9

    def test_smooth_grad(self, setting: tuple[nn.Module, ForwardPass], monkeypatch: pytest.MonkeyPatch) -> None:
        """NoiseTunnel with our noise fed in, where it would draw its own."""
        reference, forward_pass = setting
        images = forward_pass.images.detach()
        generator = torch.Generator().manual_seed(3)
        noise = [torch.randn(images.shape, generator=generator).double() for _ in range(2)]
        ours, theirs = iter(noise), iter(noise)
        monkeypatch.setattr(
            noisy_copies,
            "noise",
            lambda numbers, copies, images: torch.stack([next(ours) for _ in range(copies.stop - copies.start)]),
        )
        smooth = SmoothGrad(n_samples=2, noise_level=0.1, max_batch=2)(forward_pass)

        sigma = 0.1 * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        monkeypatch.setattr(torch, "normal", lambda mean, std: next(theirs) * sigma)
        with trusted():  # noise leads beyond [0, 1]
            expected = NoiseTunnel(CaptumSaliency(reference)).attribute(
                images.clone().requires_grad_(),
                nt_type="smoothgrad",
                nt_samples=2,
                nt_samples_batch_size=1,
                stdevs=1.0,
                target=forward_pass.target,
                abs=False,
            )
        assert relative_error(smooth, expected) <= 1e-9
