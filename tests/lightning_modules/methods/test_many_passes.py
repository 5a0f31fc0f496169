"""Methods that look at many variants of an image: what they cost, their degenerate settings, their options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from lightning_modules import (
    RISE,
    AttributionMethod,
    ForwardPass,
    InputError,
    InputXGradient,
    IntegratedGradients,
    Network,
    Occlusion,
    ScoreCAM,
    SmoothGrad,
    VarGrad,
    as_network,
    explain,
)
from lightning_modules.methods.baselines import baseline_images
from lightning_modules.methods.variants import shared_batches
from tests.references import relative_error


def small_network(*head: nn.Module) -> Network:
    """Of 8 channels and 4 classes, with random weights, in float64."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2), *head, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    return as_network(module.double().eval(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), input_size=24)


def images() -> Tensor:
    return torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("method", "n_variants", "n_backward"),
    [
        (SmoothGrad(5), 5, 1),
        (VarGrad(5), 5, 1),
        (IntegratedGradients(11), 11, 2),
        (IntegratedGradients(11, max_batch=6), 11, 6),
        (ScoreCAM("1"), 8, 0),
        (Occlusion(8, 8), 12, 0),
        (RISE(7), 7, 0),
    ],
    ids=repr,
)
def test_passes(method: AttributionMethod, n_variants: int, n_backward: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many images pass the network as are told; variants of several images together; no gradient unasked."""
    network, sizes, backward, grad = small_network(nn.ReLU()), [], [], torch.autograd.grad
    network.module.register_forward_hook(
        lambda module, args, output: sizes.append((len(args[0]), output.requires_grad))
    )
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: backward.append(1) or grad(*args, **options))
    explain(network, images(), [method], 2)
    assert sum(n for n, _ in sizes[1:]) == 3 * n_variants
    assert len(backward) == n_backward
    assert all(of_pass[1] == (n_backward > 0) for of_pass in sizes[1:])


@pytest.mark.parametrize(("n_images", "n_variants", "most"), [(3, 5, None), (3, 50, 7), (40, 3, None), (5, 4, 2)])
def test_every_variant_has_its_place_in_one_pass(n_images: int, n_variants: int, most: int | None) -> None:
    seen = torch.zeros(n_images, n_variants)
    for part, variants in shared_batches(n_images, n_variants, most):
        assert 0 < seen[part, variants].numel() <= (most or max(32, n_images))
        seen[part, variants] += 1
    assert (seen == 1).all()


class TestIntegratedGradients:
    def test_of_a_linear_network_one_step_is_exact(self) -> None:
        maps = explain(small_network(), images(), [IntegratedGradients(1), InputXGradient()], 1)
        one, product = maps.values()
        assert relative_error(one, product) < 1e-12
        told = IntegratedGradients(1).extra_columns(one, maps.forward_pass)
        assert told["completeness_error"].max() < 1e-12

    def test_error_by_hand(self) -> None:
        """Of ``sum x^2 / 2`` the right rule of m steps gives ``(m + 1) / m`` times the half sum of squares."""

        class Square(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.stack([x.square().sum((1, 2, 3)) / 2, x.sum((1, 2, 3))], 1)

        method, network = IntegratedGradients(4), as_network(Square().eval(), input_size=8)
        maps = explain(network, images(), [method], 0)
        told = method.extra_columns(maps[repr(method)], maps.forward_pass)
        half = images().square().sum((1, 2, 3)) / 2
        torch.testing.assert_close(told["completeness_error"], half / 4)
        torch.testing.assert_close(told["relative_completeness_error"], torch.full((3,), 0.25).double())

    def test_where_there_is_nothing_to_explain_there_is_no_share(self) -> None:
        method = IntegratedGradients(2)
        maps = explain(small_network(), torch.zeros(1, 3, 24, 24).double(), [method], 0)
        told = method.extra_columns(maps[repr(method)], maps.forward_pass)
        assert told["completeness_error"].tolist() == [0]
        assert told["relative_completeness_error"].isnan().all()

    def test_more_steps_are_nearer(self) -> None:
        network, errors = small_network(nn.ReLU()), []
        for n in (2, 20, 200):
            maps = explain(network, images(), [method := IntegratedGradients(n, rule="middle")], 1)
            errors.append(
                float(method.extra_columns(maps[repr(method)], maps.forward_pass)["completeness_error"].max())
            )
        assert errors[0] > 5 * errors[1] > 25 * errors[2]


class TestBaselines:
    def test_blur_is_scipys(self) -> None:
        blurred = baseline_images(ForwardPass(small_network(), images()), "blur", 0)
        sigma = 24 / 15
        radius = math.ceil(3 * sigma)
        expected = gaussian_filter(images().numpy(), sigma, mode="mirror", radius=radius, axes=(2, 3))
        np.testing.assert_allclose(blurred, expected, rtol=1e-6)

    def test_noise_follows_from_seed_and_key(self) -> None:
        def noise(keys: list[str], seed: int = 0) -> Tensor:
            return baseline_images(ForwardPass(small_network(), images(), keys=keys), "noise", seed)

        first = noise(["a", "b", "c"])
        assert first.min() >= 0
        assert first.max() <= 1
        assert torch.equal(noise(["c", "a", "b"])[[1, 2, 0]], first)
        assert not torch.equal(noise(["a", "b", "c"], seed=1), first)

    def test_black_and_mean(self) -> None:
        forward_pass = ForwardPass(small_network(), images())
        assert not baseline_images(forward_pass, "black", 0).any()
        assert baseline_images(forward_pass, "mean", 0)[2, :, 5, 7].tolist() == pytest.approx([0.5, 0.4, 0.3])


def test_without_noise_nothing_varies() -> None:
    varied = explain(small_network(nn.ReLU()), images(), [VarGrad(n_samples=4, noise_level=0)], 0)
    assert not next(iter(varied.values())).any()


def test_smooth_grad_of_a_class_activation_map() -> None:
    """Of one copy without noise it is the map itself, of one channel."""
    network, cam = small_network(nn.ReLU()), ScoreCAM("1")
    maps = explain(network, images(), [cam, SmoothGrad(1, 0.0, method=cam)], 0)
    ours, smooth = maps.values()
    assert relative_error(smooth, ours) < 1e-12
    assert list(maps)[1] == "SmoothGrad(n_samples=1, noise_level=0.0, method=ScoreCAM(layer='1'))"


def test_score_cam_of_a_channel_that_is_the_same_everywhere() -> None:
    network = small_network(nn.ReLU())
    with torch.no_grad():
        network.module[0].weight[0] = 0
        network.module[0].bias[0] = 3
    assert explain(network, images(), [ScoreCAM("1")], 0)["ScoreCAM(layer='1')"].isfinite().all()


def test_masks_that_hide_nothing_show_the_probability() -> None:
    maps = explain(small_network(nn.ReLU()), images(), [RISE(n_masks=3, p1=1.0)], 2)
    expected = maps.forward_pass.target_probability[:, None, None, None].expand(3, 1, 24, 32)
    torch.testing.assert_close(maps["RISE(n_masks=3, p1=1.0)"], expected)


def test_a_window_over_all_of_the_image_hides_all() -> None:
    network, square = small_network(nn.ReLU()), images()[..., :24]
    maps = explain(network, square, [Occlusion(24, baseline="black")], 2)
    drop = network(square)[:, 2] - network(torch.zeros_like(square))[:, 2]
    torch.testing.assert_close(maps.popitem()[1], drop.detach()[:, None, None, None].expand(3, 1, 24, 24))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegratedGradients(0), "n_steps must be at least 1, got 0"),
        (lambda: IntegratedGradients(baseline="grey"), "one of black, mean, blur, noise, got 'grey'"),
        (lambda: IntegratedGradients(rule="left"), "rule should be one of right, middle, gauss_legendre, got 'left'"),
        (lambda: VarGrad(noise_level=-1), "noise_level must be at least 0"),
        (lambda: ScoreCAM(max_batch=0), "max_batch must be at least 1"),
        (lambda: Occlusion(window=0), "window must be at least 1"),
        (lambda: Occlusion(window=4, stride=5), "stride must be at most window, 4, .* got 5"),
        (lambda: Occlusion(score="logits"), "score should be one of logit, probability"),
        (lambda: explain(small_network(), images(), [Occlusion(25)]), r"≤ the image's sides.* 12, 25, \(24, 32\)"),
        (lambda: RISE(p1=0), "p1 must be above 0 and at most 1, got 0"),
        (lambda: RISE(n_masks=0), "n_masks must be at least 1"),
    ],
)  # fmt: skip
def test_bad_options(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
