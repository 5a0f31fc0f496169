from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_modules import (
    FGSM,
    PGD,
    ActivationMaximizationModule,
    Attack,
    AttributionModule,
    EvaluationModule,
    ForwardPass,
    GradCAM,
    InputError,
    RobustnessModule,
    Saliency,
    evaluation,
    load_network,
)
from lightning_modules.classifier import ClassifierModule, PredictionModule
from lightning_modules.evaluation import refuse_rounded_weights
from lightning_modules.metrics import AverageDrop, EnergyInBox, InsertionDeletion
from tests.lightning_modules.fragile import FRAGILE, NETWORK, batch_of, dim_images


class Surety(EvaluationModule):
    """An evaluation as a stranger writes it."""

    columns = ("surety",)

    def __init__(self) -> None:
        super().__init__(load_network(NETWORK, "random"))

    def evaluate(self, batch: Any) -> Any:
        seen = ForwardPass(self.network, batch["image"])
        return self.outputs(seen, batch, {"surety": seen.probabilities.amax(1)})


def attribution() -> AttributionModule:
    metrics = [EnergyInBox(), AverageDrop(), InsertionDeletion(step=256)]
    return AttributionModule(methods=[GradCAM(), Saliency()], metrics=metrics, target="predicted", **FRAGILE)


def robustness(attack: Attack | None = None, eps: float = 0.01) -> RobustnessModule:
    return RobustnessModule(eps=[eps / 2, eps], attack=attack, **FRAGILE)


def with_two_broken() -> dict[str, Any]:
    """Five images; the logits of the second are NaN, those of the fourth infinite."""
    images = dim_images(5)
    images[1], images[3] = 1.0, 0.85
    return batch_of(images)


def mended(batch: dict[str, Any], broken: set[int]) -> dict[str, Any]:
    """The batch with an image of grey in place of each that is broken."""
    images = batch["image"].clone()
    images[list(broken)] = 0.5
    return batch | {"image": images}


def without_figures(batch: dict[str, Any]) -> dict[str, Any]:
    return batch | {"original": [None] * len(batch["path"])}


def rows_of(outputs: Any, images: set[int]) -> list[dict[str, Any]]:
    return [row for row in outputs["rows"] if int(row["path"]) in images]


class TestLogitsThatAreNoNumbers:
    @pytest.mark.parametrize("module", [Surety, attribution, robustness], ids=["a stranger's", "maps", "attacks"])
    def test_the_image_fails_and_the_others_keep_their_numbers(self, module: Any) -> None:
        batch = with_two_broken()
        outputs, expected = (module().test_step(b, 0) for b in (batch, without_figures(mended(batch, {1, 3}))))
        common = {"label": 0, "label_name": "ape", "status": "failed", "exif_orientation": 1, "note": None}
        assert rows_of(outputs, {1, 3}) == [
            {"path": "1", **common, "error": "the network's logits are NaN"},
            {"path": "3", **common, "error": "the network's logits are infinite"},
        ]
        assert rows_of(outputs, {0, 2, 4}) == rows_of(expected, {0, 2, 4})
        assert set(outputs["figures"]) == {0, 2, 4}

    def test_they_are_counted_by_strict(self) -> None:
        module = Surety()
        rows = module.test_step(with_two_broken(), 0)["rows"]
        table = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows])
        summary = module.summarize(table.cast(module.schema))
        assert (summary["n_images"], summary["n_failed"], summary["scores"]["surety"]["n"]) == (5, 2, 3)

    def test_a_batch_of_nothing_else(self) -> None:
        batch = batch_of(torch.ones(2, 3, 32, 32))
        for module in (Surety(), attribution(), robustness(), robustness(FGSM(2)), robustness(PGD(2, n_steps=2))):
            outputs = module.test_step(batch, 0)
            assert [(row["path"], row["status"]) for row in outputs["rows"]] == [("0", "failed"), ("1", "failed")]
            assert outputs["figures"] == {}

    def test_prediction(self) -> None:
        batch = with_two_broken() | {"failed": [("x.png", "the file is empty")]}
        network = load_network(NETWORK, "random")
        prediction = PredictionModule(network).predict_step(batch, 0)
        assert prediction["path"] == ["0", "2", "4"]
        torch.testing.assert_close(prediction["probabilities"], network(batch["image"][::2]).softmax(1))
        assert prediction["failed"] == [
            ("1", "the network's logits are NaN"),
            ("3", "the network's logits are infinite"),
            ("x.png", "the file is empty"),
        ]

    def test_score_of_a_masked_image_without_logits_is_missing(self) -> None:
        """The map is zero, so the image fades to the mean, of which this network gives NaN."""
        network = load_network(NETWORK, "random")
        network._fill = (1.0, 1.0, 1.0)
        images = dim_images(2)
        seen = ForwardPass(network, images)
        scores = AverageDrop().score(torch.zeros(2, 1, 32, 32), seen, batch_of(images), GradCAM())
        assert all(score.isnan().all() for score in scores.values())


class TestUnderAttack:
    """The clean image is fine; what becomes of it is not."""

    def brightening(self) -> dict[str, Any]:
        """Two images; only the second grows brighter than the network bears."""
        return batch_of(torch.cat([dim_images(1), torch.full((1, 3, 32, 32), 0.793)]))

    def test_logits(self) -> None:
        class Brighten(Attack):
            def __call__(self, network: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
                return (images + eps).clamp(0, 1)

        outputs = robustness(Brighten()).test_step(self.brightening(), 0)
        assert [row["eps"] for row in rows_of(outputs, {0})] == [0, 0.005, 0.01]
        (failed,) = rows_of(outputs, {1})
        assert failed["error"] == "the network's logits are infinite, with eps 0.01"
        assert set(outputs["figures"]) == {0}

    @pytest.mark.parametrize("attack", [FGSM(), FGSM(2), FGSM(1), FGSM(2, unsaturate=True), PGD(n_steps=2), PGD(2)])
    def test_gradient(self, attack: Attack) -> None:
        """torch.sign(NaN) is 0: the attack would do nothing, and the network look robust."""
        images = dim_images(3)
        images[1, 0, 0, 0] = 0.25
        batch = without_figures(batch_of(images))
        outputs, expected = (robustness(attack).test_step(b, 0) for b in (batch, mended(batch, {1})))
        assert rows_of(outputs, {0, 2}) == rows_of(expected, {0, 2})
        (failed,) = rows_of(outputs, {1})
        assert (failed["status"], failed["error"]) == ("failed", "the attack gives pixels that are NaN, with eps 0.005")


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(
        "module",
        [
            Surety,
            attribution,
            robustness,
            lambda: ActivationMaximizationModule(**FRAGILE),
            lambda: ClassifierModule(["a", "b"], "random", 0.05, 8, 32),
        ],
        ids=["a stranger's", "maps", "attacks", "synthesis", "training"],
    )
    def test_rounded_weights_are_refused(self, module: Any, dtype: torch.dtype) -> None:
        module = module().to(dtype)
        with pytest.raises(InputError, match=rf"weights are {dtype}, which rounds pixels, .* bf16-mixed or 16-mixed"):
            (module.on_fit_start if isinstance(module, ClassifierModule) else module.on_test_start)()

    def test_double_precision_is_welcome(self) -> None:
        refuse_rounded_weights(Surety().double().network)


class Reads(TorchFunctionMode):
    """Notes, in order, each convolution and each time that Python waits for a tensor's value."""

    WAITS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy", "cpu", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.WAITS:
            self.events.append("wait")
        elif name in ("conv2d", "linear"):
            self.events.append("compute")
        return func(*args, **(kwargs or {}))


@contextmanager
def events() -> Iterator[list[str]]:
    with Reads() as reads:
        yield reads.events


@pytest.mark.parametrize("module", [Surety, attribution], ids=["a stranger's", "maps"])
def test_a_step_reads_nothing_before_all_is_computed(module: Any) -> None:
    step = module()
    batch = without_figures(with_two_broken())
    with events() as seen:
        step.test_step(batch, 0)
    assert "wait" in seen
    assert "compute" not in seen[seen.index("wait") :]


def test_infinity_is_told_from_nan() -> None:
    logits = load_network(NETWORK, "random")(with_two_broken()["image"])
    assert math.isnan(float(logits[1, 0].detach()))
    assert math.isinf(float(logits[3, 0].detach()))


class Listener:
    """A callback that takes parts of a batch."""

    def __init__(self) -> None:
        self.parts: list[tuple[Any, int]] = []

    def on_part_end(self, trainer: Any, outputs: Any, batch: Any, n_images: int) -> None:
        self.parts.append((outputs, n_images))


class TestParts:
    """A batch that takes long is handed over in parts, which are those of the whole batch."""

    @pytest.fixture
    def listener(self, monkeypatch: pytest.MonkeyPatch) -> Listener:
        """What each image takes is 20 s, by the clock."""
        listener, clock = Listener(), itertools.count(step=20)
        monkeypatch.setattr(evaluation.time, "monotonic", lambda: float(next(clock)))
        return listener

    def evaluated(self, module: Any, listener: Listener | None, batch: Any) -> list[Any]:
        module.trainer = SimpleNamespace(callbacks=[])
        module.part_listeners = [listener] if listener else []
        last = module.test_step(batch, 0)
        return [*(outputs for outputs, _ in listener.parts), last] if listener else [last]

    @pytest.mark.parametrize("make", [attribution, robustness])
    def test_a_first_batch_of_many_passes(self, make: Any, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
        """One image; of those that take 20 s each two; of those that take 10 s each four, and these are the rest."""
        batch = batch_of(dim_images(5))
        batch |= {"n_boxes": torch.tensor([1, 0, 2, 1, 1]), "failed": [("bad.png", "no image")]}
        (whole,) = self.evaluated(make(), None, batch)
        monkeypatch.setattr(evaluation, "PASSES_TO_TRY_ONE", 5)
        parts = self.evaluated(make(), listener, batch)
        assert [n for _, n in listener.parts] == [1, 2]
        assert [sorted(part["figures"]) for part in parts] == [[0], [1, 2], [3, 4]]
        rows = sorted((row for part in parts for row in part["rows"]), key=lambda row: (row["path"], str(row)))
        expected = sorted(whole["rows"], key=lambda row: (row["path"], str(row)))
        assert [row["path"] for row in rows] == [row["path"] for row in expected]
        first, second = (pa.Table.from_pylist(each, schema=make().schema).to_pandas() for each in (rows, expected))
        order = ["path", "method"] if "method" in first else ["path", "eps"]
        pd.testing.assert_frame_equal(
            first.sort_values(order, ignore_index=True), second.sort_values(order, ignore_index=True), rtol=1e-4
        )

    def test_few_passes_are_one_part(self, listener: Listener) -> None:
        self.evaluated(attribution(), listener, batch_of(dim_images(5)))
        assert listener.parts == []

    def test_a_later_batch(self, listener: Listener) -> None:
        module = attribution()
        module.seconds_per_image = 70.0
        self.evaluated(module, listener, batch_of(dim_images(4)))
        assert [n for _, n in listener.parts] == [1, 2]

    @pytest.mark.slow
    def test_images_that_are_made(self) -> None:
        module, listener = ActivationMaximizationModule("shapes", steps=2, n_figures=0), Listener()
        batch = {
            "target": torch.tensor([0, 1, 2]), "layer": [None] * 3, "name": ["a", "b", "c"],
            "seed": torch.zeros(3, dtype=torch.long), "path": ["a_seed0.png", "b_seed0.png", "c_seed0.png"],
            "index": torch.arange(3),
        }  # fmt: skip
        (whole,) = self.evaluated(module, None, batch)
        parts = self.evaluated(module, listener, batch)
        assert [[row["path"] for row in part["rows"]] for part in parts] == [[path] for path in batch["path"]]
        for row in (row for part in parts for row in part["rows"]):
            (other,) = (each for each in whole["rows"] if each["path"] == row["path"])
            assert {**row, "seconds": 0, "cpu_seconds": 0} == {**other, "seconds": 0, "cpu_seconds": 0}
