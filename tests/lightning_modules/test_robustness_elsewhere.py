"""Attacked images that are kept, rounded, and shown to other networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from datamodules.batch import pixels_of
from lightning_modules import FGSM, PGD, InputError, RobustnessModule, load_network
from lightning_modules.results.adversarial import in_bytes
from tests.lightning_modules.fragile import NETWORK, batch_of, dim_images
from tests.lightning_modules.waits import put_on_device, waits_counted

EPS = ["0.6/255", "4/255"]
OTHER = {"network": NETWORK, "weights": "random", "name": "other"}


def module(**options: Any) -> RobustnessModule:
    """Attacks a network of three classes, of the predicted class."""
    said: dict[str, Any] = {"network": NETWORK, "weights": "random", "methods": [], "target": "predicted"}
    return RobustnessModule(eps=EPS, **{**said, **options})


def batch(n: int = 5, images: Tensor | None = None) -> dict[str, Any]:
    images = pixels_of(in_bytes(dim_images(n))) if images is None else images
    return batch_of(images) | {"original": [None] * n}


def by_path(rows: list[dict[str, Any]], eps: float) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in rows if row.get("eps") == eps}


@pytest.mark.parametrize("attack", [FGSM(2), PGD(n_steps=3)], ids=repr)
def test_rounded_by_hand(attack: Any) -> None:
    of, asked = module(attack=attack, rounded=True), batch(8)
    rows = of.test_step(asked, 0)["rows"]
    for eps in of.eps:
        found = by_path(rows, eps)
        target = of.network(asked["image"]).argmax(1)
        attacked = attack(of.network, asked["image"], target, eps)
        for k, image in enumerate(attacked):
            picture = np.round(image.double().numpy() * 255).astype(np.uint8)
            seen = torch.from_numpy(picture.astype(np.float32) / np.float32(255))
            row = found[str(k)]
            assert row["success_rounded"] == (int(of.network(seen[None]).argmax(1)) != int(target[k]))
            assert row["linf_rounded"] == pytest.approx(float((seen - asked["image"][k]).abs().max()), abs=1e-6)
    assert all(row.get("success_rounded") is None for row in by_path(rows, 0).values())
    assert {field.name for field in of.schema} >= {"success_rounded", "linf_rounded"}


class Edge(nn.Module):
    """Two classes, the first of images that are brighter than 99.8/255."""

    class_names = ("bright", "dark")
    input_size = 32
    mean = (0.0, 0.0, 0.0)

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        logit = x.mean((1, 2, 3)) * 255 - 99.8 + 0 * self.nothing
        return torch.stack([logit, -logit], 1)


def test_what_rounding_takes_back() -> None:
    """Images of level 100: a third of a step fools the network, and no file can hold it; a whole step it can."""
    of = RobustnessModule(
        eps=["0.1/255", "0.3/255", "1/255"], network=f"{__name__}.Edge", weights="random", methods=[],
        target="predicted", rounded=True,
    )  # fmt: skip
    rows = of.test_step(batch(1, torch.full((1, 3, 32, 32), 100 / 255)), 0)["rows"]
    assert [row["success"] for row in rows] == [False, False, True, True]
    assert [row.get("success_rounded") for row in rows] == [None, False, False, True]
    assert [row["linf_rounded"] for row in rows[1:]] == pytest.approx([0, 0, 1 / 255], abs=1e-7)
    table = pa.Table.from_pylist([{name: row.get(name) for name in of.schema.names} for row in rows], of.schema)
    assert [at["success_rate_rounded"] for at in of.summarize(table)["sweep"]] == [0, 0, 1]


def test_nothing_of_it_unless_asked() -> None:
    outputs = module().test_step(batch(), 0)
    assert outputs.keys() == {"rows", "figures"}
    assert not {"success_rounded", "linf_rounded"} & outputs["rows"][-1].keys()


def test_what_is_kept_is_what_was_judged() -> None:
    images = pixels_of(in_bytes(dim_images(5)))
    images[2] = 0.95  # gives NaN
    of = module(save_adversarial=True)
    outputs = of.test_step(batch(5, images), 0)
    (folder, table), *_ = outputs["arrays"].items()
    assert folder == "adversarial"
    assert table["path"].to_pylist() == ["0", "1", "3", "4"]
    good = images[[0, 1, 3, 4]]
    target = of.network(good).argmax(1)
    for name, expected in (
        ("0", good),
        *((eps, FGSM()(of.network, good, target, value)) for eps, value in zip(EPS, of.eps)),
    ):
        kept = np.stack(table[name].to_numpy(zero_copy_only=False)).reshape(expected.shape)
        assert table.schema.field(name).metadata == {b"shape": b"3,32,32"}
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept, expected.numpy())
        for path, image in zip(table["path"].to_pylist(), expected) if name != "0" else ():
            picture = outputs["pictures"][f"adversarial/{name.replace('/', '_')}/{path}.png"]
            np.testing.assert_array_equal(picture, np.round(image.numpy() * 255).astype(np.uint8).transpose(1, 2, 0))
    assert len(outputs["pictures"]) == 4 * 2


@pytest.mark.parametrize("targeted", [False, True])
def test_the_attacked_network_as_its_victim_says_what_it_says_in_8_bits(targeted: bool) -> None:
    """Of images that are 8 bits when they are clean."""
    target = "bee" if targeted else "predicted"
    of = module(attack=FGSM(2, targeted=targeted), target=target, rounded=True, victims=[OTHER])
    of.victims[0].network.load_state_dict(of.network.state_dict())
    rows = of.test_step(batch(40), 0)["rows"]
    for row in rows:
        if row["eps"]:
            assert row["victim.other.success"] == row["success_rounded"]
        else:
            assert row["victim.other.success"] == row["success"]
            assert row["victim.other.prediction_name"] == row["prediction_name"]
    assert [field.name for field in of.schema if field.name.startswith("victim")] == [
        "victim.other.success", "victim.other.probability", "victim.other.prediction_name"
    ]  # fmt: skip
    assert list(of.helpers) == ["victim.other"]


def test_an_image_that_a_victim_cannot_judge_fails() -> None:
    of = module(victims=[OTHER], save_adversarial=True)
    first = of.victims[0].network.module.head.weight
    with torch.no_grad():
        first[:] = torch.nan
    outputs = of.test_step(batch(2), 0)
    assert [row["status"] for row in outputs["rows"]] == ["failed"] * 2
    assert outputs["rows"][0]["error"] == "the victim other: the network's logits are NaN"
    assert not outputs["pictures"]
    assert len(outputs["arrays"]["adversarial"]) == 0


def test_a_victim_that_lacks_a_class_is_refused_before_anything_is_computed() -> None:
    names = {"class_names": ["ape", "bee", "cow"]}
    of = module(victims=[{**OTHER, **names}])
    of.trainer = type("T", (), {"datamodule": None, "is_global_zero": True, "callbacks": []})()  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"model\.victims: other has no class called 'cat', of which images may be"):
        of.on_test_start()
    source = type("S", (), {"labels": np.array([1, 0, 1])})()
    of = module(victims=[{**OTHER, **names}], target="label")
    trainer = {"datamodule": type("D", (), {"source": source})(), "is_global_zero": True, "callbacks": []}
    of.trainer = type("T", (), trainer)()
    with pytest.warns(UserWarning, match="is no second opinion"):  # weights of random networks are one seed's
        of.on_test_start()  # no image is labelled so


@pytest.mark.parametrize(
    ("options", "n"), [({"save_adversarial": True}, 1), ({"victims": [OTHER, {**OTHER, "name": "two"}]}, 2)], ids=str
)
def test_waits(options: dict[str, Any], n: int) -> None:
    """Victims see pictures as files have them, which come to the host first; what all of them say is read at once."""
    of = put_on_device(module(**options))
    for victim in of.victims:
        put_on_device(victim.network)
    asked = batch(3) | {"original": [None] * 3}  # what figures show is read too
    of.test_step(asked, 0)
    with waits_counted() as waits:
        of.test_step(put_on_device(asked), 0)
    assert len(waits) == n, "\n".join(waits)


def test_victims_are_no_parts_of_the_module() -> None:
    assert not any("victim" in name for name in module(victims=[OTHER]).state_dict())
    assert load_network(NETWORK, "random").state_dict().keys() <= {
        name.removeprefix("network.") for name in module(victims=[OTHER]).state_dict()
    }
