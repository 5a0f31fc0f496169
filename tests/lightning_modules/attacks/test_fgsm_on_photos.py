"""FGSM on a real network and real photos, against torchattacks and foolbox."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import foolbox
import pandas as pd
import pytest
import torch
import torchattacks
from torch import Tensor, nn
from torchvision.transforms import v2

from datamodules import ImageFolderDataModule
from datamodules.batch import with_pixels
from lightning_modules import FGSM, RobustnessModule
from lightning_modules.networks.libraries.torchvision import IMAGENET_MEAN, IMAGENET_STD
from tests.lightning_modules.attacks.linear import differing_signs
from tests.references import full_pass

N = 6
SWEEPS: dict[Any, list[float]] = {"inf": [0.25 / 255, 4 / 255], 2: [0.1, 1.6]}

Attacked = Callable[[nn.Module, Tensor, Tensor, list[float]], list[Tensor]]


def torchattacks_inf(model: nn.Module, images: Tensor, labels: Tensor, sweep: list[float]) -> list[Tensor]:
    return [torchattacks.FGSM(model, eps)(images, labels) for eps in sweep]


def foolbox_inf(model: nn.Module, images: Tensor, labels: Tensor, sweep: list[float]) -> list[Tensor]:
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return list(foolbox.attacks.LinfFastGradientAttack()(bounded, images, labels, epsilons=sweep)[1])


def foolbox_2(model: nn.Module, images: Tensor, labels: Tensor, sweep: list[float]) -> list[Tensor]:
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return list(foolbox.attacks.L2FastGradientAttack()(bounded, images, labels, epsilons=sweep)[1])


@pytest.mark.photos
@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "attack"),
    [("inf", torchattacks_inf), ("inf", foolbox_inf), (2, foolbox_2)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_accuracy_over_eps_is_the_peers(
    norm: Literal["inf", 2],
    attack: Attacked,
    photos: Path,
    squeezenet_weights: Path,
    plain_squeezenet: nn.Module,
) -> None:
    """What the evaluation's rows say, beside what the peers do to torchvision's own network.

    The accuracies may differ by those images alone whose two best logits lie within 0.05 of each other: a gradient near
    zero may have another sign, or none, where convolutions are summed in another order. Both run in channels_last.
    """
    sweep = SWEEPS[norm]
    module = RobustnessModule(
        str(squeezenet_weights), sweep, FGSM(norm), methods=[], network="torchvision.models.squeezenet1_0"
    )
    network = module.network
    sizes = {"input_size": network.input_size, "resize_size": network.resize_size}
    data = ImageFolderDataModule(str(photos), class_names=network.class_names, batch_size=N, num_workers=0, **sizes)
    data.setup("test")
    batch = with_pixels(next(iter(data.test_dataloader())))
    images, labels = batch["image"], batch["label"]
    rows = pd.DataFrame(module.test_step(batch, 0)["rows"])
    found = rows.groupby("eps")["top1"].sum()

    theirs = nn.Sequential(v2.Normalize(IMAGENET_MEAN, IMAGENET_STD), plain_squeezenet).eval()
    attacked = attack(theirs, images.contiguous(memory_format=torch.channels_last), labels, sweep)
    ours = FGSM(norm).sweep(full_pass(network, images), labels, sweep).adversarial
    right = []
    for eps, adversarial, own in zip([0.0, *sweep], [images, *attacked], [images, *ours], strict=True):
        with torch.no_grad():
            logits = theirs(adversarial)
        best = logits.topk(2).values
        undecided = int((best[:, 0] - best[:, 1] < 0.05).sum())
        right.append(int((logits.argmax(1) == labels).sum()))
        assert abs(found[eps] - right[-1]) <= undecided
        assert undecided <= 1
        if eps and norm == "inf":
            assert differing_signs(own, adversarial, images) < 1e-3
        elif eps:
            torch.testing.assert_close(own, adversarial, rtol=0, atol=1e-3 * eps)
    # The curve is one: of those that are known some are fooled.
    assert right[-1] < right[0]


@pytest.mark.photos
@pytest.mark.slow
def test_rows_of_batches_of_other_sizes(photos: Path, squeezenet_weights: Path) -> None:
    """Signs of gradients that are zero up to rounding may turn: a few probabilities differ, by little."""
    sweep = [1 / 255, 4 / 255]
    network = "torchvision.models.squeezenet1_0"
    module = RobustnessModule(str(squeezenet_weights), sweep, methods=[], network=network)
    found = []
    for batch_size in (3, N):
        data = ImageFolderDataModule(
            str(photos),
            class_names=module.network.class_names,
            batch_size=batch_size,
            num_workers=0,
            input_size=module.network.input_size,
            resize_size=module.network.resize_size,
        )
        data.setup("test")
        batches = islice(data.test_dataloader(), -(-N // batch_size))
        rows = [row for batch in batches for row in module.test_step(with_pixels(batch), 0)["rows"]]
        found.append(pd.DataFrame(rows).set_index(["path", "eps"]).sort_index())
    theirs, ours = found[0].loc[found[1].index], found[1]
    assert (ours["prediction"] == theirs["prediction"]).all()
    differences = (ours["probability"] - theirs["probability"]).abs()
    is_clean = differences.index.get_level_values("eps") == 0
    assert differences[is_clean].max() < 1e-5
    assert differences.max() < 5e-3
    assert (differences > 1e-5).mean() < 0.1
