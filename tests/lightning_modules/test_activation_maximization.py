from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from datamodules import ClassIndexDataModule, DataError, Preprocess
from lightning_modules import ActivationMaximizationModule, InputError, Network, RunWriter, load_network
from lightning_modules.exemplars import read_exemplars
from lightning_modules.results.storage import read_rows
from lightning_modules.synthesis import (
    Channel,
    LogitMargin,
    Objective,
    PixelImage,
    RandomShift,
    TotalVariation,
    generators,
    respond,
    total_variation,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:GPU available")


def made(**options: Any) -> ActivationMaximizationModule:
    """Of small images, without figures, unless the options are others."""
    return ActivationMaximizationModule("shapes", **{"image_size": 48, "n_fresh": 1, "n_figures": 0, **options})


def run(
    out: Path,
    module: ActivationMaximizationModule,
    classes: object,
    batch_size: int = 8,
    exemplars: Path | None = None,
    **options: object,
) -> list[dict]:
    data = ClassIndexDataModule(
        classes,  # type: ignore[arg-type]
        batch_size=batch_size,
        class_names=module.network.class_names,
        channels=module.network.layer_channels,
        layer=module.objective.layer,
        exemplars=None if exemplars is None else str(exemplars),
        n_exemplars=3,
        num_workers=0,
        input_size=module.network.input_size,
        resize_size=module.network.resize_size,
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
    options = {"steps": 6, "n_fresh": 4}
    batch = run(tmp_path / "batch", made(**options), "all")
    some = run(tmp_path / "some", made(**options), ["star", "heart"], 1)
    # Under no_grad, as gloo has it, instead of inference mode.
    alone = run(tmp_path / "alone", made(**options), 4, inference_mode=False)
    assert [row["name"] for row in some] == ["heart", "star"]
    for name, rows in (("some", some), ("alone", alone)):
        for row in rows:
            same = next(other for other in batch if other["path"] == row["path"])
            assert np.abs(pixels(tmp_path / name, row) - pixels(tmp_path / "batch", same)).max() <= 1e-4
            assert row["probability_shifted"] == pytest.approx(same["probability_shifted"], abs=1e-4)


@pytest.mark.slow
def test_an_unfilled_pass_is_as_a_full_one(tmp_path: Path) -> None:
    options = {"steps": 6, "n_fresh": 4, "images_per_pass": 3}
    four = run(tmp_path / "four", made(**options), [0, 1, 2, 3])
    one = run(tmp_path / "one", made(**options), [3])
    assert [row["target"] for row in four] == [0, 1, 2, 3]
    assert np.abs(pixels(tmp_path / "one", one[0]) - pixels(tmp_path / "four", four[3])).max() <= 1e-4


def test_the_numbers_are_those_of_the_saved_image(tmp_path: Path, shapes_network: Network) -> None:
    module = made(steps=8, fresh_shift=5, n_fresh=4)
    (row,) = run(tmp_path, module, ["ring"])
    image = torch.tensor(pixels(tmp_path, row), dtype=torch.float32).permute(2, 0, 1)[None]
    target = torch.tensor([5])
    logits = shapes_network(image)
    assert row["activation"] == pytest.approx(float(LogitMargin()(logits, target)), rel=1e-4)
    assert row["probability"] == pytest.approx(float(logits.softmax(1)[0, 5]), rel=1e-4)
    assert row["total_variation"] == pytest.approx(float(total_variation(image)), rel=1e-5)
    crops = torch.cat([RandomShift(5)(image, generators(["0|None|5"], f"fresh {k}")) for k in range(4)])
    assert row["probability_shifted"] == pytest.approx(float(shapes_network(crops).softmax(1)[:, 5].mean()), rel=1e-4)
    assert (row["status"], row["steps"], row["seed"], row["name"]) == ("ok", 8, 0, "ring")


class HardImage(PixelImage):
    """Pixels that go beyond what can be shown."""

    def pixels(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        return 3 * super().pixels(parameters, size) - 1


def test_what_is_clipped_is_told_as_it_was_before_rounding(tmp_path: Path) -> None:
    module = made(parametrization=HardImage(2.0), steps=1)
    (row,) = run(tmp_path, module, [3])
    saved = pixels(tmp_path, row)
    assert 0.3 < row["clipped"] <= ((saved == 0) | (saved == 1)).mean() < 0.9
    assert module.summarize(read_rows(tmp_path / "results"))["variants"]["both"]["clipped"]["mean"] == row["clipped"]


@pytest.mark.slow
def test_channels(tmp_path: Path, shapes_network: Network) -> None:
    plain = made(steps=10, image_size=112)
    (row,) = run(tmp_path / "a", plain, ["features.28:7"])
    assert (row["name"], row["layer"], row["target"], row["probability"]) == ("features.28:7", "features.28", 7, None)
    grey = respond(shapes_network, torch.full((1, 3, 112, 112), 0.5), "features.28")
    assert row["activation"] > 2 * max(0.1, float(grey[0, 7].mean()))
    named = made(objective=Channel("features.28"), steps=10, image_size=112)
    (same,) = run(tmp_path / "b", named, [7])
    assert np.array_equal(pixels(tmp_path / "a", row), pixels(tmp_path / "b", same))


@pytest.mark.slow
def test_ablation(tmp_path: Path) -> None:
    options: Any = {"steps": 12, "image_size": 48, "n_fresh": 1, "regularizers": [TotalVariation(3000)]}
    module = ActivationMaximizationModule("shapes", **options, ablation=True)
    rows = run(tmp_path, module, ["star", "arrow"])
    assert [row["path"] for row in rows] == ["0000_arrow_seed0.png"] * 4 + ["0007_star_seed0.png"] * 4
    assert len({row["image"] for row in rows}) == 8
    by_variant = {row["variant"]: row["total_variation"] for row in rows[:4]}
    assert by_variant["both"] < by_variant["shifts only"]
    assert by_variant["TV only"] < by_variant["neither"]
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures >= {"ablation.png", "contact_sheet_both_000.png", "contact_sheet_TV_only_000.png"}
    assert len([name for name in figures if name.startswith("0000")]) == 2  # how they grew, with both
    summary = module.summarize(read_rows(tmp_path / "results"))
    assert list(summary["variants"]) == ["neither", "TV only", "shifts only", "both"]
    assert summary["variants"]["both"]["n"] == 2
    assert "TV stands for the penalties [TotalVariation(weight=3000)], shifts for" in module.report(summary).notes[-1]
    # The plain run makes the image that the ablation calls both.
    (plain,) = run(tmp_path / "plain", ActivationMaximizationModule("shapes", **options), 0)
    both = next(row for row in rows if row["variant"] == "both")
    assert np.array_equal(pixels(tmp_path / "plain", plain), pixels(tmp_path, both))


def test_what_is_not_finite_is_a_failed_row(tmp_path: Path) -> None:
    module = made(steps=2)
    with torch.no_grad():
        module.network.layers["classifier.6"].bias[0] = torch.nan
    (row,) = run(tmp_path, module, [3])
    assert (row["status"], row["error"], row["image"]) == ("failed", "the activation is nan", None)
    assert not list((tmp_path / "images").glob("*.png"))
    assert module.summarize(read_rows(tmp_path / "results")) == {"n_images": 1, "n_failed": 1, "variants": {}}


def test_a_channel_of_a_network_without_logits(tmp_path: Path) -> None:
    """The activation is finite; the prediction would be any class."""
    module = made(steps=1)
    with torch.no_grad():
        module.network.layers["classifier.6"].bias[0] = torch.nan
    (row,) = run(tmp_path, module, ["features.28:7"])
    assert (row["status"], row["error"], row["image"]) == ("failed", "the network's logits are NaN", None)


class WithoutGradient(Objective):
    """The logit, and a gradient of NaN."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return output.gather(1, target[:, None])[:, 0] + (0 * output[:, 0]).abs().sqrt()


def test_pixels_that_are_no_numbers_are_not_judged_as_grey(tmp_path: Path) -> None:
    module = made(objective=WithoutGradient(), steps=1)
    (row,) = run(tmp_path, module, [3])
    assert (row["status"], row["error"]) == ("failed", "the pixels are NaN, as a gradient was")


class TestWhereNoGradientReaches:
    """Channel 7 of a layer whose ReLU is off, whatever the image."""

    CHANNEL = "features.29:7"

    def module(self, **options: Any) -> ActivationMaximizationModule:
        module = made(steps=3, **options)
        with torch.no_grad():
            module.network.layers["features.28"].weight[7] = 0
            module.network.layers["features.28"].bias[7] = -1
        return module

    @pytest.mark.parametrize("penalties", [[], [TotalVariation(1000)]], ids=["alone", "only penalties move it"])
    def test_the_row_is_failed(self, tmp_path: Path, penalties: list) -> None:
        rows = run(tmp_path, self.module(regularizers=penalties, warm_up=0.0), [self.CHANNEL, "features.28:8"])
        assert [(row["layer"], row["status"]) for row in rows] == [("features.28", "ok"), ("features.29", "failed")]
        assert rows[1]["error"].startswith("no gradient reached the image: at none of 3 steps would another pixel")
        assert "(0 in the end)" in rows[1]["error"]
        assert rows[1]["image"] is None
        assert [path.name for path in (tmp_path / "images").iterdir()] == ["features.28_0008_seed0.png"]

    def test_before_the_relu_it_is_ok(self, tmp_path: Path) -> None:
        """The convolution itself has a gradient, though its output is below 0."""
        module = self.module()
        with torch.no_grad():
            module.network.layers["features.28"].weight[7] = 0.01
        (row,) = run(tmp_path, module, ["features.28:7"])
        assert row["status"] == "ok"


class OfLater(Objective):
    """No gradient at the first two steps."""

    layer = "features.28"
    calls = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return Channel(self.layer)(output, target) * (0.0 if self.calls <= 2 else 1.0)


def test_one_step_with_a_gradient_is_enough(tmp_path: Path) -> None:
    (row,) = run(tmp_path, made(objective=OfLater(), steps=3), [7])
    assert row["status"] == "ok"


class TestJudges:
    OTHER: ClassVar = {"network": "vgg16", "weights": "shapes", "input_size": 64, "name": "other"}

    @pytest.mark.slow
    def test_each_image_of_a_class_is_judged_as_it_was_saved(self, tmp_path: Path, shapes_network: Network) -> None:
        module = made(steps=4, image_size=64, judges=[self.OTHER])
        with pytest.warns(UserWarning, match="model.judges") as told:
            rows = run(tmp_path, module, ["ring", "star", "features.28:7"])
        messages = [str(each.message) for each in told if "model.judges" in str(each.message)]
        assert len(messages) == 2
        assert "classes only; 1 of the 3 units" in messages[0]
        assert "other has the weights of the network that makes the images" in messages[1]
        judged = {name: [row[f"judge.other.{name}"] for row in rows] for name in ("rank", "probability")}
        assert (judged["rank"][2], judged["probability"][2]) == (None, None)
        for row, target in zip(rows, (5, 7)):
            image = Preprocess(None, 64)(Image.open(tmp_path / "images" / row["image"]))
            logits = shapes_network(image[None])[0]
            assert row["judge.other.probability"] == pytest.approx(float(logits.softmax(0)[target]), rel=1e-4)
            assert row["judge.other.rank"] == 1 + int((logits > logits[target]).sum())
            assert row["judge.other.prediction_name"] == shapes_network.class_names[int(logits.argmax())]
        of_judge = module.summarize(read_rows(tmp_path / "results"))["variants"]["both"]["judges"]["other"]
        assert (of_judge["n"], of_judge["n_top1"]) == (2, judged["rank"].count(1))

    def test_they_are_no_part_of_the_module(self) -> None:
        plain = made(steps=1)
        judged = made(steps=1, judges=[self.OTHER])
        assert judged.state_dict().keys() == plain.state_dict().keys()
        assert list(judged.helpers) == ["judge.other"]

    @pytest.mark.slow
    def test_a_class_that_a_judge_lacks_is_told_before_anything_is_made(self, tmp_path: Path) -> None:
        """star and heart are no classes of ImageNet."""
        lite = {"network": "efficientnet_lite0", "weights": "random", "input_size": 32}
        module = made(steps=1, judges=[lite])
        with pytest.raises(InputError, match="efficientnet_lite0 has no class called 'star' or 'heart', of which"):
            run(tmp_path, module, ["star", "heart"])
        assert not (tmp_path / "images").exists()

    def test_one_that_gives_no_numbers_fails_the_row(self, tmp_path: Path) -> None:
        module = made(steps=1, judges=[self.OTHER])
        with torch.no_grad():
            module.judges[0].network.layers["classifier.6"].bias[0] = torch.nan
        with pytest.warns(UserWarning, match="other has the weights"):
            (row,) = run(tmp_path, module, [3])
        assert (row["status"], row["error"]) == ("failed", "the judge other: the network's logits are NaN")
        assert (row["image"], row["activation"]) == (None, None)


class TestExemplars:
    CLASSES = ("star", "features.28:7", "features.10:3")

    @pytest.mark.slow
    def test_they_are_kept_and_shown(self, tmp_path: Path, shapes: Path, shapes_network: Network) -> None:
        module = made(steps=1)
        run(tmp_path, module, list(self.CLASSES), exemplars=shapes / "val")
        rows = read_exemplars(tmp_path / "exemplars")
        assert [(row["name"], row["rank"]) for row in rows] == [(name, k) for name in self.CLASSES for k in (1, 2, 3)]
        for row in rows:
            image = Preprocess(shapes_network.resize_size, 112)(Image.open(shapes / "val" / row["path"]))[None]
            output = respond(shapes_network, image, row["layer"])
            objective = LogitMargin() if row["layer"] is None else Channel(row["layer"])
            assert row["value"] == pytest.approx(float(objective(output, torch.tensor([row["target"]]))), rel=1e-3)
        assert all(row["path"].startswith("star/") for row in rows[:3])
        assert (tmp_path / "figures/exemplars_000.png").is_file()
        assert module.facts(tmp_path) == {
            "exemplars": {"n_photos": 80, "n_failed": 0, "failed": [], "n_unturned": 0, "notes": []}
        }

    @pytest.mark.slow
    def test_a_dead_channel_has_its_photos_all_the_same(self, tmp_path: Path, shapes: Path) -> None:
        module = TestWhereNoGradientReaches().module()
        (row,) = run(tmp_path, module, ["features.29:7"], exemplars=shapes / "val")
        assert row["status"] == "failed"
        assert [row["value"] for row in read_exemplars(tmp_path / "exemplars")] == [0, 0, 0]
        assert (tmp_path / "figures/exemplars_000.png").is_file()

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"data\.exemplars: The image folder .*nowhere does not exist"):
            run(tmp_path, made(steps=1), [0], exemplars=tmp_path / "nowhere")


@pytest.mark.photos
@pytest.mark.slow
def test_an_image_of_a_real_network_and_what_another_says_of_it(tmp_path: Path, squeezenet_weights: Path) -> None:
    network = "torchvision.models.squeezenet1_0"
    module = ActivationMaximizationModule(
        str(squeezenet_weights), network=network, steps=8, n_fresh=2, judges=["efficientnet_lite0"]
    )
    (row,) = run(tmp_path, module, ["goldfish"])
    judge = load_network("efficientnet_lite0")
    probabilities = judge(Preprocess(None, 224, "bicubic")(Image.open(tmp_path / "images" / row["image"]))[None])
    probabilities = probabilities.softmax(1)[0]
    assert 0 <= row["judge.efficientnet_lite0.probability"] <= 1
    assert 1 <= row["judge.efficientnet_lite0.rank"] <= 1000
    assert row["judge.efficientnet_lite0.probability"] == pytest.approx(float(probabilities[1]), rel=1e-4)
    assert row["judge.efficientnet_lite0.rank"] == 1 + int((probabilities > probabilities[1]).sum())
    assert row["judge.efficientnet_lite0.prediction_name"] == judge.class_names[int(probabilities.argmax())]


def test_the_schema_holds_every_column_of_a_row(tmp_path: Path) -> None:
    module = made(steps=1)
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
