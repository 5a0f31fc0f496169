from __future__ import annotations

from unittest import mock

import pytest
import torch
from captum.metrics import infidelity
from torch import Tensor, nn

from lightning_modules import GradCAM, InputError, Network, Saliency, as_network
from lightning_modules.metrics import Infidelity
from lightning_modules.networks.inputs import trusted
from tests.lightning_modules.metrics.small import KEYS, small_pass
from tests.references import full_pass, noise_of_keys

BATCH: dict = {}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@trusted()  # Captum leaves [0, 1]
def test_against_captum(channels: int, normalize: bool) -> None:
    seen = small_pass()
    maps = seen.input_gradient() if channels == 3 else GradCAM()(seen)
    moves = 0.3 * noise_of_keys(KEYS, 7, 5, seen.images, "normal").transpose(0, 1).flatten(0, 1)
    expected = infidelity(
        seen.network,
        lambda images: (moves, images - moves),
        seen.images.detach(),
        maps.expand_as(seen.images),
        target=seen.target,
        n_perturb_samples=5,
        normalize=normalize,
    )
    metric = Infidelity(n_samples=5, sigma=0.3, normalize=normalize, max_batch=3, seed=7)
    scores = metric.score(maps, seen, BATCH, Saliency())
    after = seen.network(seen.images.detach().repeat_interleave(5, 0) - moves).detach().view(2, 5, -1)
    change = (seen.logits[:, None] - after)[torch.arange(2), :, seen.target]
    if normalize:
        # Captum scales by negative numbers too.
        foretold = (moves.view(2, 5, *moves.shape[1:]) * maps[:, None]).sum((2, 3, 4))
        is_upright = (foretold * change).sum(1) > 0
        expected = expected.where(is_upright, change.square().mean(1))
    torch.testing.assert_close(scores["infidelity"], expected, rtol=1e-9, atol=1e-12)
    explained = 1 - expected / change.square().mean(1)
    torch.testing.assert_close(scores["infidelity_explained"], explained, rtol=1e-9, atol=1e-12)


class Linear(nn.Module):
    """Two logits, each a weighted sum of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = nn.Linear(3 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.sums(x.flatten(1))


def test_the_gradient_of_a_linear_network_foretells_all() -> None:
    seen = full_pass(as_network(Linear().eval().double(), input_size=8), torch.rand(2, 3, 8, 8).double(), 1)
    gradient = seen.input_gradient()
    for maps, options in ((gradient, {"normalize": False}), (5 * gradient, {"normalize": True})):
        scores = Infidelity(10, **options).score(maps, seen, BATCH, Saliency())
        assert scores["infidelity"].max() < 1e-20
        torch.testing.assert_close(scores["infidelity_explained"], torch.ones(2).double())
    doubled = Infidelity(10, normalize=False).score(2 * gradient, seen, BATCH, Saliency())["infidelity"]
    assert (doubled > 1e-3).all()


def test_a_map_and_its_negative_are_not_equal() -> None:
    seen = full_pass(as_network(Linear().eval().double(), input_size=8), torch.rand(2, 3, 8, 8).double(), 1)
    gradient, metric = seen.input_gradient(), Infidelity(10)
    for maps in (gradient, gradient + 0.5 * gradient.flip(0)):
        scores, negative = (metric.score(sign * maps, seen, BATCH, Saliency()) for sign in (1, -1))
        assert (scores["infidelity_explained"] > 0.3).all()
        # No factor from 0 on makes it better than nothing at all: what is left is the variance of the logit.
        assert negative["infidelity_explained"].tolist() == [0, 0]
        assert (negative["infidelity"] > scores["infidelity"]).all()


def test_the_null_is_what_a_random_map_explains() -> None:
    """Of forty images, with one map that is right: the same with its pixels shuffled explains 1 / (2 n) of it."""
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    seen = full_pass(as_network(Linear().eval().double(), input_size=8), images, 1)
    scores, random = (
        Infidelity(50).score(maps, seen, BATCH, Saliency())
        for maps in (seen.input_gradient(), torch.randn(40, 3, 8, 8).double())
    )
    torch.testing.assert_close(scores["infidelity_explained"], torch.ones(40).double())
    for null in (scores["infidelity_explained_null"], random["infidelity_explained_null"]):
        assert 0.003 < null.mean() < 0.03
    assert 0.003 < random["infidelity_explained"].mean() < 0.03


def test_logits_twice_as_large_have_four_times_the_infidelity() -> None:
    """And the same share of them is explained, so that networks can be compared by it."""
    module, images = Linear().eval().double(), torch.rand(2, 3, 8, 8).double()
    maps, scores = torch.rand(2, 3, 8, 8).double(), []
    for factor in (1, 2):
        with torch.no_grad():
            module.sums.weight.mul_(factor)
        scores.append(
            Infidelity(10).score(maps, full_pass(as_network(module, input_size=8), images, 1), BATCH, Saliency())
        )
    torch.testing.assert_close(scores[1]["infidelity"], 4 * scores[0]["infidelity"])
    torch.testing.assert_close(scores[1]["infidelity_explained"], scores[0]["infidelity_explained"])


def test_all_methods_share_the_passes() -> None:
    seen, metric = small_pass(), Infidelity(n_samples=4, max_batch=4)
    maps = seen.input_gradient()
    with mock.patch.object(Network, "forward", autospec=True, side_effect=Network.forward) as forward:
        first = metric.score(maps, seen, BATCH, Saliency())["infidelity"]
        assert [len(call.args[1]) for call in forward.call_args_list] == [4, 4]
        again = metric.score(maps, seen, BATCH, Saliency())["infidelity"]
        assert forward.call_count == 2
        assert torch.equal(first, again)
        # Other noise is other passes.
        Infidelity(n_samples=4, max_batch=4, seed=1).score(maps, seen, BATCH, Saliency())
        assert forward.call_count == 4


@pytest.mark.parametrize("options", [{"n_samples": 0}, {"max_batch": 0}])
def test_bad_numbers(options: dict) -> None:
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        Infidelity(**options)


@pytest.mark.parametrize("sigma", [0.0, torch.nan])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma must be above 0, got"):
        Infidelity(sigma=sigma)
