"""Victims: what else attacked images fool."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.preprocess import Preprocess
from lightning_modules import InputError
from lightning_modules.judging import VICTIM, Judge, load_judges, show_to, warn_of_judges
from tests.lightning_modules.judging.test_judges import MAKER, network


def victim(names: tuple[str, ...] = ("red", "green", "blue"), size: int = 8) -> Judge:
    """Of which the logits are the mean red, green and blue times 1, 2 and 3; the attacked network has another order."""
    return Judge("other", network(names, size), network(MAKER, weights=(4, 5, 6)), VICTIM)


def pictures(n: int = 5, size: int = 12) -> list[Tensor]:
    """Clean images and those under two budgets, uint8 ``(n, 3, size, size)``."""
    generator = torch.Generator().manual_seed(1)
    noise = [torch.rand(n, 3, size, size, generator=generator) for _ in range(3)]
    return [(255 * each * torch.rand(n, 3, 1, 1, generator=generator) ** 2).byte() for each in noise]


@pytest.mark.parametrize("targeted", [False, True])
def test_by_hand(targeted: bool) -> None:
    """Image by image, as a file would be opened, with the class found by its name."""
    shown, targets = pictures(), [0, 1, 2, 1, 0]
    columns: list[dict[str, object]] = [{"linf": [0.0] * 5} for _ in shown]
    assert show_to([victim()], shown, targets, targeted, columns) == [None] * 5
    names, expected = ("red", "green", "blue"), []
    for of_budget in shown:
        rows = []
        for image, target in zip(of_budget, targets):
            seen = Preprocess(None, 8, "bilinear")(Image.fromarray(image.permute(1, 2, 0).numpy())).double()
            logits = seen.mean((1, 2)) * torch.tensor([1.0, 2.0, 3.0])
            of_name = names.index(MAKER[target])
            first = int(logits.argmax())
            rows.append((first == of_name, float(logits.softmax(0)[of_name]), names[first]))
        expected.append(rows)
    for found, rows in zip(columns, expected):
        success = [None if clean[0] == targeted else row[0] == targeted for clean, row in zip(expected[0], rows)]
        assert found["victim.other.success"] == success
        assert found["victim.other.probability"] == pytest.approx([row[1] for row in rows], rel=1e-5)
        assert found["victim.other.prediction_name"] == [row[2] for row in rows]
        assert found["linf"] == [0.0] * 5
    said = [found["victim.other.success"] for found in columns]
    assert {value for of_budget in said for value in of_budget} == {None, True, False}  # type: ignore[attr-defined]


def test_what_is_no_number_is_an_error_of_its_image() -> None:
    broken, shown = victim(), [each.clamp(1) for each in pictures(2)]
    shown[2][1] = 0
    broken.network.forward = lambda images: images.mean((2, 3)).log() * 0  # type: ignore[method-assign]
    errors = show_to([victim(), broken], shown, [0, 1], False, [{}, {}, {}])
    assert errors == [None, "the victim other: the network's logits are NaN"]


def test_a_class_that_it_lacks() -> None:
    other = victim(("red", "green", "cyan"))
    with pytest.raises(InputError, match=r"^model\.victims: other has no class called 'blue', of which images may be"):
        other.check([0, 1])
    with pytest.raises(InputError, match=r"A victim is asked for a class by its name"):
        show_to([other], pictures(1), [1], False, [{}, {}, {}])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"network": "vgg16", "wieghts": "shapes"}, r"model\.victims: a victim has no option 'wieghts'"),
        ("vgg17", r"model\.victims, vgg17: network is 'vgg17'"),
    ],
)
def test_refused(wanted: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_judges([wanted], network(), VICTIM)  # type: ignore[list-item]


def test_the_attacked_network_as_its_own_victim_is_told() -> None:
    with pytest.warns(UserWarning, match=r"model\.victims: own has the weights of the network that is attacked"):
        warn_of_judges([Judge("own", network(), network(), VICTIM)])


def test_columns() -> None:
    assert [field.name for field in victim().fields] == list(show_columns())


def show_columns() -> dict[str, object]:
    columns: list[dict[str, object]] = [{}]
    show_to([victim()], [torch.from_numpy(np.zeros((1, 3, 8, 8), np.uint8))], [0], False, columns)
    return columns[0]
