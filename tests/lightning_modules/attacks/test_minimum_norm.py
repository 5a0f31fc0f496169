"""DeepFool, DDN and FMN: Foolbox's own calls, image by image; and what budgets clip of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import foolbox
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ShapesDataModule
from datamodules.batch import with_pixels
from lightning_modules import DDN, FMN, DeepFool, ForwardPass, InputError, Network, RobustnessModule, as_network
from lightning_modules.attacks.base import Sweep, check_budget
from lightning_modules.attacks.minimum_norm import MinimumNormAttack
from lightning_modules.networks.inputs import trusted
from tests.lightning_modules.attacks.linear import Gradients, Linear
from tests.lightning_modules.fragile import batch_of

pytestmark = pytest.mark.slow

ATTACKS = [DeepFool(), DeepFool("inf"), DDN(n_steps=20), FMN("inf", n_steps=20), FMN(1, n_steps=20)]


@pytest.fixture(scope="module")
def plain(shapes_network: Network) -> Gradients:
    return Gradients(copy.deepcopy(shapes_network)).eval()


@pytest.fixture(scope="module")
def big_images() -> Tensor:
    """Small ones, since each is searched by itself."""
    noise = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, (48, 48), mode="bicubic").clamp(0, 1)


def swept(attack: MinimumNormAttack, network: Network, images: Tensor, target: Tensor, eps: list[float]) -> Sweep:
    return attack.sweep(ForwardPass(network, images), target, eps)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_equals_foolbox(
    shapes_network: Network, plain: Gradients, big_images: Tensor, labels: Tensor, attack: MinimumNormAttack
) -> None:
    distance = cast(Tensor, swept(attack, shapes_network, big_images, labels, [1.0]).distance)
    eps = [float(distance.min()) / 2, float(distance.max()) * 2]
    found = swept(attack, shapes_network, big_images, labels, eps)
    model = foolbox.PyTorchModel(plain, (0, 1), "cpu")
    for i, (image, label) in enumerate(zip(big_images.split(1), labels.split(1))):
        whole, clipped, fools = attack.search()(model, image, label, epsilons=[*eps, None])
        for of_budget, of_theirs in zip(found.adversarial, clipped):
            torch.testing.assert_close(of_budget[i : i + 1], of_theirs, rtol=0, atol=1e-5)
        assert float(distance[i]) == pytest.approx(float((whole[0].double() - image).norm(p=float(attack.norm))))
        assert fools[-1]


@pytest.mark.parametrize("attack", [DDN(n_steps=20), FMN(n_steps=20)], ids=repr)
def test_targeted_leads_to_the_class(shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Any) -> None:
    attack = type(attack)(targeted=True, n_steps=20)
    target = (labels + 1) % 8
    found = swept(attack, shapes_network, big_images, target, [1e3])
    reached = shapes_network(found.adversarial[0]).argmax(1) == target
    assert reached.any()
    assert torch.equal(~cast(Tensor, found.distance).isnan(), reached)


def test_fmn_keeps_its_budget_in_the_norm_2(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    """Foolbox's own forgets it, and ends more than ten times as far away; DDN, another method, ends where ours does."""

    class Theirs(FMN):
        def search(self) -> Any:
            return foolbox.attacks.L2FMNAttack(steps=self.n_steps)

    ours, theirs, of_ddn = (
        cast(Tensor, swept(attack, shapes_network, big_images[:2], labels[:2], [1.0]).distance)
        for attack in (FMN(n_steps=40), Theirs(n_steps=40), DDN(n_steps=100))
    )
    is_found = ~ours.isnan()  # it may come to the boundary from inside, and never cross it
    assert is_found.any()
    assert (ours < 1.2 * of_ddn)[is_found].all()
    assert (theirs > 10 * ours)[is_found].all()


@pytest.mark.parametrize("attack", [*ATTACKS[:3], FMN(n_steps=5)], ids=repr)
def test_a_batch_does_not_matter(
    shapes_network: Network, big_images: Tensor, labels: Tensor, attack: MinimumNormAttack
) -> None:
    (together,) = swept(attack, shapes_network, big_images[:2], labels[:2], [1.0]).adversarial
    (alone,) = swept(attack, shapes_network, big_images[1:2], labels[1:2], [1.0]).adversarial
    assert torch.equal(alone, together[1:])


def test_budgets_hold_and_from_the_distance_on_they_fool(
    shapes_network: Network, big_images: Tensor, labels: Tensor
) -> None:
    for attack in (DeepFool(), FMN(1, n_steps=20)):
        distance = cast(Tensor, swept(attack, shapes_network, big_images, labels, [1.0]).distance)
        sweep = [*sorted((distance * (1 + 1e-6)).tolist()), *(distance / 3).tolist()]
        found = swept(attack, shapes_network, big_images, labels, sweep)
        for eps, adversarial in zip(sweep, found.adversarial):
            check_budget(attack, big_images, adversarial, eps)
            fools = shapes_network(adversarial).argmax(1) != labels
            assert attack.norm == 1 or fools[distance <= eps].all()  # FMN's are barely fooled: another batch may not be
        assert torch.equal(attack(shapes_network, big_images, labels, sweep[-1]), found.adversarial[-1])


@pytest.fixture
def blind() -> Network[Linear]:
    """A network without any gradient."""
    return as_network(Linear(torch.zeros(4, 12)))


def test_nothing_found_and_nothing_to_find(linear: Network[Linear], blind: Network, images: Tensor) -> None:
    away = linear(images).argmax(1)
    for attack in (DDN(n_steps=1), FMN(n_steps=1)):
        found = swept(attack, linear, images, away, [0.1])
        assert cast(Tensor, found.distance).isnan().all()
        assert torch.equal(found.adversarial[0], images)
    others = swept(DeepFool(), linear, images, (away + 1) % 4, [0.1])
    assert torch.equal(cast(Tensor, others.distance), torch.zeros(5, dtype=torch.float64))
    assert torch.equal(others.adversarial[0], images)


def test_a_gradient_that_vanishes_is_drawn_the_same_in_any_batch(
    blind: Network, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDN's first step is then random."""
    target, state = blind(images).argmax(1), torch.random.get_rng_state()
    seen: list[Tensor] = []
    make = ForwardPass.__init__

    def recorded(self: Any, network: Network, pixels: Tensor, *args: Any, **options: Any) -> None:
        seen.append(pixels.detach().clone())
        make(self, network, pixels, *args, **options)

    monkeypatch.setattr(ForwardPass, "__init__", recorded)
    swept(DDN(n_steps=3), blind, images[1:2], target[:1], [0.1])
    alone, seen[:] = list(seen), []
    assert not torch.equal(alone[2], alone[1])
    swept(DDN(n_steps=3), blind, images, target, [0.1])
    assert any(torch.equal(pixels, alone[2]) for pixels in seen)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_parameter_gets_a_gradient_and_pixels_out_of_range_are_lost(linear: Network[Linear], images: Tensor) -> None:
    with torch.inference_mode():
        found = swept(DeepFool(), linear, images.clone(), linear(images).argmax(1), [0.1])
    assert linear.module.weight.grad is None
    assert linear.module.weight.requires_grad
    assert not found.adversarial[0].isnan().any()
    with trusted():
        bad = torch.cat([images[:2], images[:1] + 2])
        found = swept(DeepFool(), linear, bad, torch.zeros(3, dtype=torch.long), [0.1])
    assert found.adversarial[0].isnan().flatten(1).all(1).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepFool(norm=1), "norm must be one of 2, inf, got 1"),
        (lambda: DeepFool(n_candidates=1), "n_candidates must be at least 2, got 1"),
        (lambda: DDN(n_steps=0), "n_steps must be at least 1, got 0"),
        (lambda: FMN(norm=3), "norm must be one of 2, inf, 1, got 3"),
    ],
)
def test_bad_options(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_without_foolbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(InputError, match=r"are Foolbox's: pip install 'vgg-lens\[foolbox\]'"):
        DDN()


class Never(nn.Module):
    """A network that nothing fools."""

    input_size = 8

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)) + 9, x.amax((1, 2, 3))], 1)


def batches(shapes: Path) -> Iterator[dict[str, Any]]:
    data = ShapesDataModule(str(shapes), 64, 80, 60, batch_size=8, num_workers=0, n_originals=0)
    data.setup("test")
    return map(with_pixels, data.test_dataloader())


def test_rows_summary_report_and_figure(shapes: Path, tmp_path: Path) -> None:
    """The accuracy at a distance is that of the rows; the sweep's accuracies are what the curve says of them."""
    module = RobustnessModule("shapes", [0.05, 5.0], DeepFool(), methods=[], n_figures=0)
    rows = [row for batch in [next(batches(shapes))] for row in module.test_step(batch, 0)["rows"]]
    table = pa.table({name: [row.get(name) for row in rows] for name in module.schema.names}, schema=module.schema)
    clean = [row for row in rows if row["eps"] == 0]
    attacked = [row for row in clean if row["top1"] == 1]
    assert all(row["distance"] > 0 for row in attacked)
    assert all(row["distance"] == 0 for row in clean if row["top1"] == 0)
    summary = module.summarize(table)
    nearest = summary["nearest"]
    distances = np.sort([row["distance"] for row in attacked])
    assert (nearest["n"], nearest["n_found"], nearest["norm"]) == (len(attacked), len(attacked), 2)
    assert nearest["quantiles"]["50%"] == distances[(len(distances) - 1) // 2]
    at = dict(zip(nearest["curve"]["distance"], nearest["curve"]["accuracy"]))
    assert at[0.0] == summary["clean_acc"] == len(attacked) / len(clean)
    for k, distance in enumerate(distances, start=1):
        assert at[distance] == pytest.approx((len(attacked) - k) / len(clean))
    for budget in summary["sweep"]:
        last = max(distance for distance in at if distance <= budget["eps"])
        assert budget["robust_acc"] <= at[last] + 1e-9
    assert summary["sweep"][-1]["robust_acc"] == 0
    report = module.report(summary)
    assert report.tables[-1].rows[2] == ["50%", f"{nearest['quantiles']['50%']:.4g}"]
    names = [name for name, _ in module.run_figures(summary, tmp_path)]
    assert names == ["accuracy_over_eps", "accuracy_over_distance"]
    assert module.passes()["DeepFool"] == 50 * 9 + 2


def test_a_quantile_that_nothing_reaches_is_said(tmp_path: Path) -> None:
    network = as_network(Never().eval(), class_names=["a", "b"])
    module = RobustnessModule(network=cast(Any, network), eps=[0.1], attack=DDN(n_steps=2), methods=[], n_figures=0)
    batch = batch_of(torch.rand(2, 3, 8, 8), [0, 1]) | {"original": [None] * 2}
    rows = module.test_step(cast(Any, batch), 0)["rows"]
    table = pa.table({name: [row.get(name) for row in rows] for name in module.schema.names}, schema=module.schema)
    summary = module.summarize(table)
    assert summary["nearest"]["n_found"] == 0
    assert summary["nearest"]["curve"] == {"distance": [0.0], "accuracy": [0.5]}
    assert {cell for _, cell in module.report(summary).tables[-1].rows} == {"none found"}
