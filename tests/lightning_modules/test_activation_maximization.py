from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from datamodules import ClassIndexDataModule
from lightning_modules import ActivationMaximizationModule, InputError, Network, RunWriter
from lightning_modules.results.rows import read_rows
from lightning_modules.synthesis import (
    Channel,
    LogitMargin,
    Objective,
    RandomShift,
    TotalVariation,
    generators,
    total_variation,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:GPU available")


def run(
    out: Path, module: ActivationMaximizationModule, classes: object, batch_size: int = 8, **options: object
) -> list[dict]:
    data = ClassIndexDataModule(
        classes,  # type: ignore[arg-type]
        batch_size=batch_size,
        class_names=module.network.class_names,
        channels=module.network.layer_channels,
        layer=module.objective.layer,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        callbacks=[RunWriter(out)],
        **options,
    )
    trainer.test(module, data, verbose=False)
    return read_rows(out / "results").to_pylist()


def pixels(out: Path, row: dict) -> np.ndarray:
    return np.asarray(Image.open(out / "images" / row["image"])).astype(float) / 255


@pytest.mark.slow
def test_a_class_alone_equals_it_in_a_batch_in_any_order(tmp_path: Path) -> None:
    options = {"weights": "shapes", "steps": 40, "n_figures": 0}
    batch = run(tmp_path / "batch", ActivationMaximizationModule(**options), "all")  # type: ignore[arg-type]
    some = run(tmp_path / "some", ActivationMaximizationModule(**options), ["star", "heart"], 1)  # type: ignore[arg-type]
    # Under no_grad, as gloo has it, instead of inference mode.
    alone = run(tmp_path / "alone", ActivationMaximizationModule(**options), 4, inference_mode=False)  # type: ignore[arg-type]
    assert [row["name"] for row in some] == ["heart", "star"]
    for name, rows in (("some", some), ("alone", alone)):
        for row in rows:
            same = next(other for other in batch if other["path"] == row["path"])
            assert np.abs(pixels(tmp_path / name, row) - pixels(tmp_path / "batch", same)).max() <= 1e-4
            assert row["probability_shifted"] == pytest.approx(same["probability_shifted"], abs=1e-4)


@pytest.mark.slow
def test_an_unfilled_pass_is_as_a_full_one(tmp_path: Path) -> None:
    options = {"weights": "shapes", "steps": 30, "n_figures": 0, "images_per_pass": 3}
    four = run(tmp_path / "four", ActivationMaximizationModule(**options), [0, 1, 2, 3])  # type: ignore[arg-type]
    one = run(tmp_path / "one", ActivationMaximizationModule(**options), [3])  # type: ignore[arg-type]
    assert [row["target"] for row in four] == [0, 1, 2, 3]
    assert np.abs(pixels(tmp_path / "one", one[0]) - pixels(tmp_path / "four", four[3])).max() <= 1e-4


def test_the_numbers_are_those_of_the_saved_image(tmp_path: Path, shapes_network: Network) -> None:
    module = ActivationMaximizationModule("shapes", steps=20, fresh_shift=5, n_fresh=4)
    (row,) = run(tmp_path, module, ["ring"])
    image = torch.tensor(pixels(tmp_path, row), dtype=torch.float32).permute(2, 0, 1)[None]
    target = torch.tensor([5])
    logits = shapes_network(image)
    assert row["activation"] == pytest.approx(float(LogitMargin()(logits, target)), rel=1e-4)
    assert row["probability"] == pytest.approx(float(logits.softmax(1)[0, 5]), rel=1e-4)
    assert row["total_variation"] == pytest.approx(float(total_variation(image)), rel=1e-5)
    crops = torch.cat([RandomShift(5)(image, generators(["0|None|5"], f"fresh {k}")) for k in range(4)])
    assert row["probability_shifted"] == pytest.approx(float(shapes_network(crops).softmax(1)[:, 5].mean()), rel=1e-4)
    assert (row["status"], row["steps"], row["seed"], row["name"]) == ("ok", 20, 0, "ring")


def test_channels(tmp_path: Path) -> None:
    plain = ActivationMaximizationModule("shapes", steps=10, n_fresh=1)
    (row,) = run(tmp_path / "a", plain, ["features.28:7"])
    assert (row["name"], row["layer"], row["target"], row["probability"]) == ("features.28:7", "features.28", 7, None)
    assert row["activation"] > 1
    named = ActivationMaximizationModule("shapes", objective=Channel("features.28"), steps=10, n_fresh=1)
    (same,) = run(tmp_path / "b", named, [7])
    assert np.array_equal(pixels(tmp_path / "a", row), pixels(tmp_path / "b", same))


@pytest.mark.slow
def test_ablation(tmp_path: Path) -> None:
    module = ActivationMaximizationModule("shapes", steps=20, ablation=True, regularizers=[TotalVariation(3000)])
    rows = run(tmp_path, module, ["star", "arrow"])
    assert [row["path"] for row in rows] == ["0000_arrow_seed0.png"] * 4 + ["0007_star_seed0.png"] * 4
    assert len({row["image"] for row in rows}) == 8
    by_variant = {row["variant"]: row["total_variation"] for row in rows[:4]}
    assert by_variant["both"] < by_variant["shifts only"]
    assert by_variant["TV only"] < by_variant["neither"]
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"ablation.png", "contact_sheet_both_000.png"}
    summary = module.summarize(read_rows(tmp_path / "results"))
    assert list(summary["variants"]) == ["neither", "TV only", "shifts only", "both"]
    assert summary["variants"]["both"]["n"] == 2
    # The plain run makes the image that the ablation calls both.
    (plain,) = run(
        tmp_path / "plain", ActivationMaximizationModule("shapes", steps=20, regularizers=[TotalVariation(3000)]), 0
    )
    both = next(row for row in rows if row["variant"] == "both")
    assert np.array_equal(pixels(tmp_path / "plain", plain), pixels(tmp_path, both))


def test_what_is_not_finite_is_a_failed_row(tmp_path: Path) -> None:
    module = ActivationMaximizationModule("shapes", steps=2)
    with torch.no_grad():
        module.network.layers["classifier.6"].bias[0] = torch.nan
    (row,) = run(tmp_path, module, [3])
    assert (row["status"], row["error"], row["image"]) == ("failed", "the activation is nan", None)
    assert not list((tmp_path / "images").glob("*.png"))
    assert module.summarize(read_rows(tmp_path / "results")) == {"n_images": 1, "n_failed": 1, "variants": {}}


def test_a_channel_of_a_network_without_logits(tmp_path: Path) -> None:
    """The activation is finite; the prediction would be any class."""
    module = ActivationMaximizationModule("shapes", steps=1, n_fresh=1)
    with torch.no_grad():
        module.network.layers["classifier.6"].bias[0] = torch.nan
    (row,) = run(tmp_path, module, ["features.28:7"])
    assert (row["status"], row["error"], row["image"]) == ("failed", "the network's logits are NaN", None)


class WithoutGradient(Objective):
    """The logit, and a gradient of NaN."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return output.gather(1, target[:, None])[:, 0] + (0 * output[:, 0]).abs().sqrt()


def test_pixels_that_are_no_numbers_are_not_judged_as_grey(tmp_path: Path) -> None:
    module = ActivationMaximizationModule("shapes", objective=WithoutGradient(), steps=1, n_fresh=1)
    (row,) = run(tmp_path, module, [3])
    assert (row["status"], row["error"]) == ("failed", "the pixels are NaN, as a gradient was")


def test_the_schema_holds_every_column_of_a_row(tmp_path: Path) -> None:
    module = ActivationMaximizationModule("shapes", steps=1)
    (row,) = run(tmp_path, module, [0])
    assert isinstance(module.schema, pa.Schema)
    assert {name for name, value in row.items() if value is None} == {"error", "layer"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "model.steps must be at least 1, got 0"),
        ({"image_size": 16}, "model.image_size must be at least 32"),
        ({"images_per_pass": 0}, "model.images_per_pass"),
        ({"n_fresh": 0}, "model.n_fresh"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActivationMaximizationModule("shapes", **options)


@pytest.mark.slow
def test_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_vgg16: Network) -> None:
    monkeypatch.setattr("lightning_modules.activation_maximization.load_network", lambda *args: random_vgg16)
    module = ActivationMaximizationModule("random", steps=4, n_fresh=1)
    data = ["n02123045", "features.10:3"]
    rows = {row["name"]: row for row in run(tmp_path, module, data)}
    assert set(rows) == {"tabby", "features.10:3"}
    assert all(pixels(tmp_path, row).shape == (224, 224, 3) for row in rows.values())
