from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from datamodules import ShapesDataModule
from datamodules.batch import with_pixels
from lightning_modules import (
    AttributionMethod,
    AttributionModule,
    ForwardPass,
    GradCAM,
    InputError,
    IntegratedGradients,
    Saliency,
    metrics,
)
from lightning_modules.metrics import (
    ROAD,
    AttributionMetric,
    AverageDrop,
    EnergyInBox,
    Infidelity,
    InsertionDeletion,
    PointingGame,
    Sparseness,
)


@pytest.fixture
def batch(shapes: Path) -> dict[str, Any]:
    data = ShapesDataModule(str(shapes), 64, 80, 60, batch_size=4, num_workers=0, n_originals=1)
    data.setup("test")
    return with_pixels(next(iter(data.test_dataloader())))


def test_rows_and_figures_of_a_batch(batch: dict[str, Any]) -> None:
    module = AttributionModule("shapes", [GradCAM(), Saliency()], target="heart")
    batch["failed"] = [("x.png", "the file is empty")]
    outputs = module.test_step(batch, 0)
    assert [row["method"] for row in outputs["rows"][:-1]] == ["GradCAM"] * 4 + ["Saliency"] * 4
    assert {row["target"] for row in outputs["rows"][:-1]} == {4}
    assert outputs["rows"][-1] == {"path": "x.png", "status": "failed", "error": "the file is empty"}
    assert list(outputs["figures"]) == [0]
    assert set(outputs["rows"][0]) <= set(module.schema.names)


def test_of_misclassified_images_the_label_is_scored_too(batch: dict[str, Any]) -> None:
    """As in runs of either target; of those that are right once, and of unlabelled ones not at all."""
    predictions = AttributionModule("shapes").network(batch["image"]).argmax(1)
    batch = {**batch, "original": [None] * 4, "label": predictions.clone()}
    batch["label"][1], batch["label"][3] = -1, (predictions[3] + 1) % 8
    batch["box_labels"] = batch["box_labels"].clone().fill_(int(batch["label"][3]))
    options: dict[str, Any] = {"methods": [GradCAM(), Saliency()], "metrics": [AverageDrop(), EnergyInBox()]}
    both, predicted = (AttributionModule("shapes", target=target, **options) for target in ("both", "predicted"))
    rows = both.test_step(batch, 0)["rows"]
    alone = predicted.test_step(batch, 0)["rows"]
    labels = {**batch, "label": batch["label"].clamp(0)}
    of_labels = AttributionModule("shapes", target="label", **options).test_step(labels, 0)["rows"]
    assert [{name: of for name, of in row.items() if not name.startswith("label.")} for row in rows] == alone
    for i, (row, other) in enumerate(zip(rows, of_labels)):
        for name in both.columns:
            is_none = other[name] is None or i % 4 == 1
            expected = None if is_none else pytest.approx(other[name], rel=1e-4, abs=1e-6)
            assert row[f"label.{name}"] == expected
    assert rows[7]["label.energy_in_box"] > 0
    assert rows[3]["average_drop"] != rows[3]["label.average_drop"]


def test_what_a_method_says_of_its_maps_stands_in_its_rows(batch: dict[str, Any]) -> None:
    methods = [IntegratedGradients(2), GradCAM(), IntegratedGradients(3)]
    module = AttributionModule("shapes", methods, [PointingGame()], n_figures=0)
    assert module.columns == ("completeness_error", "relative_completeness_error", "pointing_game")
    assert module.better == dict.fromkeys(methods[0].columns, "lower") | {"pointing_game": "higher"}
    rows = module.test_step({**batch, "original": [None] * 4}, 0)["rows"]
    error = [row.get("completeness_error") for row in rows]
    assert all(value > 0 for value in error[:4] + error[8:])
    assert error[4:8] == [None] * 4


def test_a_score_called_as_what_a_method_says_is_refused() -> None:
    class Twin(PointingGame):
        columns = ("completeness_error",)

    with pytest.raises(InputError, match="names the score completeness_error twice"):
        AttributionModule("shapes", [IntegratedGradients()], [Twin()])


BOXED, ANY = ["pointing_game", "energy_in_box"], ["average_drop", "increase_in_confidence", "sparseness"]


@pytest.mark.parametrize(("has_boxes", "columns"), [(True, BOXED), (False, ANY), (None, BOXED + ANY)])
def test_the_default_scores_are_those_that_the_images_can_have(
    batch: dict[str, Any], has_boxes: bool | None, columns: list[str]
) -> None:
    """Without boxes they cost a pass each; it is said once that there are others."""
    module = AttributionModule("shapes", [GradCAM(), Saliency()], n_figures=0)
    module.check_data(SimpleNamespace(has_boxes=has_boxes))
    assert list(module.columns) == list(module.better) == columns
    rows = module.test_step({**batch, "original": [None] * 4}, 0)["rows"]
    assert all(set(columns) <= set(row) for row in rows)
    table = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)
    report = module.report(module.summarize(table))
    assert sum("--data.boxes" in note for note in report.notes) == (has_boxes is False)
    named = AttributionModule("shapes", [GradCAM()], [PointingGame()])
    named.check_data(SimpleNamespace(has_boxes=has_boxes))
    assert named.columns == ("pointing_game",)


def test_methods_are_not_ranked_by_a_score_of_which_nobody_says_what_is_better(batch: dict[str, Any]) -> None:
    class Undeclared(AttributionMetric):
        columns = ("brightest",)

        def score(self, attribution: Tensor, *_: Any) -> dict[str, Tensor]:
            return {self.columns[0]: attribution.flatten(1).amax(1)}

    class Declared(Undeclared):
        columns = ("darkness",)
        lower_is_better = ("darkness",)

    module = AttributionModule("shapes", [GradCAM(), Saliency()], [Undeclared(), Declared()], n_figures=0)
    rows = module.test_step({**batch, "original": [None] * 4}, 0)["rows"]
    table = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)
    summary = module.summarize(table)
    assert (summary["unranked"], summary["better"]) == (["brightest"], {"darkness": "lower"})
    assert list(summary["ranking"]) == ["darkness"]
    starts = [note.partition(":")[0] for note in module.report(summary).notes]
    assert starts == ["Too few images to rank methods by darkness (4 images)", "Methods are not ranked by brightest"]
    figures = dict(module.run_figures(summary, Path()))
    titles = [axes.get_title() for axes in figures["scores"].axes if axes.get_visible()]
    assert titles == ["brightest", "darkness\n(lower is better)"]


def test_every_metric_of_ours_says_what_is_better() -> None:
    ours = [each for each in vars(metrics).values() if inspect.isclass(each) and issubclass(each, AttributionMetric)]
    assert len(ours) > 8
    assert all(each.lower_is_better is not None for each in ours if each is not AttributionMetric)


def test_batch_of_failures_alone(batch: dict[str, Any]) -> None:
    module = AttributionModule("shapes", [GradCAM()])
    empty = {**batch, "image": batch["image"][:0], "failed": [("x.png", "the file is empty")]}
    assert module.test_step(empty, 0)["figures"] == {}


def test_one_forward_serves_all_methods(batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = AttributionModule("shapes", [GradCAM(), Saliency(), GradCAM("features.22")], [])
    calls = []
    handle = module.network.module.register_forward_hook(lambda *_: calls.append(1))
    module.test_step(batch, 0)
    handle.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("shape", [(4, 1, 7, 7), (4, 112, 112), (1, 1, 112, 112)])
def test_map_of_another_shape_is_refused(batch: dict[str, Any], shape: tuple[int, ...]) -> None:
    class Wrong(AttributionMethod):
        def __call__(self, forward_pass: ForwardPass) -> Tensor:
            return torch.zeros(shape)

    message = rf"Wrong gave a map of shape \({shape[0]}, .*N = 4, H = 112, W = 112"
    with pytest.raises(InputError, match=message):
        AttributionModule("shapes", [Wrong()]).test_step(batch, 0)


def test_degenerate_maps_are_counted_and_have_no_score(batch: dict[str, Any]) -> None:
    class Constant(AttributionMethod):
        def __call__(self, forward_pass: ForwardPass) -> Tensor:
            values = torch.tensor([0.0, 3.0, torch.nan, torch.inf])
            return values.view(4, 1, 1, 1).expand_as(forward_pass.images[:, :1])

    class Own(AttributionMetric):
        columns = ("own",)

        def score(self, attribution: Tensor, *_: Any) -> dict[str, Tensor]:
            return {"own": torch.ones(len(attribution))}

    batch["box_labels"] = torch.zeros_like(batch["box_labels"])
    metrics = [PointingGame(), AverageDrop(), InsertionDeletion(3000), ROAD([50]), Sparseness(), Infidelity(2), Own()]
    module = AttributionModule("shapes", [Constant()], metrics, target=0)
    rows = module.test_step({**batch, "original": [None] * 4}, 0)["rows"]
    assert all(row["degenerate"] for row in rows)
    assert {row[name] for row in rows for name in module.columns} == {None}
    assert {number for row in rows for name in module.curves for number in row[name]} == {None}
