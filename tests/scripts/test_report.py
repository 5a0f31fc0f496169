"""TensorBoard is the report of a run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_attribution import main as evaluate_attribution
from evaluate_robustness import main as evaluate_robustness
from maximize_activation import main as maximize_activation
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.browser import visit

SCORES = [
    f"3_scores/{score}/GradCAM"
    for score in ("degenerate_maps", "deletion", "energy_in_box", "insertion", "tied_pixels")
]


@pytest.fixture
def options(shapes: Path) -> list[Any]:
    return [
        *("--data.root", shapes / "val", "--data.num_workers", 0, "--data.batch_size", 4),
        *("--model.weights", "shapes", "--model.n_figures", 2, "--trainer.accelerator", "cpu"),
        *("--trainer.limit_test_batches", 2, "--trainer.enable_progress_bar", "false"),
    ]


@pytest.fixture
def attribution_options(options: list, shapes: Path) -> list[Any]:
    metrics = "[EnergyInBox, {class_path: InsertionDeletion, init_args: {step: 3000}}]"
    boxes = ["--data.boxes", shapes / "annotations/val"]
    return [*options, *boxes, "--model.methods", "[GradCAM]", "--model.metrics", metrics]


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()


def points(board: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 4)) for event in board.Scalars(name)]


def test_attribution(call: Callable, attribution_options: list, tmp_path: Path) -> None:
    call(evaluate_attribution, *attribution_options, "--out", "run")
    board = events(tmp_path / "run")
    counts = ["accuracy_top1", "accuracy_top5", "accuracy_mean_over_classes", "n_failed", "n_images"]
    assert sorted(board.Tags()["scalars"]) == sorted([*(f"2_summary/{name}" for name in counts), *SCORES])
    assert points(board, "2_summary/n_images") == [(0, 8)]
    assert set(board.Tags()["images"]) == {
        *("1_whole_run/deletion_curve", "1_whole_run/insertion_curve", "1_whole_run/scores"),
        *("5_images/00000_arrow_arrow_00000", "5_images/00001_circle_circle_00001"),
    }
    text = board.Tensors("report/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "8 of 80 images; accuracy top-1 100.0%" in text
    assert "| mean and 95 % interval of each score | GradCAM |" in text
    assert "--model.methods '[GradCAM]'" in text
    settings = str(board.summary_metadata["_hparams_/session_start_info"])
    assert all(name in settings for name in ("model.weights", "model.methods", "data.root"))


def test_a_continued_run_reports_all_rows_once(call: Callable, attribution_options: list, tmp_path: Path) -> None:
    call(evaluate_attribution, *attribution_options, "--out", "run", "--trainer.limit_test_batches", 1)
    assert points(events(tmp_path / "run"), "2_summary/n_images") == [(0, 4)]
    call(evaluate_attribution, *attribution_options, "--out", "run")
    board = events(tmp_path / "run")
    assert points(board, "2_summary/n_images") == [(0, 8)]
    assert len(board.Images("5_images/00000_arrow_arrow_00000")) == 1


def test_robustness(call: Callable, options: list, tmp_path: Path) -> None:
    call(evaluate_robustness, *options, "--model.eps", "[1/255, 4/255]", "--out", "run")
    call(evaluate_robustness, *options, "--model.eps", "[0.001]", "--model.attack.norm", 2, "--out", "fine")
    board = events(tmp_path / "run")
    # TensorBoard smooths what has several points: each number is the only one of its tag.
    assert all(len(board.Scalars(name)) == 1 for name in board.Tags()["scalars"])
    sweep = json.loads((tmp_path / "run/summary.json").read_text())["sweep"]
    for eps, row in zip(("1", "4"), sweep, strict=True):
        assert points(board, f"3_scores/robust_acc/eps_{eps}_255") == [(0, round(row["robust_acc"], 4))]
        assert points(board, f"3_scores/rank_correlation/GradCAM/eps_{eps}_255")[0][0] == 0
    assert points(board, "2_summary/robust_acc_at_the_largest_eps") == points(board, "3_scores/robust_acc/eps_4_255")
    assert "3_scores/attack_success_rate/eps_0.001" in events(tmp_path / "fine").Tags()["scalars"]
    assert "| 1/255 |" in board.Tensors("report/text_summary")[0].tensor_proto.string_val[0].decode()


def test_maximization_and_figures_for_print(call: Callable, tmp_path: Path) -> None:
    options = [
        "--model.weights",
        "shapes",
        "--data.classes",
        "[star]",
        "--model.steps",
        8,
        "--trainer.accelerator",
        "cpu",
    ]
    call(maximize_activation, *options, "--figure_format", "pdf", "--out", "run")  # fmt: skip
    names = {path.name for path in (tmp_path / "run/figures").iterdir()}
    stems = ("00000_0007_star_seed0", "contact_sheet_both_000")
    assert names == {f"{stem}.{extension}" for stem in stems for extension in ("png", "pdf")}
    assert (tmp_path / "run/figures/contact_sheet_both_000.pdf").read_bytes().startswith(b"%PDF")
    board = events(tmp_path / "run")
    assert {"2_summary/n_images", "3_scores/probability/both", "4_curves_over_steps/activation/0007_star_seed0"} <= set(
        board.Tags()["scalars"]
    )
    assert {"1_whole_run/contact_sheet_both_000", "6_growing/0007_star_seed0"} <= set(board.Tags()["images"])


@pytest.fixture
def server(call: Callable, options: list, attribution_options: list, tmp_path: Path) -> Iterator[str]:
    """The address of a TensorBoard that serves two runs of one kind, and one of another."""
    call(evaluate_robustness, *options, "--model.eps", "[1/255]", "--model.methods", "[]", "--out", "runs/attacked")
    call(evaluate_attribution, *attribution_options, "--out", "runs/one")
    call(evaluate_attribution, *attribution_options, "--model.target", "star", "--out", "runs/two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "runs"), "--port", str(port)]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([*command, "--load_fast", "false"], stderr=log) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(500):
                time.sleep(0.5)
                try:
                    found = urllib.request.urlopen(f"{address}/data/plugin/text/tags", timeout=5).read()
                except OSError:
                    continue
                if all(name in found for name in (b"attacked", b"one", b"two")):
                    break
            else:
                raise TimeoutError(f"TensorBoard has not read all runs: {(tmp_path / 'log').read_text()}")
            yield address
        finally:
            process.terminate()


@pytest.mark.browser
def test_in_a_browser(browser: str, server: str, tmp_path: Path) -> None:
    """The first page shows the figures of the whole run, of both runs; the text has the table and the command."""
    page = visit(browser, server, tmp_path, "--dump-dom")
    for text in ("1_whole_run", "scores", "one/tensorboard", "two/tensorboard", "HParams"):
        assert text.lower() in page.lower(), text
    # The text page lies in shadow trees, which are not dumped; this is what it shows.
    query = urllib.parse.urlencode({"run": "two/tensorboard", "tag": "report/text_summary"})
    text = urllib.request.urlopen(f"{server}/data/plugin/text/text?{query}", timeout=20).read().decode()
    assert "<td" in text
    assert "energy_in_box" in text
    assert "--model.target star" in text
    visit(browser, server, tmp_path, f"--screenshot={tmp_path / 'page.png'}")
    shown = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    # In the middle, under the bars: the colour in which the scores' figure marks Grad-CAM.
    inner = shown[200:, 320:1200].reshape(-1, 3)
    assert (np.abs(inner - (0, 114, 178)).max(1) < 30).sum() > 20
    check_table_of_settings_and_scores(browser, server, tmp_path)


def check_table_of_settings_and_scores(browser: str, server: str, tmp_path: Path) -> None:
    """HParams holds runs of both kinds with their scores, and sorts them by one."""

    def asked(what: str, **words: Any) -> Any:
        body = json.dumps({"experimentName": "", **words}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server}/data/plugin/hparams/{what}", body, headers)
        return json.loads(urllib.request.urlopen(request, timeout=20).read())

    def scores_of(name: str) -> list[float]:
        return [found.value for found in events(tmp_path / "runs" / name).Scalars(by)]

    by = "3_scores/energy_in_box/GradCAM"
    known = {info["name"]["tag"] for info in asked("experiment")["metricInfos"]}
    assert {by, "3_scores/robust_acc/eps_1_255"} <= known
    for order, is_reversed in (("ORDER_ASC", False), ("ORDER_DESC", True)):
        columns = [{"metric": {"group": "", "tag": by}, "order": order}]
        found = asked(
            "session_groups", startIndex=0, sliceSize=9, colParams=columns, allowedStatuses=["STATUS_SUCCESS"]
        )
        of_runs = [each["metricValues"] for each in found["sessionGroups"]]
        values = [score["value"] for scores in of_runs for score in scores if score["name"]["tag"] == by]
        assert found["totalSize"] == 3
        expected = sorted(scores_of("one") + scores_of("two"), reverse=is_reversed)
        assert values == pytest.approx(expected, abs=1e-6)
    visit(browser, f"{server}/#hparams", tmp_path, f"--screenshot={tmp_path / 'hparams.png'}")
    table = np.asarray(Image.open(tmp_path / "hparams.png").convert("L"))[130:400, 310:1480]
    assert (table < 120).sum() > 1500  # the names and numbers of the rows
