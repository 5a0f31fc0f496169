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
from lightning_modules import FGSM, PGD, Attack, ForwardPass, GradCAM, InputError, RobustnessModule, Saliency, explain
from lightning_modules.attacks.budgets import parse_sweep
from lightning_modules.metrics import AverageDrop, EnergyInBox, InsertionDeletion, rank_correlation, top_overlap
from lightning_modules.results.rows.parts import part_name, read_rows, write_part
from lightning_modules.results.rows.stored import StoredRows
from lightning_modules.results.summaries.robustness import summarize_robustness

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
    """1 forward + 1 backward + k forwards, explanations included: those of Grad-CAM end at its layer."""
    module = RobustnessModule("shapes", EPS, FGSM(norm), methods=methods)
    counter = Counter(module.network.module)
    with torch.inference_mode():
        module.test_step(next(batches(shapes, 2)), 0)
    assert (counter.forwards, counter.backwards) == (1 + len(EPS), 1)


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
    rows = pd.concat([frame(module, batch) for batch in batches(shapes, 40)])
    accuracy = rows.groupby("eps")["top1"].mean().tolist()
    assert accuracy[0] > 0.95
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[-1] < 0.4
    stronger = RobustnessModule("shapes", EPS, PGD(n_steps=5), methods=[])
    fooled = frame(stronger, next(batches(shapes)))
    of_the_same = rows[rows["path"].isin(fooled["path"])]
    left = fooled.groupby("eps")["top1"].mean() - of_the_same.groupby("eps")["top1"].mean()
    assert len(left) == 5
    assert (left <= 0).all()
    assert (left < 0).any()


def test_batch_size_does_not_matter(shapes: Path) -> None:
    module = RobustnessModule("shapes", ["2/255"], FGSM(norm=2))
    several, one = (
        pd.concat([frame(module, batch) for _, batch in zip(range(n), batches(shapes, size))])
        for n, size in ((1, 6), (3, 2))
    )
    assert one["prediction"].tolist() == several["prediction"].tolist()
    for column in ("probability", "linf", "l2", "GradCAM.rank_correlation", "GradCAM.top_overlap"):
        np.testing.assert_allclose(one[column], several[column], rtol=1e-3, atol=1e-3)


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
    module.network.outputs = "probabilities"
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


def test_rounded_pixels_are_refused() -> None:
    module = RobustnessModule("shapes")
    module.network.bfloat16()
    with pytest.raises(InputError, match=r"torch\.bfloat16, which rounds.*bf16-mixed"):
        module.on_test_start()


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
            rows.append(row)
    write_part(tmp_path / part_name(0), rows[5:], schema)
    write_part(tmp_path / part_name(1), rows[:5], schema)
    table = read_rows(tmp_path)
    assert table["eps"].to_pylist()[:4] == [0, 1 / 255, 2 / 255, 0]
    summary = summarize_robustness(table, parse_sweep(["1/255", "2/255"], "inf"))
    assert summarize_robustness(StoredRows(tmp_path), parse_sweep(["1/255", "2/255"], "inf")) == summary
    first, second = summary.pop("sweep")
    assert summary == {
        "n_images": 4,
        "n_failed": 1,
        "n_box_errors": 0,
        "n_unturned": 0,
        "file_notes": {},
        "n_labelled": 3,
        "top1": pytest.approx(2 / 3),
        "top5": 1.0,
        "clean_acc": pytest.approx(2 / 3),
        "clean_acc_top5": 1.0,
        "n_attacked": 2,
        "n_saturated": 1,
        "n_vanished": 1,
        # Half of the two withstand the sweep.
        "median_smallest_eps": None,
    }
    assert first == {
        "eps": 1 / 255,
        "written": "1/255",
        "robust_acc": pytest.approx(2 / 3),
        "robust_acc_top5": 1.0,
        "attack_success_rate": 0.0,
        "linf": pytest.approx(1 / 255),
        "l2": pytest.approx(10 / 255),
        "methods": {"GradCAM": {"rank_correlation": 0.75, "top_overlap": 0.25, "n": 2}},
    }
    assert second["robust_acc"] == pytest.approx(1 / 3)
    assert second["attack_success_rate"] == 0.5
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
