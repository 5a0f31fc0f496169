from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor, nn

from datamodules import ShapesDataModule
from lightning_modules import (
    AttributionMethod,
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    InputError,
    Network,
    Saliency,
    SmoothGrad,
)
from lightning_modules.methods.maps import magnitude
from tests.references import TinyNet, bilinear, full_pass, tiny_grad_cam, tiny_gradient

METHODS = [
    GradCAM(),
    GuidedBackprop(),
    GuidedGradCAM(),
    Saliency(),
    SmoothGrad(n_samples=3),
    SmoothGrad(n_samples=3, clip=True, statistic="squared"),
]


def relative_error(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    return float((ours - reference).detach().abs().max() / reference.detach().abs().max())


@pytest.mark.slow
class TestAgainstCaptum:
    """Full-size VGG16 with random weights, in float64, two images of different targets."""

    @pytest.fixture(scope="class")
    def setting(self, random_vgg16: Network) -> tuple[nn.Module, ForwardPass]:
        network = copy.deepcopy(random_vgg16).double()
        images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)).double()
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
        cam = LayerAttribution.interpolate(cam, (224, 224), "bilinear")
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
        monkeypatch.setattr(SmoothGrad, "_noise", staticmethod(lambda images, generators: next(ours)))
        smooth = SmoothGrad(n_samples=2, noise_level=0.1, max_batch=2)(forward_pass)

        sigma = 0.1 * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        monkeypatch.setattr(torch, "normal", lambda mean, std: next(theirs) * sigma)
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


class TestByHand:
    """A hand-weighted network whose maps are computed in loops."""

    @pytest.fixture(params=[True, False], ids=["inplace", "not inplace"])
    def net(self, request: pytest.FixtureRequest) -> TinyNet:
        return TinyNet(inplace=request.param)

    @pytest.fixture
    def images(self) -> Tensor:
        return torch.rand(3, 3, 4, 5, dtype=torch.float64)

    @pytest.mark.parametrize("target", [0, 1, 2])
    def test_grad_cam(self, net: TinyNet, images: Tensor, target: int) -> None:
        cam = GradCAM()(full_pass(net, images, target))
        expected = np.stack([tiny_grad_cam(net, image.numpy(), target) for image in images])
        np.testing.assert_allclose(cam[:, 0], expected, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("target", [0, 1, 2])
    @pytest.mark.parametrize(("method", "guided"), [(Saliency(), False), (GuidedBackprop(), True)])
    def test_gradients(
        self, net: TinyNet, images: Tensor, target: int, method: AttributionMethod, guided: bool
    ) -> None:
        expected = np.stack([tiny_gradient(net, image.numpy(), target, guided) for image in images])
        np.testing.assert_allclose(method(full_pass(net, images, target)), expected, rtol=1e-12, atol=1e-15)

    def test_both_rules_from_one_pass_in_any_order(self, net: TinyNet, images: Tensor) -> None:
        first, second = full_pass(net, images, 0), full_pass(net, images, 0)
        true, guided = Saliency()(first), GuidedBackprop()(first)
        guided_first = GuidedBackprop()(second)
        assert not torch.equal(true, guided)
        assert torch.equal(guided, guided_first)
        assert torch.equal(true, Saliency()(second))

    def test_guided_grad_cam_is_the_product(self, net: TinyNet, images: Tensor) -> None:
        forward_pass = full_pass(net, images)
        product = GradCAM()(forward_pass) * GuidedBackprop()(forward_pass)
        assert torch.equal(GuidedGradCAM()(forward_pass), product)

    def test_activation_of_a_layer_before_an_inplace_relu(self, net: TinyNet, images: Tensor) -> None:
        """In place, the ReLU would overwrite the convolution's output that was kept."""
        forward_pass = full_pass(net, images, 0, layers=["features.0"])
        torch.testing.assert_close(forward_pass.activation("features.0"), net.features[0](images))
        assert (forward_pass.activation("features.0") < 0).any()


def test_cam_is_bilinear_from_the_grid(shapes_network: Network) -> None:
    forward_pass = full_pass(shapes_network, torch.rand(1, 3, 112, 112))
    weights = forward_pass.layer_gradient().mean((2, 3), keepdim=True)
    cam = (weights * forward_pass.activation()).sum(1).relu()[0].numpy()
    assert cam.shape == (7, 7)
    np.testing.assert_allclose(GradCAM()(forward_pass)[0, 0], bilinear(cam, 112, 112), rtol=1e-4, atol=1e-7)


class TestSmoothGrad:
    def test_without_noise_is_the_gradient(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
        torch.testing.assert_close(SmoothGrad(n_samples=3, noise_level=0)(forward_pass), Saliency()(forward_pass))

    def test_statistics(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
        signed, magnitudes, squares = (
            SmoothGrad(n_samples=1, statistic=statistic)(forward_pass)
            for statistic in ("signed", "magnitude", "squared")
        )
        torch.testing.assert_close(magnitudes, signed.abs())
        torch.testing.assert_close(squares, signed.square())

    def test_noise_has_the_level_asked_for(self) -> None:
        """On a network whose gradient is its input, the map of one sample is the noisy image."""

        class Square(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.square().sum((1, 2, 3))[:, None] / 2

        images = torch.rand(2, 3, 64, 64)
        images[1] *= 0.2
        forward_pass = full_pass(Square().eval(), images, 0)
        noise = SmoothGrad(n_samples=1, noise_level=0.3)(forward_pass) - images
        torch.testing.assert_close(noise.std((1, 2, 3)), torch.tensor([0.3, 0.06]), rtol=0.03, atol=0)
        clipped = SmoothGrad(n_samples=1, noise_level=0.3, clip=True)(forward_pass)
        assert clipped.min() == 0
        assert clipped.max() == 1

    def test_chunks_do_not_matter(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(3, 3, 112, 112))
        maps = [SmoothGrad(n_samples=5, max_batch=k)(forward_pass) for k in (None, 1, 2, 7, 100)]
        for other in maps[1:]:
            assert relative_error(other, maps[0]) < 1e-5

    def test_seed_decides(self, shapes_network: Network) -> None:
        images = torch.rand(2, 3, 112, 112)
        first = SmoothGrad(n_samples=2)(full_pass(shapes_network, images))
        assert torch.equal(first, SmoothGrad(n_samples=2)(full_pass(shapes_network, images)))
        assert relative_error(SmoothGrad(n_samples=2, seed=1)(full_pass(shapes_network, images)), first) > 0.01

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"n_samples": 0}, "n_samples"), ({"noise_level": -0.1}, "noise_level"), ({"max_batch": 0}, "max_batch")],
    )
    def test_bad_options(self, options: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            SmoothGrad(**options)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_map_does_not_depend_on_the_batch(shapes_network: Network, method: AttributionMethod) -> None:
    images = torch.rand(5, 3, 112, 112)
    keys = [f"image {k}" for k in range(5)]
    together = method(full_pass(shapes_network, images, keys=keys))
    order = [3, 0, 4, 1, 2]
    reordered = method(full_pass(shapes_network, images[order], keys=[keys[k] for k in order]))
    for position, k in enumerate(order):
        alone = method(full_pass(shapes_network, images[k : k + 1], keys=keys[k : k + 1]))
        assert relative_error(alone[0], together[k]) < 1e-5
        assert relative_error(reordered[position], together[k]) < 1e-5


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_maps_of_images_differ_and_are_not_black(shapes_network: Network, method: AttributionMethod) -> None:
    maps = method(full_pass(shapes_network, torch.rand(2, 3, 112, 112), 0))
    assert maps.shape[2:] == (112, 112)
    assert maps.isfinite().all()
    assert relative_error(maps[0], maps[1]) > 0.01


def test_names_show_what_is_not_default() -> None:
    assert [repr(method) for method in METHODS[:5]] == [
        "GradCAM",
        "GuidedBackprop",
        "GuidedGradCAM",
        "Saliency",
        "SmoothGrad(n_samples=3)",
    ]
    assert repr(GradCAM("features.22")) == "GradCAM(layer='features.22')"


def test_grad_cam_needs_a_grid(shapes_network: Network) -> None:
    forward_pass = full_pass(shapes_network, torch.rand(1, 3, 112, 112), layers=["classifier.0"])
    with pytest.raises(InputError, match=r"classifier\.0.*\(1, 256\)"):
        GradCAM("classifier.0")(forward_pass)


def test_grad_cam_tells_two_objects_apart(shapes: Path, shapes_network: Network) -> None:
    """Each map's maximum lies in the box of its own class; Guided Backpropagation is known not to do that."""
    data = ShapesDataModule(str(shapes), 64, 80, 60, split="pairs", num_workers=0)
    data.setup("test")
    hits: dict[str, list[bool]] = {"GradCAM": [], "GuidedBackprop": []}
    seen = {}
    for batch in data.test_dataloader():
        forward_pass = full_pass(shapes_network, batch["image"], batch["label"])
        for method in (GradCAM(), GuidedBackprop()):
            strength = magnitude(method(forward_pass))
            for i, (boxes, labels) in enumerate(zip(batch["boxes"], batch["box_labels"])):
                assert len(boxes) == 2
                left, top, right, bottom = boxes[labels == batch["label"][i]][0].tolist()
                y, x = divmod(int(strength[i].argmax()), 112)
                hits[repr(method)].append(left - 1 <= x <= right and top - 1 <= y <= bottom)
                if repr(method) == "GradCAM":
                    seen[batch["path"][i]] = strength[i] / strength[i].sum()
    assert len(hits["GradCAM"]) == 120
    assert np.mean(hits["GradCAM"]) >= 0.9
    # The same picture is filed under both of its classes: the maps must not be the same.
    by_stem: dict[str, list[Tensor]] = {}
    for path, strength in seen.items():
        by_stem.setdefault(Path(path).stem, []).append(strength)
    overlap = [float(torch.minimum(*pair).sum()) for pair in by_stem.values()]
    assert len(overlap) == 60
    assert np.mean(overlap) < 0.5
    assert np.mean(hits["GuidedBackprop"]) < np.mean(hits["GradCAM"])
