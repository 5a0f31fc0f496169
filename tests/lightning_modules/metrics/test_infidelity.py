from __future__ import annotations

from unittest import mock

import pytest
import torch
from captum.metrics import infidelity
from torch import Tensor, nn

from lightning_modules import GradCAM, InputError, Network, Saliency, as_network
from lightning_modules.metrics import Infidelity
from tests.lightning_modules.metrics.small import KEYS, small_pass
from tests.references import full_pass, noise_of_keys

BATCH: dict = {}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
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
    found = metric.score(maps, seen, BATCH, Saliency())["infidelity"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


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
    for maps, options in ((gradient, {"normalize": False}), (-5 * gradient, {"normalize": True})):
        assert Infidelity(10, **options).score(maps, seen, BATCH, Saliency())["infidelity"].max() < 1e-20
    doubled = Infidelity(10, normalize=False).score(2 * gradient, seen, BATCH, Saliency())["infidelity"]
    assert (doubled > 1e-3).all()


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
