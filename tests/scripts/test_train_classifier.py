from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate_attribution
import evaluate_robustness
import maximize_activation
import numpy as np
import predict
import pytest
import torch
from PIL import Image
from torch import nn
from train_classifier import main

from datamodules import modules
from lightning_modules import load_vgg16
from lightning_modules.results.storage import read_rows
from lightning_modules.running import RunError

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),
]
SMALL = [
    "--model.weights",
    "random",
    "--model.width",
    0.05,
    "--model.hidden_features",
    16,
    "--trainer.accelerator",
    "cpu",
]


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Folders of red and of blue images: learnt in a few steps."""
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for k in range(40):
            pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "colours" / name / f"{k}.png")
    return tmp_path / "colours"


def test_from_scratch_on_an_own_folder(call: Callable, colours: Path, tmp_path: Path) -> None:
    size = ["--data.input_size", 32, "--data.resize_size", 36, "--data.batch_size", 8, "--data.num_workers", 0]
    options = ["--data.root", colours, *size, *SMALL, "--model.learning_rate", 0.01, "--seed_everything", 0]
    call(main, *options, "--trainer.max_epochs", 4, "--out", "run")
    network = load_vgg16(tmp_path / "run/vgg16.pth")
    assert network.class_names == ["blue", "red"]
    assert (network.input_size, network.resize_size, network.module.width) == (32, 36, 0.05)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    images = torch.rand(6, 3, 32, 32) * 0.3
    images[:3, 0] += 0.6
    images[3:, 2] += 0.6
    assert network(images).argmax(1).tolist() == [1, 1, 1, 0, 0, 0]
    # Lightning's own checkpoint, with its batch norms, loads to the same network.
    best = next((tmp_path / "run/checkpoints").glob("epoch*.ckpt"))
    torch.testing.assert_close(load_vgg16(best)(images), network(images))
    # The same command again goes on from the last epoch: here there is nothing left to do.
    steps = steps_done(tmp_path / "run")
    call(main, *options, "--trainer.max_epochs", 4, "--out", "run")
    torch.testing.assert_close(load_vgg16(tmp_path / "run/vgg16.pth")(images), network(images))
    assert steps_done(tmp_path / "run") == steps > 0
    into_every_other_script(call, colours, str(tmp_path / "run/vgg16.pth"))


def into_every_other_script(call: Callable, colours: Path, weights: str) -> None:
    """The checkpoint brings its class names and sizes along."""
    predict.main([str(colours / "red/0.png"), "--weights", weights])
    options = ["--model.weights", weights, "--trainer.accelerator", "cpu", "--model.n_figures", 1]
    folder = ["--data.root", colours, "--data.num_workers", 0]
    few = ["--trainer.limit_test_batches", 1]
    call(evaluate_attribution.main, *options, *folder, *few, "--model.target", "label", "--out", "attribution")
    call(evaluate_robustness.main, *options, *folder, *few, "--out", "robustness")
    call(maximize_activation.main, *options, "--data.classes", "[blue]", "--model.steps", 2, "--out", "maximized")
    for name, images in (("attribution", 32), ("robustness", 32), ("maximized", 1)):
        rows = read_rows(Path(name) / "results").to_pandas()
        assert (rows["status"] == "ok").all()
        assert set(rows["prediction_name"]) <= {"red", "blue"}
        assert rows["path"].nunique() == images


def steps_done(run: Path) -> int:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]


def test_fine_tuning_keeps_the_features(call: Callable, shapes: Path, tmp_path: Path) -> None:
    """From the embedded model to a part of its classes: the last layer is new, the rest is not."""
    data = tmp_path / "data"
    for name in ("heart", "star"):
        (data / name).mkdir(parents=True)
        for split in ("train", "val"):
            for file in (shapes / split / name).iterdir():
                (data / name / f"{split}_{file.name}").symlink_to(file)
    size = ["--data.input_size", 112, "--data.resize_size", 128, "--data.batch_size", 4, "--data.num_workers", 0]
    options = ["--data.root", data, *size, "--model.weights", "shapes", "--trainer.accelerator", "cpu"]
    call(main, *options, "--trainer.max_epochs", 1, "--seed_everything", 0, "--out", "run")
    before, after = load_vgg16("shapes"), load_vgg16(tmp_path / "run/vgg16.pth")
    assert after.class_names == ["heart", "star"]
    change = (after.module.features[0].weight - before.module.features[0].weight).abs().max()
    assert 0 < change < 0.01
    assert after.module.classifier[6].weight.shape == (2, 256)


def test_few_images(
    call: Callable,
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fewer than a batch holds: none of them is left out, and it is said what there is."""
    data = tmp_path / "data"
    for name in ("heart", "star"):
        (data / name).mkdir(parents=True)
        for file in sorted((shapes / "val" / name).iterdir())[:6]:
            (data / name / file.name).symlink_to(file)
    size = ["--data.input_size", 112, "--data.resize_size", 128, "--data.num_workers", 0, "--trainer.max_epochs", 1]
    options = ["--data.root", data, *size, "--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]
    call(main, *options)
    assert steps_done(tmp_path / "run") == 1
    said = capsys.readouterr().out
    numbers = re.search(r"(\d+) images to learn from, (\d+) to validate on", caplog.text)
    assert numbers is not None
    assert sum(map(int, numbers.groups())) == 12
    accuracy = re.search(r"Validation accuracy \d+\.\d\d%, of images that it does not learn from", said)
    assert accuracy is not None
    assert "epoch 1 of 1 was the best, and was kept: run/vgg16.pth" in said
    assert "v_num" not in said
    # The command that explains it is one that can be typed.
    command = shlex.split(said.partition("Explain what it sees:\n")[2].replace("\\\n", " "))
    call(evaluate_attribution.main, *command[2:], "--model.methods", "[Saliency]", "--trainer.accelerator", "cpu")
    assert read_rows(tmp_path / "run_explained/results").num_rows == 12
    # Nothing is left to learn: what is said stays.
    call(main, *options)
    assert accuracy.group() in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"model\.dropout was .*Give this one another --out, or delete run\."):
        call(main, *options, "--model.dropout", 0.3)


@pytest.mark.slow
def test_two_processes_wait_for_each_other_at_the_same_places(run: Callable, colours: Path, tmp_path: Path) -> None:
    """With a progress bar, which is the first one's, workers, and batches of which one process can read no image."""
    for file in (colours / "red").iterdir():
        file.write_text("no image")
    options = ["--data.root", colours, "--data.input_size", 32, "--data.resize_size", 36, "--data.num_workers", 1]
    many = ["--data.batch_size", 1, "--trainer.devices", 2, "--trainer.max_epochs", 1]
    few = ["--trainer.limit_train_batches", 4, "--trainer.limit_val_batches", 2]
    done = run("train_classifier.py", *options, *many, *few, *SMALL, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert steps_done(tmp_path / "run") == 4


@pytest.mark.process
def test_a_process_that_reads_and_is_killed(
    call: Callable, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_batch = modules.read_batch

    def killed(indices: list[int], **options: Any) -> Any:
        if multiprocessing.parent_process() and (not begun or (tmp_path / "run/checkpoints/last.ckpt").exists()):
            time.sleep(0.3)  # PyTorch raises where it is told of the end, which may be while the next one is started
            os.kill(os.getpid(), signal.SIGKILL)
        return read_batch(indices, **options)

    monkeypatch.setattr(modules, "read_batch", killed)
    size = ["--data.input_size", 32, "--data.resize_size", 36, "--data.batch_size", 8, "--data.num_workers", 1]
    options = ["--data.root", colours, *size, *SMALL, "--trainer.max_epochs", 3, "--out", "run"]
    begun: list[bool] = []
    for _ in range(2):  # at once, and after an epoch
        with pytest.raises(
            RunError, match=r"Where memory is short, .* --data\.num_workers, take less\. The same command"
        ):
            call(main, *options)
        begun.append(True)
    n_steps = steps_done(tmp_path / "run")
    monkeypatch.setattr(modules, "read_batch", read_batch)
    call(main, *options)
    assert steps_done(tmp_path / "run") == 3 * 8 > n_steps > 0
