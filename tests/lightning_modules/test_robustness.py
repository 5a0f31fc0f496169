from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from datamodules import ShapesDataModule
from datamodules.batch import with_pixels
from lightning_modules import (
    FGSM,
    PGD,
    SPSA,
    Attack,
    ForwardPass,
    GradCAM,
    InputError,
    RobustnessModule,
    Saliency,
    explain,
)
from lightning_modules.attacks.budgets import parse_sweep
from lightning_modules.attacks.noise import Noise, random_steps
from lightning_modules.figures.attacks import outcome_of
from lightning_modules.metrics import AverageDrop, EnergyInBox, InsertionDeletion, rank_correlation, top_overlap
from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.storage import StoredRows, part_name, read_rows, write_part
from lightning_modules.results.summaries.robustness import summarize_robustness
from lightning_modules.results.summaries.robustness_report import report_robustness

EPS = ["1/255", "2/255", "4/255", "8/255"]


def batches(shapes: Path, batch_size: int = 8, n_originals: int = 0) -> Iterator[dict[str, Any]]:
    data = ShapesDataModule(str(shapes), 64, 80, 60, batch_size=batch_size, num_workers=0, n_originals=n_originals)
    data.setup("test")
    return map(with_pixels, data.test_dataloader())


def frame(module: RobustnessModule, batch: dict[str, Any]) -> pd.DataFrame:
    """The rows of a batch as they would be read back."""
    rows = module.test_step(batch, 0)["rows"]
    table = pa.table({name: [row.get(name) for row in rows] for name in module.schema.names}, schema=module.schema)
    return table.sort_by([("path", "ascending"), ("eps", "ascending")]).to_pandas()


class Counter:
    """Counts a network's forward passes, and the backward passes that reach the pixels."""

    def __init__(self, network: nn.Module) -> None:
        self.forwards = self.backwards = 0
        network.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        self.forwards += 1
        if args[0].requires_grad:
            args[0].register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        self.backwards += 1


@pytest.mark.parametrize("norm", ["inf", 2, 1])
@pytest.mark.parametrize("methods", [[], [GradCAM()]], ids=["no methods", "GradCAM"])
def test_one_gradient_serves_the_sweep(shapes: Path, norm: Any, methods: list[GradCAM]) -> None:
    """1 forward + 1 backward + k forwards, explanations included: those of Grad-CAM end at its layer.

    What these are compared with costs k + 1 forwards more.
    """
    module = RobustnessModule("shapes", EPS, FGSM(norm), methods=methods)
    counter = Counter(module.network.module)
    with torch.inference_mode():
        module.test_step(next(batches(shapes, 2)), 0)
    n_compared = (1 + len(EPS)) * len(methods)
    assert (counter.forwards, counter.backwards) == (1 + len(EPS) + n_compared, 1)


@pytest.mark.slow
def test_scores_of_the_maps_before_and_after(shapes: Path) -> None:
    """Each is what the metric says of the same pass and map alone; the summary and the table have their means."""
    methods, metrics = [GradCAM(), Saliency()], [AverageDrop(), EnergyInBox(), InsertionDeletion(step=4000)]
    module = RobustnessModule("shapes", ["2/255"], methods=methods, metrics=metrics)
    batch = next(batches(shapes, 4))
    rows = frame(module, batch)
    # In the order of the memory that the module gives them: pixels that are nearly equal change places otherwise.
    images = batch["image"].contiguous(memory_format=torch.channels_last)
    clean = ForwardPass(module.network, images)
    for eps in (0.0, 2 / 255):
        adversarial = FGSM()(module.network, images, batch["label"], eps)
        maps = explain(module.network, adversarial, methods, clean.prediction, keys=batch["path"])
        at = rows[rows["eps"] == eps].set_index("path").loc[batch["path"]]
        for method in methods:
            for metric in metrics:
                found = metric.score(maps[repr(method)], maps.forward_pass, batch, method)
                for name in metric.columns:
                    # Of the attacked images some signs of tiny gradients may differ.
                    close = {"rtol": 0.02, "atol": 5e-3} if eps else {"rtol": 1e-4, "atol": 1e-5}
                    np.testing.assert_allclose(at[f"{method!r}.{name}"], found[name], **close)
    assert not any("curve" in name for name in rows.columns)
    summary = module.summarize(pa.Table.from_pandas(rows, module.schema))
    scores = summary["clean_scores"]["GradCAM"], summary["sweep"][0]["scores"]["GradCAM"]
    for of, eps in zip(scores, (0, 2 / 255)):
        drop = rows.loc[rows["eps"] == eps, "GradCAM.average_drop"]
        assert (of["average_drop"]["mean"], of["average_drop"]["n"]) == (pytest.approx(drop.mean()), 4)
    report = module.report(summary)
    assert report.scalars["3_scores/average_drop/Saliency/eps_2_255"] is not None
    (table,) = [table for table in report.tables if "clean images" in table.title]
    assert table.header[1:] == ["method", "eps 0", "eps 2/255"]
    assert {tuple(row[:2]) for row in table.rows} >= {("energy_in_box", "GradCAM"), ("insertion", "Saliency")}
    with pytest.raises(InputError, match=r"model\.metrics names a score twice"):
        RobustnessModule("shapes", metrics=[EnergyInBox(), EnergyInBox()])


@pytest.mark.slow
def test_rows(shapes: Path) -> None:
    module = RobustnessModule("shapes", EPS)
    batch = next(batches(shapes, 5))
    rows = frame(module, batch)
    assert len(rows) == 5 * 5
    network, images = module.network, batch["image"]
    maps = explain(network, images, [GradCAM()])["GradCAM"]
    clean = ForwardPass(network, images)
    for eps in (0, *module.eps):
        adversarial = FGSM()(network, images, batch["label"], eps)
        explained = explain(network, adversarial, [GradCAM()], clean.prediction)
        passed = explained.forward_pass
        at = rows[rows["eps"] == eps].set_index("path").loc[batch["path"]]
        assert at["prediction"].tolist() == passed.prediction.tolist()
        np.testing.assert_allclose(at["probability"], passed.probabilities.amax(1), rtol=1e-4)
        own = passed.probabilities.gather(1, batch["label"][:, None])[:, 0]
        np.testing.assert_allclose(at["probability_label"], own, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(at["linf"], (adversarial - images).abs().amax((1, 2, 3)), rtol=1e-5)
        assert at["target"].tolist() == batch["label"].tolist()
        assert at["success"].tolist() == (passed.prediction != batch["label"]).tolist()
        if eps:
            after = explained["GradCAM"]
            np.testing.assert_allclose(at["GradCAM.rank_correlation"], rank_correlation(maps, after), atol=1e-3)
            np.testing.assert_allclose(at["GradCAM.top_overlap"], top_overlap(maps, after), atol=1e-3)
        else:
            assert at["GradCAM.rank_correlation"].isna().all()
    for _, own in rows.groupby("path"):
        fooled = own.loc[own["success"].astype(bool), "eps"]
        assert own["smallest_eps"].dropna().unique().tolist() == fooled[:1].tolist()
    assert not rows["vanished"].any()


@pytest.mark.slow
def test_accuracy_falls_as_eps_grows(shapes: Path) -> None:
    module = RobustnessModule("shapes", EPS, methods=[])
    rows = frame(module, next(batches(shapes, 24)))
    accuracy = rows.groupby("eps")["top1"].mean().tolist()
    assert accuracy[0] > 0.95
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[-1] < 0.4
    stronger = RobustnessModule("shapes", EPS[1:3], PGD(n_steps=5), methods=[])
    fooled = frame(stronger, next(batches(shapes)))
    of_the_same = rows[rows["path"].isin(fooled["path"])]
    left = (fooled.groupby("eps")["top1"].mean() - of_the_same.groupby("eps")["top1"].mean()).dropna()
    assert len(left) == 3
    assert (left <= 0).all()
    assert (left < 0).any()


def test_targeted(shapes: Path) -> None:
    batch = next(batches(shapes))
    module = RobustnessModule("shapes", ["4/255"], FGSM(targeted=True), target="ring", methods=[])
    rows = frame(module, batch)
    ring = module.network.class_names.index("ring")
    attackable = rows["path"].isin(rows.loc[(rows["eps"] == 0) & (rows["prediction"] != ring), "path"])
    assert 0 < attackable.mean() < 1
    assert rows.loc[~attackable, "success"].isna().all()
    assert (rows[attackable]["success"] == (rows[attackable]["prediction"] == ring)).all()
    least = RobustnessModule("shapes", ["4/255"], FGSM(targeted=True), methods=[])
    assert least.target == "least_likely"
    names = [*least.network.class_names[:-1], "null"]
    with pytest.warns(UserWarning, match="model.target null means the class that each image is least .*'null': 7"):
        RobustnessModule("shapes", ["4/255"], FGSM(targeted=True), methods=[], class_names=names)
    clean = frame(least, batch)
    clean = clean[clean["eps"] == 0].set_index("path").loc[batch["path"]]
    assert clean["target"].tolist() == least.network(batch["image"]).argmin(1).tolist()


def test_unlabelled_images_are_attacked_on_their_prediction(shapes: Path) -> None:
    batch = next(batches(shapes)) | {"label": torch.full((8,), -1)}
    rows = frame(RobustnessModule("shapes", ["8/255"], target="predicted", methods=[]), batch)
    assert rows["top1"].isna().all()
    assert rows["probability_label"].isna().all()
    assert rows.loc[rows["eps"] > 0, "success"].mean() > 0.5
    assert not rows.loc[rows["eps"] == 0, "success"].any()


def test_failed_and_empty_batches(shapes: Path) -> None:
    module = RobustnessModule("shapes")
    batch = next(batches(shapes, 2)) | {"failed": [("x.png", "the file is empty")]}
    outcome = module.test_step(batch, 0)
    assert outcome["rows"][-1] == {"path": "x.png", "status": "failed", "error": "the file is empty"}
    assert len(outcome["rows"]) == 2 * 5 + 1
    empty = {"image": torch.zeros(0, 3, 1, 1), "failed": batch["failed"]}
    assert module.test_step(empty, 0) == {"rows": outcome["rows"][-1:], "figures": {}}


def test_saturated_images_are_counted_and_remedied(shapes: Path) -> None:
    batch = next(batches(shapes))
    rows = {}
    for unsaturate in (False, True):
        module = RobustnessModule("shapes", ["8/255"], FGSM(unsaturate=unsaturate), methods=[])
        for parameter in module.network.layers["classifier.6"].parameters():
            parameter.data *= 40
        rows[unsaturate] = frame(module, batch)
    plain, remedied = (rows[k][rows[k]["eps"] > 0] for k in (False, True))
    assert plain["saturated"].mean() > 0.9
    assert plain["vanished"].mean() > 0.5
    assert (plain.loc[plain["vanished"], "linf"] == 0).all()
    assert not plain.loc[plain["vanished"], "success"].any()
    assert not remedied["vanished"].any()
    assert remedied["success"].mean() > 0.6


def test_a_remedy_is_named_where_it_can_help() -> None:
    remedies = []
    for attack in (FGSM(), FGSM(unsaturate=True), FGSM(targeted=True)):
        module = RobustnessModule("shapes", ["8/255"], attack, methods=[])
        remedies.append(module._remedy())
    assert remedies[0].endswith("The remedy: --model.attack.unsaturate true")
    assert remedies[1:] == ["", ""]
    module = RobustnessModule("shapes", ["8/255"], FGSM(), methods=[])
    module.network.options["outputs"] = "probabilities"
    assert module._remedy().endswith("a network that gives logits, without its softmax or sigmoid")


class Cheat(Attack):
    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        return (images + 2 * eps).clamp(0, 1)


def test_budget_is_checked_on_every_batch(shapes: Path) -> None:
    with pytest.raises(InputError, match="The attack Cheat left its bounds: with eps 4/255"):
        RobustnessModule("shapes", ["4/255"], Cheat()).test_step(next(batches(shapes, 1)), 0)


def test_figures_of_images_with_originals(shapes: Path) -> None:
    module = RobustnessModule("shapes", EPS)
    figures = module.test_step(next(batches(shapes, 2, n_originals=1)), 0)["figures"]
    assert set(figures) == {0}
    lines = figures[0]().axes[-1].lines
    budgets = np.asarray(lines[0].get_xdata())
    assert set(np.float32(module.eps)) < set(budgets.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": [8]}, r"Did you mean 8/255\?"),
        ({"eps": []}, "no eps above 0"),
        ({"eps": ["-1/255"]}, "at least 0"),
        ({"target": "ring"}, "a class to lead to, but the attack leads away"),
        ({"target": "least_likely"}, r"set model\.attack\.targeted to true"),
        ({"target": "label", "attack": FGSM(targeted=True)}, "target is label, but the attack is targeted"),
        ({"target": 8, "attack": FGSM(targeted=True)}, "no class 8: the network has classes 0 to 7"),
        ({"target": "rin", "attack": FGSM(targeted=True)}, "Did you mean one of: ring"),
        ({"n_figures": -1}, r"n_figures must be at least 0"),
        ({"methods": [GradCAM(), GradCAM()]}, "names a method twice"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RobustnessModule("shapes", **options)


def test_bad_labels() -> None:
    module = RobustnessModule("shapes")
    module.check_labels(np.array([0, 7]))
    with pytest.raises(InputError, match=r"a label 8: the network has classes 0 to 7"):
        module.check_labels(np.array([0, 8]))
    with pytest.raises(InputError, match=r"flat folder.*model\.target predicted"):
        module.check_labels(np.array([-1, -1]))
    RobustnessModule("shapes", target="predicted").check_labels(np.array([-1, -1]))


class Recording(RobustnessModule):
    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.outcome = super().test_step(batch, batch_idx)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_in_lightnings_test_loop(shapes: Path, precision: Any) -> None:
    """Under inference mode. In bf16 the evaluation changes, the adversarial images do not."""
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_test_batches=1,
    )
    module = Recording("shapes", ["2/255"], methods=[])
    data = ShapesDataModule(str(shapes), 64, 80, 60, batch_size=3, num_workers=0)
    trainer.test(module, data, verbose=False)
    rows, expected = (
        pd.DataFrame(r).sort_values(["path", "eps"])
        for r in (module.outcome["rows"], RobustnessModule.test_step(module, next(batches(shapes, 3)), 0)["rows"])
    )
    assert rows[["linf", "l2"]].to_numpy().tolist() == expected[["linf", "l2"]].to_numpy().tolist()
    same = np.array_equal(rows["probability"], expected["probability"])
    assert same == (precision == "32-true")
    np.testing.assert_allclose(rows["probability"], expected["probability"], atol=0.1)


def test_summary_by_hand(tmp_path: Path) -> None:
    """Three images at two budgets: one wrong from the start, one fooled at the larger budget, one never."""
    schema = RobustnessModule("shapes", ["1/255", "2/255"]).schema
    rows: list[dict[str, Any]] = [{"path": "d", "status": "failed", "error": "the file is empty"}]
    for path, predictions in (("a", [1, 1, 1]), ("b", [0, 0, 2]), ("c", [0, 0, 0])):
        attackable = predictions[0] == 0
        for eps, prediction in zip((0, 1 / 255, 2 / 255), predictions):
            row = {"path": path, "status": "ok", "label": 0, "prediction": prediction, "eps": eps, "target": 0}
            row |= {"top1": prediction == 0, "top5": True, "linf": eps, "l2": 10 * eps}
            row |= {"success": prediction != 0 if attackable else None, "saturated": path == "c"}
            row |= {"vanished": path == "c", "smallest_eps": 2 / 255 if path == "b" else None}
            if eps and path != "a":
                row |= {"GradCAM.rank_correlation": 0.5 if path == "b" else 1.0, "GradCAM.top_overlap": 0.25}
            if eps:
                row |= {"GradCAM.noise.rank_correlation": 0.9, "GradCAM.noise.top_overlap": 0.8}
            row |= {"GradCAM.empty": path == "a" and eps > 0}
            row |= {} if eps else {"GradCAM.floor.rank_correlation": 0.125, "GradCAM.floor.top_overlap": 0.25}
            rows.append(row)
    write_part(tmp_path / part_name(0), rows[5:], schema)
    write_part(tmp_path / part_name(1), rows[:5], schema)
    table = read_rows(tmp_path)
    assert table["eps"].to_pylist()[:4] == [0, 1 / 255, 2 / 255, 0]
    summary = summarize_robustness(table, parse_sweep(["1/255", "2/255"], "inf"))
    assert summarize_robustness(StoredRows(tmp_path), parse_sweep(["1/255", "2/255"], "inf")) == summary
    first, second = summary.pop("sweep")
    intervals = {"top1": [0, 1, 1], "top5": [1, 1, 1]}
    assert summary == {
        "n_images": 4,
        "n_failed": 1,
        "n_box_errors": 0,
        "n_unturned": 0,
        "file_notes": {},
        "n_labelled": 3,
        "top1": pytest.approx(2 / 3),
        "top5": 1.0,
        "intervals": {name: pytest.approx(interval_of_mean(of)) for name, of in intervals.items()},
        "balanced_acc": pytest.approx(2 / 3),
        "classes": [{"label": 0, "name": None, "n": 3, "top1": pytest.approx(2 / 3)}],
        "clean_acc": pytest.approx(2 / 3),
        "clean_acc_top5": 1.0,
        "n_attacked": 2,
        "n_saturated": 1,
        "n_vanished": 1,
        # Half of the two withstand the sweep.
        "median_smallest_eps": None,
        "floor": {"GradCAM": {"rank_correlation": 0.125, "top_overlap": 0.25}},
    }
    intervals = {"robust_acc": [0, 1, 1], "robust_acc_top5": [1, 1, 1], "attack_success_rate": [0, 0]}
    likeness = {"rank_correlation": pytest.approx(0.5), "top_overlap": pytest.approx(1 / 6), "n": 3}
    assert first == {
        "eps": 1 / 255,
        "written": "1/255",
        "robust_acc": pytest.approx(2 / 3),
        "robust_acc_top5": 1.0,
        "attack_success_rate": 0.0,
        "linf": pytest.approx(1 / 255),
        "l2": pytest.approx(10 / 255),
        "n_changed": 0,
        "n_unmoved": 0,
        "intervals": {name: pytest.approx(interval_of_mean(of)) for name, of in intervals.items()},
        "methods": {
            "GradCAM": likeness
            | {
                # The map of "a" became empty.
                "rank_correlation_interval": pytest.approx(interval_of_mean([0, 0.5, 1])),
                "top_overlap_interval": pytest.approx(interval_of_mean([0, 0.25, 0.25])),
                "changed": {"rank_correlation": None, "top_overlap": None, "n": 0},
                "unchanged": likeness,
                "noise": {"rank_correlation": pytest.approx(0.9), "top_overlap": pytest.approx(0.8)},
                "n_empty": 1,
            }
        },
    }
    assert second["robust_acc"] == pytest.approx(1 / 3)
    assert second["attack_success_rate"] == 0.5
    assert second["n_changed"] == 1
    parts = second["methods"]["GradCAM"]
    assert [parts[name]["rank_correlation"] for name in ("changed", "unchanged")] == [0.5, 0.5]
    assert [parts[name]["n"] for name in ("changed", "unchanged")] == [1, 2]
    only_b = summarize_robustness(table.filter(pa.compute.equal(table["path"], "b")))
    assert only_b["median_smallest_eps"] == 2 / 255


def test_summary_of_failures_alone(tmp_path: Path) -> None:
    module = RobustnessModule("shapes")
    write_part(
        tmp_path / part_name(0), [{"path": "d", "status": "failed", "error": "the file is empty"}], module.schema
    )
    summary = module.summarize(read_rows(tmp_path))
    assert (summary["n_images"], summary["n_failed"], summary["clean_acc"], summary["sweep"]) == (1, 1, None, [])
    assert dict(module.run_figures(summary, tmp_path)).keys() == {"accuracy_over_eps"}


class Searching(Attack):
    """Moves an image as its pixels say: those that are brighter on the left than on the right it finds nothing for."""

    caveat = "A search that finds nothing says nothing."

    def __call__(self, network: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        left, right = images.split(images.shape[3] // 2, 3)[:2]
        finds = (left.mean((1, 2, 3)) > right.mean((1, 2, 3)))[:, None, None, None]
        return torch.where(finds, (images + eps).clamp(0, 1), images)


def test_images_that_a_search_leaves_alone_are_no_images_of_which_the_gradient_vanished(shapes: Path) -> None:
    module = RobustnessModule("shapes", ["4/255"], Searching())
    rows = pa.Table.from_pandas(frame(module, next(batches(shapes, 8))), module.schema, preserve_index=False)
    summary = module.summarize(rows)
    (at,) = summary["sweep"]
    assert 0 < at["n_unmoved"] < 8
    assert summary["n_vanished"] == 0
    assert at["methods"]["GradCAM"]["n"] == 8 - at["n_unmoved"]
    assert at["linf"] == pytest.approx(4 / 255, abs=1e-6)  # of those that were moved
    notes = " ".join(module.report(summary).notes)
    assert f"as its search found nothing: {at['n_unmoved']} with 4/255" in notes
    assert "vanished" not in notes
    assert "Accuracy under Searching is an upper bound" in notes
    assert "A search that finds nothing says nothing." in notes


def test_what_the_maps_are_compared_with(shapes: Path) -> None:
    """Noise as long as the attack, by the image's path alone; and another picture, whose map is less alike."""
    module = RobustnessModule("shapes", EPS[1:3])
    batch = next(batches(shapes, 6))
    rows = frame(module, batch)
    attacked = rows[rows["eps"] > 0]
    assert attacked["GradCAM.noise.rank_correlation"].mean() > attacked["GradCAM.rank_correlation"].mean()
    clean = rows[rows["eps"] == 0]
    assert clean["GradCAM.floor.rank_correlation"].mean() < attacked["GradCAM.noise.rank_correlation"].mean()
    assert attacked["GradCAM.floor.rank_correlation"].isna().all()
    alone = pd.concat([frame(module, one) for _, one in zip(range(2), batches(shapes, 1))])
    both = rows[rows["path"].isin(alone["path"])]
    for name in [name for name in rows if name.startswith("GradCAM.")]:
        np.testing.assert_allclose(alone[name].astype(float), both[name].astype(float), atol=1e-3)


@pytest.mark.parametrize("norm", ["inf", 2, 1])
def test_noise_of_a_budget_is_as_long_as_the_attack(norm: Any) -> None:
    images = torch.full((3, 3, 16, 16), 0.5)
    made = list(random_steps(images, [0.01, 0.1], norm, ["a", "b", "c"]))
    for eps, noisy in zip([0.01, 0.1], made):
        lengths = torch.linalg.vector_norm((noisy - images).flatten(1), float(norm), 1)
        np.testing.assert_allclose(lengths, eps, rtol=1e-4)
    assert torch.equal(made[0][1:2], next(random_steps(images[1:2], [0.01], norm, ["b"])))
    assert not torch.equal(made[0][0], made[0][1])


def curve_rows(outcomes: dict[str, list[int | None]]) -> pa.Table:
    """Rows of images of class 0, by their predictions under the budgets 0, 0.1, ...; None = unlabelled."""
    schema, rows = RobustnessModule("shapes", [0.1], methods=[]).schema, []
    for path, predictions in outcomes.items():
        is_labelled = not path.startswith("unlabelled")
        for k, prediction in enumerate(predictions):
            row = {"path": path, "status": "ok", "label": 0 if is_labelled else -1, "prediction": prediction}
            row |= {"top1": prediction == 0 if is_labelled else None, "eps": k / 10, "linf": k / 10, "l2": k / 10}
            nothing = is_labelled and predictions[0] != 0
            rows.append(row | {"success": None if nothing else prediction != 0, "vanished": False, "saturated": False})
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)


def test_who_was_fooled_with_less_is_fooled_with_more() -> None:
    """The demo's curve rose from 4/255 to 8/255, as FGSM's line leads back over the boundary."""
    predictions = {"back": [0, 1, 0, 0], "late": [0, 0, 0, 1], "never": [0, 0, 0, 0], "wrong": [1, 0, 0, 2]}
    summary = summarize_robustness(curve_rows(predictions))
    assert summary["clean_acc"] == 0.75
    assert [at["robust_acc"] for at in summary["sweep"]] == [0.5, 0.5, 0.25]
    # Of the three that it was right about; "wrong" changed as well, but was none to be fooled.
    assert summary["n_attacked"] == 3
    assert [at["attack_success_rate"] for at in summary["sweep"]] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert [at["n_changed"] for at in summary["sweep"]] == [2, 2, 3]
    assert summary["sweep"][2]["intervals"]["attack_success_rate"] == pytest.approx(interval_of_mean([0, 1, 1]))


def test_the_report_names_the_attack_and_what_its_numbers_bound() -> None:
    summary = summarize_robustness(curve_rows({"a": [0, 0], "b": [0, 1]}))
    report = report_robustness(summary, "", "FGSM", FGSM.caveat)
    assert report.tables[0].header == ["eps", "top-1 under FGSM", *report.tables[0].header[2:]]
    assert report.tables[0].rows[1][1].startswith("50.0% [")
    assert "over the 2 images that were classified rightly" in report.tables[0].title
    assert any("upper bound" in note and "PGD" in note for note in report.notes)


def test_unlabelled_images_have_no_accuracy_but_changes() -> None:
    report = report_robustness(summarize_robustness(curve_rows({"unlabelled a": [3, 3], "unlabelled b": [0, 1]})))
    (table,) = report.tables
    assert list(table.header) == ["eps", "success of the attack", "predictions changed", "L∞", "L2"]
    assert [row[2] for row in table.rows] == ["1"]  # and no row of the clean images, of which nothing stands


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (SPSA(n_steps=2, n_samples=3), "from 6 noisy images a step"),
        (Noise(), "asks the network nothing"),
        (FGSM(), "a single step"),
    ],
)
def test_the_silence_of_a_weak_attack_is_told(attack: Attack, words: str) -> None:
    assert words in attack.caveat


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ({"top1": True, "prediction": 0}, {"success": True, "prediction": 1}, "fooled"),
        ({"top1": True, "prediction": 0}, {"success": False, "prediction": 0}, "not fooled"),
        ({"top1": False, "prediction": 1}, {"success": True, "prediction": 2}, "wrong before, prediction changed"),
        ({"top1": None, "prediction": 1}, {"success": True, "prediction": 2}, "prediction changed"),
        ({"top1": None, "prediction": 1}, {"success": False, "prediction": 1}, "prediction unchanged"),
        ({"top1": True, "prediction": 1}, {"success": None, "prediction": 1}, "nothing to attack"),
    ],
)
def test_only_who_was_right_is_captioned_as_fooled(before: dict, after: dict, outcome: str) -> None:
    assert outcome_of(before, after) == outcome
