from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import benchmark
import numpy as np
import pytest
import torch
from benchmarks import class_images, reading_rows, run_rows
from benchmarks.outcome import OTHERS, TIMED, run_row
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Row, assert_close, by_passes, compare, measure
from PIL import Image

from lightning_modules import VGG16, ActivationMaximizationModule, ForwardPass, Needs, save_vgg16
from lightning_modules.errors import InputError
from lightning_modules.running.cli import RunError

SMALL = ("--weights", "shapes", "--rounds", "2", "--batch_size", "2", "--peers", "false")
OF_OTHERS = {"torchcam": "grad_cam", "zennit": "guided_backprop", "lucent": "activation_maximization"}
"""Rows by the peers that not everybody has who runs the tests."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A network of a few channels, so that a row takes no time."""
    file = tmp_path_factory.mktemp("tiny") / "network.pth"
    names = [f"class {k}" for k in range(8)]
    save_vgg16(VGG16(names, width=1 / 16, hidden_features=16, input_size=64).initialize(0).network(), file)
    return Setting(str(file), 2, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TIMED, *(name for name in OTHERS if name != "peak_memory")])
def test_each_row_runs(tiny: Setting, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_rows, "N_PHOTOS", 2)
    monkeypatch.setattr(reading_rows, "COPIES", 2)
    monkeypatch.setattr(run_rows, "SIZES", (20, 200))
    results = run_row(name, Setting(tiny.weights, 1, tiny.device, peers=name not in OF_OTHERS.values()), 1)
    assert results
    for line in results:
        assert line.row == name
        assert len(line.ours) == 1
        assert (line.verdict in ("met", "missed")) if line.goal else not line.verdict
    if name in TIMED:
        # Each is held against bare passes, the run of files against its steps; and each peer has a goal where it is
        # given what we have, and none as its users have it.
        goals = {line.against: line.goal for line in results}
        assert any("bare" in against or against == "compute alone" for against, goal in goals.items() if goal)
        for against, goal in goals.items():
            if against.endswith("given our network and memory"):
                assert goal.startswith("≥")
            elif "bare" not in against and against != "compute alone":
                assert not goal


@pytest.mark.slow
@pytest.mark.process
def test_memory_is_that_of_a_process_of_its_own(tiny: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    fork = multiprocessing.get_context("fork")  # which need not import everything first
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: fork)
    (line,) = run_row("peak_memory", Setting(tiny.weights, 2, tiny.device, peers=False), 1)
    assert (line.against, line.unit, line.goal) == ("bare forward + backward", "GB", "≤ 1.15 ×")
    assert 0 < line.theirs[0] < 1


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name"), OF_OTHERS.items())
def test_rows_of_peers_that_may_be_missing(tiny: Setting, package: str, name: str) -> None:
    pytest.importorskip(package)
    assert [line.goal for line in run_row(name, tiny, 1) if line.against == package] == [""]


def test_unequal_maps_of_a_peer_end_the_row(tiny: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.map_peers.captum_occlusion",
        lambda network, images, target, **windows: torch.ones_like(images[:, :1]),
    )
    with pytest.raises(AssertionError, match="windows differ by"):
        run_row("occlusion", tiny, 1)


@pytest.mark.slow
def test_rows_and_what_is_kept_of_others(call: Callable[..., Any], capsys: pytest.CaptureFixture) -> None:
    call(benchmark.main, *SMALL, "--rows", "three_maps,fgsm", "--json", "numbers.json")
    content = json.loads(Path("numbers.json").read_text())
    first = content["results"]
    content["measured"]["three_maps"] = "commit 0, 2026-01-01"
    Path("numbers.json").write_text(json.dumps(content))
    call(benchmark.main, *SMALL, "--rows", "grad_cam,fgsm", "--json", "numbers.json")
    content = json.loads(Path("numbers.json").read_text())
    lines = {line["row"]: line for line in content["results"]}
    assert list(lines) == ["three_maps", "grad_cam", "fgsm"]
    assert lines["three_maps"] == first[0]
    assert lines["fgsm"] != first[1]
    for line in lines.values():
        assert len(line["ours"]) == len(line["theirs"]) == 2
        if line["goal"]:
            assert line["ratio"] == pytest.approx(sum(line["ours"]) / sum(line["theirs"]))
    printed = capsys.readouterr().out
    assert "| Grad-CAM alone, fp32, batch 2" in printed
    assert f"On {content['machine']}; {content['measured']['fgsm']}; --rounds 2." in printed
    assert set(content["measured"]) == set(lines)
    assert "\nOf commit 0, 2026-01-01: three_maps.\n" in printed
    assert "\nIt took " in printed


def test_numbers_of_another_machine_are_kept_apart(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text(json.dumps({"machine": "an abacus", "results": []}))
    with pytest.raises(RunError, match="numbers of an abacus, not of"):
        call(benchmark.main, *SMALL, "--rows", "grad_cam", "--json", "numbers.json")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--rows", "grad_cam,lime"), "no row 'lime'.*three_maps"),
        (("--json", "."), "--json should be a file"),
    ],
)
def test_bad_options(call: Callable[..., Any], option: tuple[str, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        call(benchmark.main, *option)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    names = [OURS, "theirs", "bare"]
    goals = [Goal(OURS), Goal("theirs", faster=1e9), Goal("bare", at_most=1e9)]
    contenders = [Contender(goal, partial(order.append, who), who == "theirs") for goal, who in zip(goals, names)]
    row = Row("row", "work", contenders, lambda: f"checked before {len(order)}", units=10)
    slower, quicker = measure(row, rounds=2)
    # The first one is not timed; as its users have it, a peer has one turn, at the end.
    assert order == [OURS, OURS, "bare", "bare", OURS, "theirs"]
    assert [len(slower.ours), len(slower.theirs)] == [2, 1]
    assert slower.note == "checked before 0"
    assert (slower.verdict, quicker.verdict) == ("missed", "met")


def test_a_row_that_takes_long_has_fewer_turns() -> None:
    turns: list[int] = []
    measure(Row("row", "work", [Contender(Goal(OURS), lambda: turns.append(1))], rounds=2), rounds=5)
    assert len(turns) == 1 + 2  # the first one is not timed


def test_goals_by_passes() -> None:
    # Three times as many passes, of which we may spend a twentieth beside the network.
    assert by_passes("theirs", theirs=6, ours=2) == Goal("theirs", faster=2.86)


def test_ratios_are_of_medians() -> None:
    values = {OURS: [1.0, 2.0, 9.0], "theirs": [8.0, 6.0, 1.0]}
    goals = [Goal("theirs", faster=3), Goal("theirs", at_most=0.3), Goal("theirs")]
    faster, at_most, without = compare("row", "work", values, goals)
    assert (faster.ratio, faster.goal, faster.verdict) == (3.0, "≥ 3 × faster", "met")
    assert (at_most.ratio, at_most.goal, at_most.verdict) == (pytest.approx(1 / 3), "≤ 0.3 ×", "missed")
    assert (without.ratio, without.goal, without.verdict) == (3.0, "", "")


def test_unequal_outputs_are_refused() -> None:
    ones = torch.ones(3)
    assert assert_close(ones * 1.00001, ones, 1e-4, "maps") == "maps equal to 0.0001 of the largest entry"
    for wrong in (ones * 1.01, ones * torch.nan):
        with pytest.raises(AssertionError, match="maps differ"):
            assert_close(wrong, ones, 1e-4, "maps")


def test_peers_get_the_network_as_they_take_it() -> None:
    setting = Setting("shapes", 2, torch.device("cpu"))
    images = setting.images(2)
    assert 0 <= images.min() < images.max() <= 1
    assert all(parameter.requires_grad for parameter in setting.as_found.parameters())
    assert not any(parameter.requires_grad for parameter in setting.prepared.parameters())
    with torch.no_grad():
        for network in (setting.as_found, setting.prepared):
            torch.testing.assert_close(network(images), setting.network(images))


def test_bare_pass_to_the_layer_is_what_grad_cam_reads(tiny: Setting) -> None:
    images, target = tiny.images(2), tiny.target(2)
    needs = Needs(layer_gradients={"features.29"})
    expected = ForwardPass(tiny.network, images, target, needs=needs).layer_gradient("features.29")
    torch.testing.assert_close(tiny.bare_layer_gradient(images, target), expected)


class TestClassImages:
    """The peers stand for lucent and Horama, which not everybody has who runs the tests."""

    def test_a_peer_has_our_processor_time_and_leaves_files_with_names_of_classes(
        self, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        steps: dict[str, list[int]] = {}

        clock = [0.0]
        monkeypatch.setattr(class_images, "process_time", lambda: clock[0])

        def make(who: str, pace: float) -> Callable[..., torch.Tensor]:
            def run(*args: Any) -> torch.Tensor:
                *_, target, n = args
                steps.setdefault(who, []).append(n)
                clock[0] += n * pace
                return torch.full((1, 3, 50, 50), target / 12)

            return run

        def ours(*args: Any) -> torch.Tensor:
            clock[0] += 60
            return torch.zeros(1, 3, 112, 112)

        monkeypatch.setattr(class_images, "CLASSES", ("circle", "star"))
        monkeypatch.setattr(class_images, "maximize", ours)
        monkeypatch.setattr(class_images, "_lucent", make("lucent", 0.5))
        monkeypatch.setattr(class_images, "_horama", make("horama", 3))
        options = ["--rows", "class_images", "--weights", "shapes", "--out", "made", "--json", "numbers.json"]
        call(benchmark.main, *options)
        assert steps == {"lucent": [1, 8, 120, 120], "horama": [1, 1, 8, 8, 20, 20, 20, 20]}
        lines = json.loads(Path("numbers.json").read_text())["results"]
        assert [(line["ours"], line["theirs"], line["goal"]) for line in lines] == [([60, 60], [60, 60], "")] * 3
        files = sorted(str(file.relative_to("made")) for file in Path("made").rglob("*.png"))
        whose = ("Horama_Fourier", "Horama_MACO", "VGG_Lens", "lucent")
        assert files == [f"{who}/{name}.png" for who in whose for name in ("circle", "star")]
        assert np.asarray(Image.open("made/lucent/star.png")).shape == (112, 112, 3)
        assert np.asarray(Image.open("made/lucent/star.png")).mean() == round(7 / 12 * 255)

    def test_a_gpu_is_refused(self) -> None:
        with pytest.raises(InputError, match="compares processor time"):
            class_images.class_images("vgg16", "shapes", Path("out"), None, torch.device("cuda"))

    @pytest.mark.slow
    def test_lucent_and_horama(self, call: Callable[..., Any], shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the kinds that they take, with the options that they have now."""
        for package in ("lucent.optvis.render", "horama", "einops"):
            pytest.importorskip(package)
        monkeypatch.setattr(class_images, "CLASSES", ("star",))
        few = partial(ActivationMaximizationModule, steps=8)
        monkeypatch.setattr(class_images, "ActivationMaximizationModule", few)
        options = ["--rows", "class_images", "--weights", "shapes", "--out", "made", "--photos", shapes / "val/star"]
        call(benchmark.main, *options)
        assert len(list(Path("made").rglob("star.png"))) == 4

    def test_magnitudes_of_a_grey_wave(self, tmp_path: Path) -> None:
        """Grey is along the first of the uncorrelated colours, nearly; the mean has no part."""
        pytest.importorskip("horama")
        wave = 0.5 + 0.2 * np.cos(2 * np.pi * 3 * np.arange(16) / 16)
        pixels = np.broadcast_to((wave * 255).round().astype(np.uint8)[None, :, None], (16, 16, 3))
        for k in range(2):
            Image.fromarray(pixels + np.uint8(k * 20)).save(tmp_path / f"{k}.png")
        (tmp_path / "broken.jpg").touch()
        found = class_images.mean_magnitudes(str(tmp_path), 16)
        assert found.shape == (3, 16, 9)
        assert (found.amax(0) > 0.1 * found.max()).nonzero().tolist() == [[0, 3]]
        assert found[0, 0, 3] > 10 * found[1:, 0, 3].max()
        for k in range(2):
            (tmp_path / f"{k}.png").unlink()
        with pytest.raises(InputError, match=r"--photos: no photo in .* can be read"):
            class_images.mean_magnitudes(str(tmp_path), 16)
