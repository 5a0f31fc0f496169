"""Maps that are kept: how near they are to those that were computed, and their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from lightning_modules import (
    AttributionModule,
    ForwardPass,
    GradCAM,
    GuidedGradCAM,
    InputError,
    LayerCAM,
    Needs,
    Saliency,
    explain,
    load_vgg16,
    read_maps,
    score_maps,
)
from lightning_modules.methods.cam import map_and_grid
from lightning_modules.metrics import (
    AttributionMetric,
    AverageDrop,
    ClassDiscrimination,
    EnergyInBox,
    InsertionDeletion,
    LocalizationError,
    PointingGame,
    WeightRandomization,
)
from lightning_modules.results.maps import scaled_to_half, table_of_maps
from lightning_modules.results.storage import Parts
from tests.lightning_modules.fragile import NETWORK, batch_of, dim_images
from tests.lightning_modules.waits import put_on_device, waits_counted

BOXED = [PointingGame(3), EnergyInBox(), ClassDiscrimination()]
SCORES = [name for metric in BOXED for name in metric.columns]


def a_batch(n: int = 4, size: int = 64) -> dict[str, Any]:
    """Images with two boxes each, the first of the class that is explained."""
    batch = batch_of(torch.rand(n, 3, size, size)) | {"original": [None] * n}
    left, top = torch.randint(0, size // 2, (2, 2 * n))
    boxes = torch.stack([left, top, left + size // 4, top + size // 2], 1).float()
    return batch | {"boxes": boxes, "box_labels": torch.tensor([3, 5] * n), "n_boxes": torch.full((n,), 2)}


def module(**options: Any) -> AttributionModule:
    said: dict[str, Any] = {"weights": "shapes", "methods": [GradCAM(), Saliency()], "target": 3}
    return AttributionModule(**{**said, "metrics": BOXED, "save_maps": True, **options})


def write(run: Path, of: AttributionModule, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a step, written with the maps."""
    outputs = of.test_step(batch, 0)
    parts = Parts(run / "results", of.schema, 0, 1000, 1e9)
    parts.add(outputs["rows"], outputs["arrays"])
    parts.write()
    return outputs["rows"]


def read_alone(run: Path, maps: Tensor) -> Tensor:
    """A map ``(C, h, w)`` after it was written and read."""
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    table = table_of_maps([0], ["a"], torch.tensor([0]), none, {"own": scaled_to_half(maps[None])}, (8, 8))
    parts = Parts(run / "results", module().schema, 0, 1000, 1e9)
    parts.add([{"path": "a"}], {"maps": table})
    parts.write()
    return read_maps(run)["a"]["own"]


class TestHowNearTheyAre:
    @pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-20, 6e-8, 1.0, 7e4, 1e20, 3.4e38])
    def test_to_a_2048th_of_each_entry_whatever_their_size(self, size: float, tmp_path: Path) -> None:
        """And entries a million times smaller than the largest are told apart too."""
        maps = torch.randn(3, 8, 8).double() * 10.0 ** torch.randint(-8, 1, (3, 8, 8))
        maps = (maps / maps.abs().max() * size).float()
        found = read_alone(tmp_path, maps)
        assert found.dtype == torch.float32
        bound = torch.maximum(maps.double().abs() * 2.0**-11, maps.double().abs().max() * 2.0**-39)
        assert ((found.double() - maps.double()).abs() <= bound + 2.0**-149).all()
        is_large = maps.abs() > 1e-7 * maps.abs().max()
        assert (found[is_large] != 0).all()
        assert (found.sign()[is_large] == maps.sign()[is_large]).all()

    def test_the_bound_is_reached(self, tmp_path: Path) -> None:
        """So no smaller one holds."""
        maps = torch.tensor([1.0, 1 + 2**-11, 1.5]).view(1, 1, 3)
        found = read_alone(tmp_path, maps)
        assert (found - maps).abs().max() == 2**-11

    def test_the_largest_float32(self, tmp_path: Path) -> None:
        """Rounded up to float16 it would be infinite in float32."""
        largest = torch.finfo(torch.float32).max
        found = read_alone(tmp_path, torch.tensor([largest, -largest, 1.0]).view(1, 1, 3))
        assert found.flatten().tolist() == [largest, -largest, pytest.approx(0)]

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_what_is_no_number_stays_so_and_spoils_nothing(self, value: float, tmp_path: Path) -> None:
        maps = torch.tensor([1e-20, value, -2e-20, 0]).view(1, 2, 2)
        found = read_alone(tmp_path, maps)
        torch.testing.assert_close(found, maps, rtol=2**-11, atol=0, equal_nan=True)

    def test_nothing(self, tmp_path: Path) -> None:
        assert not read_alone(tmp_path, torch.zeros(1, 2, 2)).any()

    def test_what_float32_cannot_hold_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="The map own of a does not fit in float32"):
            read_alone(tmp_path, torch.tensor([1e200, 1.0], dtype=torch.float64).view(1, 1, 2))


class TestGrids:
    def test_maps_are_what_methods_give(self) -> None:
        network, images = load_vgg16("shapes"), torch.rand(2, 3, 112, 112)
        methods = [GradCAM(), LayerCAM(), Saliency(), GuidedGradCAM()]
        found = explain(network, images, methods, target=1)
        for name, method in zip(found, methods):
            seen = ForwardPass(network, images, 1, needs=method.needs(network))
            torch.testing.assert_close(found[name], method(seen), rtol=0, atol=0)
        assert found.grids["GradCAM"].shape == (2, 1, 7, 7)
        for name in ("Saliency", "GuidedGradCAM"):
            assert found.grids[name] is found[name]

    def test_a_call_of_ones_own_is_what_counts(self) -> None:
        class Squared(GradCAM):
            def __call__(self, forward_pass: ForwardPass) -> Tensor:
                return super().__call__(forward_pass).square()

        network, images = load_vgg16("shapes"), torch.rand(2, 3, 112, 112)
        needs: Needs = GradCAM().needs(network)
        maps, grid = map_and_grid(Squared(), ForwardPass(network, images, needs=needs))
        assert grid is maps
        torch.testing.assert_close(maps, explain(network, images, [GradCAM()])["GradCAM"].square())


class TestOfARun:
    def test_they_are_those_of_explain(self, tmp_path: Path) -> None:
        of, batch = module(), a_batch()
        write(tmp_path, of, batch)
        found, expected = read_maps(tmp_path), explain(of.network, batch["image"], list(of.methods.values()), 3)
        assert (found.methods, found.size, list(found)) == (["GradCAM", "Saliency"], (64, 64), ["0", "1", "2", "3"])
        for i, path in enumerate(batch["path"]):
            assert found[path]["GradCAM"].shape == (1, 4, 4)
            for maps, theirs in ((found[path], expected.grids), (found.enlarged(path), expected)):
                for name, attribution in maps.items():
                    atol = 2**-11 * float(theirs[name][i].abs().max())
                    torch.testing.assert_close(attribution, theirs[name][i], rtol=0, atol=atol)

    def test_an_image_that_failed_has_none(self) -> None:
        images = dim_images(3)
        images[1] = 1.0
        options: dict[str, Any] = {"network": NETWORK, "weights": "random", "methods": [Saliency()]}
        outputs = module(**options, target="predicted").test_step(batch_of(images) | {"original": [None] * 3}, 0)
        assert outputs["arrays"]["maps"]["path"].to_pylist() == ["0", "2"]
        assert outputs["arrays"]["maps"]["boxes"].to_pylist() == [[[1, 1, 9, 9]]] * 2
        nothing = module(**options, target="predicted").test_step(batch_of(torch.ones(2, 3, 32, 32)), 0)
        assert len(nothing["arrays"]["maps"]) == 0

    def test_they_cost_no_wait(self) -> None:
        of, batch = module(), a_batch()
        put_on_device(of)
        of.test_step(batch, 0)
        with waits_counted() as waits:
            of.test_step(put_on_device(batch), 0)
        assert len(waits) == 1, "\n".join(waits)

    def test_what_they_take_is_told_beforehand(self) -> None:
        of, batch = module(), a_batch(32, 112)
        of.network.options["input_size"] = 112
        (told,) = of.bytes_kept().values()
        taken = of.test_step(batch, 0)["arrays"]["maps"].nbytes / 32
        assert told - 64 < taken < told + 64
        assert module(save_maps=False).bytes_kept() == {}


class TestScores:
    def test_they_are_those_of_the_run(self, tmp_path: Path) -> None:
        rows = pd.DataFrame(write(tmp_path, module(), a_batch(16))).set_index(["path", "method"]).sort_index()
        found = score_maps(tmp_path, BOXED).set_index(["path", "method"]).sort_index()
        assert found.index.equals(rows.index)
        np.testing.assert_allclose(found["energy_in_box"], rows["energy_in_box"], rtol=2**-9)
        np.testing.assert_allclose(
            found["class_discrimination"], rows["class_discrimination"].astype(float), rtol=2**-9
        )
        assert found["pointing_game"].tolist() == rows["pointing_game"].tolist()
        assert 0 < found["pointing_game"].mean() < 1
        only = score_maps(tmp_path, [EnergyInBox()], ["GradCAM"])
        assert only["energy_in_box"].tolist() == found.xs("GradCAM", level="method")["energy_in_box"].tolist()
        with pytest.raises(InputError, match="stored no maps of GradCam, only of GradCAM, Saliency"):
            score_maps(tmp_path, BOXED, ["GradCam"])

    def test_images_without_a_box_are_not_scored(self, tmp_path: Path) -> None:
        batch = a_batch(2) | {
            "boxes": torch.zeros(0, 4),
            "box_labels": torch.zeros(0).long(),
            "n_boxes": torch.zeros(2).long(),
        }
        write(tmp_path, module(), batch)
        assert score_maps(tmp_path, BOXED)[SCORES].isna().all(axis=None)

    @pytest.mark.parametrize(
        "metric", [AverageDrop(), InsertionDeletion(), LocalizationError(), WeightRandomization()], ids=repr
    )
    def test_what_needs_a_network_is_refused(self, metric: AttributionMetric, tmp_path: Path) -> None:
        write(tmp_path, module(), a_batch(1))
        with pytest.raises(InputError, match=r"cannot be computed of stored maps alone: it needs '\w+' besides"):
            score_maps(tmp_path, [metric])

    def test_pixels_are_not_made_up(self, tmp_path: Path) -> None:
        class Brightness(AttributionMetric):
            columns = ("brightness",)

            def score(self, attribution: Any, forward_pass: Any, batch: Any, method: Any) -> dict[str, Tensor]:
                return {"brightness": forward_pass.images.mean((1, 2, 3))}

        write(tmp_path, module(), a_batch(1))
        with pytest.raises(InputError, match=r"Brightness cannot be computed .* it needs '\w+' besides"):
            score_maps(tmp_path, [Brightness()])
