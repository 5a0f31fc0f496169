from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from lightning_modules import ForwardPass, GradCAM, InputError, Network, as_network
from lightning_modules.metrics import (
    AverageDrop,
    InsertionDeletion,
    area_under_curve,
    probability_curve,
    rise_blur,
    shares_of_pixels,
)
from lightning_modules.networks.libraries.torchvision import IMAGENET_MEAN
from tests.references import full_pass

BATCH: dict = {}


def slow_curve(predict, start: np.ndarray, finish: np.ndarray, order: np.ndarray, step: int) -> list[float]:
    """RISE's loop for one image, of which the pixels are set step by step."""
    width = start.shape[2]
    image, scores = start.copy(), []
    for i in range((len(order) + step - 1) // step + 1):
        scores.append(float(predict(torch.from_numpy(image)[None])))
        for pixel in order[step * i : step * (i + 1)]:
            image[:, pixel // width, pixel % width] = finish[:, pixel // width, pixel % width]
    return scores


def slow_blur(image: np.ndarray) -> np.ndarray:
    """RISE's convolution of one normalized image padded with zeros, in loops."""
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = gaussian_filter(impulse, 5)
    _, height, width = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for dy in range(-5, 6):
                for dx in range(-5, 6):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        out[:, y, x] += kernel[dy + 5, dx + 5] * image[:, y + dy, x + dx]
    return out


def weighted_sum(images: Tensor, target: Tensor | None = None) -> Tensor:
    """Stands for a network: a sum in which no two pixels weigh the same."""
    weights = torch.arange(images[0].numel(), dtype=images.dtype).view(images.shape[1:])
    return (images * weights).sum((1, 2, 3)) / weights.sum()


class TestProbabilityCurve:
    @pytest.mark.parametrize("step", [1, 4, 7, 30, 100])
    @pytest.mark.parametrize("max_batch", [1, 5, 64])
    def test_against_the_loop(self, step: int, max_batch: int) -> None:
        start, finish = torch.rand(2, 3, 5, 6, dtype=torch.float64), torch.rand(2, 3, 5, 6, dtype=torch.float64)
        orders = torch.stack([torch.randperm(30), torch.randperm(30)])
        place = orders.argsort(1).view(2, 5, 6)
        curve = probability_curve(weighted_sum, start, finish, place, torch.zeros(2, dtype=torch.long), step, max_batch)
        expected = [
            slow_curve(weighted_sum, start[i].numpy(), finish[i].numpy(), orders[i].numpy(), step) for i in range(2)
        ]
        np.testing.assert_allclose(curve, expected, rtol=1e-12)

    def test_images_share_batches(self) -> None:
        sizes = []

        def predict(images: Tensor, target: Tensor) -> Tensor:
            sizes.append(len(images))
            return images.mean((1, 2, 3))

        images, place = torch.rand(3, 3, 8, 8), torch.arange(64).view(1, 8, 8).expand(3, -1, -1)
        probability_curve(predict, images, images, place, torch.zeros(3, dtype=torch.long), step=8, max_batch=10)
        assert sizes == [10, 10, 7]


def test_area() -> None:
    curve = torch.rand(4, 9, dtype=torch.float64)
    rise = (curve.sum(1) - curve[:, 0] / 2 - curve[:, -1] / 2) / (curve.shape[1] - 1)
    torch.testing.assert_close(area_under_curve(curve), rise)
    assert area_under_curve(torch.ones(1, 5)).item() == 1


@pytest.mark.parametrize("step", [1, 3, 7, 8, 12, 100])
def test_a_step_that_does_not_divide_the_pixels(step: int) -> None:
    """A curve that rises with the share of the pixels has the area 0.5, whatever the step; numpy's own rule agrees."""
    shares = shares_of_pixels(12, step)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert area_under_curve(shares[None], shares).item() == pytest.approx(0.5)
    curve = torch.rand(2, len(shares), dtype=torch.float64)
    expected = np.trapezoid(curve.numpy(), shares.numpy(), axis=1)
    np.testing.assert_allclose(area_under_curve(curve, shares), expected, rtol=1e-6)


def test_blur_is_rises() -> None:
    image = torch.rand(1, 3, 13, 9, dtype=torch.float64)
    mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64).view(3, 1, 1)
    expected = slow_blur((image - mean)[0].numpy()) + mean.numpy()
    np.testing.assert_allclose(rise_blur(image, mean)[0], expected, rtol=1e-10)
    # Nearly flat: in the middle of a large image it is close to the mean of the 11 × 11 pixels around.
    large = torch.rand(1, 3, 31, 31, dtype=torch.float64)
    around = large[0, :, 10:21, 10:21].mean((1, 2))
    assert (rise_blur(large, mean)[0, :, 15, 15] - around).abs().max() < 0.02


class MeanOfLeftHalf(nn.Module):
    """Two classes; the logit of the second grows with the brightness of the left half."""

    mean = IMAGENET_MEAN

    def forward(self, x: Tensor) -> Tensor:
        left = x[..., : x.shape[3] // 2].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(left), 20 * (left - 0.7)], 1)


class Brightness(nn.Module):
    """Two classes; the probability of the second is the mean of the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([(1 - bright).log(), bright.log()], 1)


def pass_of_ones(module: nn.Module, keys: list[str], height: int, width: int) -> ForwardPass:
    """Of white images, in a network for which black is no information."""
    network = as_network(module.eval(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), input_size=height)
    return ForwardPass(network, torch.ones(len(keys), 3, height, width), 1, keys=keys)


class NoMean(MeanOfLeftHalf):
    """The same, but it does not say what it takes for no information."""

    mean = None


def corner(side: int) -> Tensor:
    """A map that marks one pixel, the last of the right half."""
    maps = torch.zeros(1, 1, side, side)
    maps[..., -1, -1] = 1
    return maps


@pytest.fixture
def setting() -> tuple[ForwardPass, Tensor, Tensor]:
    forward_pass = full_pass(MeanOfLeftHalf().eval(), torch.full((2, 3, 32, 32), 0.9), 1)
    left = torch.zeros(2, 1, 32, 32)
    left[..., :16] = 1
    return forward_pass, left, 1 - left


class TestMetrics:
    def test_the_right_map_wins(self, setting: tuple[ForwardPass, Tensor, Tensor]) -> None:
        forward_pass, left, right = setting
        metric = InsertionDeletion()
        good, bad = (metric.score(m, forward_pass, BATCH, GradCAM()) for m in (left, right))
        assert good["insertion"].shape == (2,)
        assert good["insertion_curve"].shape == (2, 5)
        assert (good["insertion"] > bad["insertion"]).all()
        assert (good["deletion"] < bad["deletion"] - 0.3).all()
        # Both curves end where the other kind would begin.
        full = forward_pass.probabilities[:, 1]
        torch.testing.assert_close(good["insertion_curve"][:, -1], full)
        torch.testing.assert_close(good["deletion_curve"][:, 0], full)

    def test_average_drop(self, setting: tuple[ForwardPass, Tensor, Tensor]) -> None:
        forward_pass, left, right = setting
        kept = AverageDrop().score(3 * left, forward_pass, BATCH, GradCAM())
        assert kept["average_drop"].tolist() == [0, 0]
        lost = AverageDrop().score(right, forward_pass, BATCH, GradCAM())
        mean = sum(IMAGENET_MEAN) / 3
        before, after = (torch.tensor(20 * (v - 0.7)).sigmoid() for v in (0.9, mean))
        torch.testing.assert_close(lost["average_drop"], ((before - after) / before).expand(2))
        assert lost["increase_in_confidence"].tolist() == [0, 0]
        # Another class: what is hidden speaks against it, so its probability rises.
        other = full_pass(MeanOfLeftHalf().eval(), torch.full((1, 3, 32, 32), 0.9), 0)
        gained = AverageDrop().score(right[:1], other, BATCH, GradCAM())
        assert gained["increase_in_confidence"].tolist() == [1]
        assert gained["average_drop"].tolist() == [0]

    @pytest.mark.slow
    @pytest.mark.parametrize("compiled", [False, True])
    def test_pixels_fade_to_the_mean_of_the_networks_own_normalization(self, compiled: bool) -> None:
        """Wherever the module keeps its mean, and also if it is compiled."""
        mean = (0.1, 0.9, 0.2)
        module = torch.compile(NoMean().eval(), backend="eager") if compiled else NoMean().eval()
        network = as_network(module, mean=mean, std=(0.5,) * 3, input_size=32)
        forward_pass = full_pass(network, torch.full((1, 3, 32, 32), 0.95), 1)
        lost = AverageDrop().score(corner(32), forward_pass, BATCH, GradCAM())
        before, after = (torch.tensor(20 * (2 * (v - sum(mean) / 3) - 0.7)).sigmoid() for v in (0.95, sum(mean) / 3))
        torch.testing.assert_close(lost["average_drop"], ((before - after) / before)[None])
        curve = InsertionDeletion().score(torch.rand(1, 1, 32, 32), forward_pass, BATCH, GradCAM())["deletion_curve"]
        torch.testing.assert_close(curve[0, [0, -1]], torch.stack([before, after]))

    def test_a_network_that_does_not_say_its_mean_is_told(self) -> None:
        forward_pass = full_pass(NoMean().eval(), torch.full((1, 3, 32, 32), 0.9), 1)
        with pytest.warns(UserWarning, match=r"NoMean has no mean, which stands for no information.*as_network"):
            AverageDrop().score(torch.ones(1, 1, 32, 32), forward_pass, BATCH, GradCAM())

    def test_deletion_of_pixels_that_count_the_same(self) -> None:
        """100 pixels that go 70 at once: the probability falls along a line, and the area below is 0.5, not 0.6."""
        forward_pass = pass_of_ones(Brightness(), ["a.png"], 10, 10)
        scores = InsertionDeletion(step=70).score(torch.rand(1, 1, 10, 10), forward_pass, BATCH, GradCAM())
        torch.testing.assert_close(scores["deletion_curve"], torch.tensor([[1, 0.3, 0]]), rtol=0, atol=1e-5)
        assert scores["deletion"].item() == pytest.approx(0.5, abs=1e-5)

    def test_where_the_map_is_zero_the_place_of_the_object_does_not_count(self) -> None:
        """Half of the map is 0. The network looks at a quarter of the image there, above or below: in reading order
        the area is 0.81 or 0.94.
        """

        class Quarter(Brightness):
            def __init__(self, start: int) -> None:
                super().__init__()
                self.start = start

            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x[:, :, self.start : self.start + 4])

        maps, means = torch.zeros(40, 1, 16, 4), []
        maps[:, :, 8:] = torch.rand(40, 1, 8, 4) + 1
        keys = [f"{k}.png" for k in range(40)]
        for start in (0, 4):
            forward_pass = pass_of_ones(Quarter(start), keys, 16, 4)
            scores = InsertionDeletion(step=1).score(maps, forward_pass, BATCH, GradCAM())
            means.append(float(scores["deletion"].mean()))
        # All goes of the half that is marked, then a line to 0. The standard error of a mean is about 0.007.
        assert means == pytest.approx([0.75, 0.75], abs=0.03)

    @pytest.mark.slow
    def test_scores_do_not_depend_on_the_batch(self, shapes_network: Network) -> None:
        images, maps = torch.rand(3, 3, 112, 112), torch.rand(3, 1, 112, 112)
        for metric in (InsertionDeletion(max_batch=11), AverageDrop()):
            together = metric.score(maps, full_pass(shapes_network, images, 1), BATCH, GradCAM())
            for k in range(3):
                alone = metric.score(maps[k : k + 1], full_pass(shapes_network, images[k : k + 1], 1), BATCH, GradCAM())
                for name in together:
                    torch.testing.assert_close(alone[name][0], together[name][k], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("options", [{"step": 0}, {"max_batch": 0}])
    def test_bad_options(self, options: dict) -> None:
        with pytest.raises(InputError, match="at least 1"):
            InsertionDeletion(**options)

    def test_average_drop_of_a_subnormal_probability(self) -> None:
        """About 0.75 of 1e-40 is lost, whatever the smallest normal number is."""

        class Improbable(nn.Module):
            input_size = 8

            def forward(self, x: Tensor) -> Tensor:
                # The image has the probability 1e-40, what is faded to zero a quarter of it.
                logits = np.log(1e-40) + np.log(4) * (x.mean((1, 2, 3)) - 1)
                return torch.stack([logits, torch.zeros_like(logits)], 1)

        images = torch.ones(1, 3, 8, 8)
        network = as_network(Improbable().eval(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        forward_pass = ForwardPass(network, images, 0)
        scores = AverageDrop().score(corner(8), forward_pass, BATCH, GradCAM())
        assert float(scores["average_drop"]) == pytest.approx(1 - 4 ** (-63 / 64), rel=1e-3)
