"""Whatever start Lightning offers: it works, or a sentence says before the first image which one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import evaluate_attribution
import evaluate_robustness
import maximize_activation
import pytest

from lightning_modules.running.folder.run_folder import RunError
from tests.images import make_images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("strategy", "ddp_spawn", "devices", 2), "spawned or forked process computes does not come back. Use ddp"),
        (("strategy", "ddp_notebook"), r"strategy ddp_notebook: what a spawned .* does not come back"),
        (("strategy", "dp", "devices", 2), "do not fit: .*invalid strategy name: `strategy='dp'`"),
        (("strategy", "nonsense"), "do not fit: .*invalid strategy name"),
        (("strategy", "fsdp", "devices", 2), "do not fit: .*requires a GPU"),
        (("strategy", "deepspeed"), "DeepSpeed installed"),
        (("strategy", "xla", "devices", 2), "do not fit: .*torch_xla"),
        (("precision", "transformer-engine"), "do not fit: .*transformer_engine"),
        (("num_nodes", 2), r"num_nodes 2: nothing says where the other nodes are.*torchrun or srun"),
        (("devices", 0), "not a valid input using cpu"),
        (("devices", -1), "do not fit: .*int > 0"),
        (("limit_test_batches", 0), r"--trainer\.limit_test_batches 0 leaves no image"),
        (("limit_test_batches", 0.0), r"leaves no image"),
        (("fast_dev_run", "true"), "fast_dev_run True has no effect here: leave it out; --trainer.limit_test_batches"),
        (("barebones", "true"), "do not fit: .*barebones"),
        (("max_time", "00:00:01:00"), "has no effect here: .*command timeout"),
        (("enable_checkpointing", "true"), "--trainer.enable_checkpointing True has no effect here: leave it out"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_refused_before_the_first_image(
    call: Callable,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...],
    message: str,
) -> None:
    words = [f"--trainer.{word}" if k % 2 == 0 else word for k, word in enumerate(options)]
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    where = ["--data.root", shapes / "val", "--model.weights", "shapes", "--trainer.accelerator", "cpu"]
    with pytest.raises(RunError, match=message):
        call(evaluate_attribution.main, *where, "--out", "run", *words)
    assert not (tmp_path / "run/results").exists()


@pytest.mark.slow
def test_a_run_of_which_all_failed_fails(call: Callable, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_text("no image")
    options = ["--data.root", "images", "--model.weights", "shapes", "--model.methods", "[GradCAM]"]
    options += ["--model.metrics", "[]", "--trainer.accelerator", "cpu", "--data.num_workers", 0, "--out", "run"]
    assert call(evaluate_attribution.main, *options) == 1
    make_images(tmp_path / "images", "b.png")
    assert call(evaluate_attribution.main, *options, "--overwrite") == 0


def test_a_start_that_is_refused_is_refused_for_all(call: Callable, shapes: Path, tmp_path: Path) -> None:
    start = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp_spawn", "--trainer.devices", 2, "--out", "run"]
    for main, where in (
        (evaluate_robustness.main, ["--data.root", shapes / "val"]),
        (maximize_activation.main, ["--data.classes", "[0]"]),
    ):
        with pytest.raises(RunError, match="does not come back"):
            call(main, *where, "--model.weights", "shapes", *start)
