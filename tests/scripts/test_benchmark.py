from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import benchmark
import pytest
import torch
from benchmarks import host_rows, limit_rows, million_rows, reading_rows
from benchmarks.all_rows import TIMED, run_row
from benchmarks.layer_rows import layer_table
from benchmarks.limit_rows import bare_network, layer_by_layer
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Result, Row, assert_close, by_passes, compare, measure

from lightning_modules import VGG16, ForwardPass, Needs, save_vgg16
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


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_rows, "PRODUCTS", [(32, 64, 16)])
    monkeypatch.setattr(limit_rows, "LEAST", 1e6)


@pytest.mark.parametrize("name", [*TIMED, "limit", "layers", "tried", "decoded"])
def test_each_row_runs(tiny: Setting, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_rows, "N_PHOTOS", 2)
    monkeypatch.setattr(reading_rows, "COPIES", 2)
    # Of a few channels in bfloat16 nothing is equal; and elsewhere it is not emulated.
    monkeypatch.setattr(Setting, "has_fast_bf16", lambda self: True)
    peers = name not in OF_OTHERS.values()
    results = run_row(name, tiny, 1, peers)
    assert results
    for line in results:
        assert line.row == name
        assert len(line.ours) == 1
        assert line.ours[0] > 0
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


@pytest.mark.parametrize(("package", "name"), OF_OTHERS.items())
def test_rows_of_peers_that_may_be_missing(tiny: Setting, package: str, name: str) -> None:
    pytest.importorskip(package)
    results = run_row(name, tiny, 1, peers=True)
    assert [line.goal for line in results if line.against == package] == [""]


def test_unequal_maps_of_a_peer_end_the_row(tiny: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.repeated_rows.captum_occlusion", lambda network, images, *windows: torch.ones_like(images[:, :1])
    )
    with pytest.raises(AssertionError, match="windows differ by"):
        run_row("occlusion", tiny, 1, peers=True)


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
    (tmp_path / "numbers.json").write_text(json.dumps({"machine": "an abacus", "rounds": 1, "results": []}))
    with pytest.raises(RunError, match="numbers of an abacus, not of"):
        call(benchmark.main, *SMALL, "--rows", "grad_cam", "--json", "numbers.json")


@pytest.mark.parametrize(
    ("option", "message"),
    [(("--rows", "grad_cam,lime"), "no row 'lime'.*three_maps"), (("--rounds", "0"), "at least 1")],
)
def test_bad_options(call: Callable[..., Any], option: tuple[str, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        call(benchmark.main, *option)


def test_contenders_take_turns() -> None:
    order = []
    names = [OURS, "theirs", "bare"]

    def run(name: str, n: int) -> str:
        order.append((name, n))
        return f"{name}'s of {n}"

    def contenders(n: int) -> list[Contender]:
        return [Contender(name, partial(run, name, n), units=10, as_found=name == "theirs") for name in names]

    goals = [Goal("theirs", faster=1e9), Goal("theirs", at_most=1e9)]
    row = Row("row", "work", contenders, 4, goals, lambda outputs: f"checked {outputs[OURS]} {outputs['bare']}")
    slower, quicker = measure(row, rounds=2)
    assert order[:2] == [(OURS, 1), ("bare", 1)]  # whom the check reads
    # The first one is not timed; as its users have it, a peer has one turn, at the end.
    turns = [OURS, OURS, "bare", "bare", OURS, "theirs"]
    assert order[2:] == [(name, 4) for name in turns]
    assert [len(slower.ours), len(slower.theirs)] == [2, 1]
    assert slower.note == "checked VGG Lens's of 1 bare's of 1"
    assert (slower.verdict, quicker.verdict) == ("missed", "met")


def test_a_row_that_takes_long_has_fewer_turns() -> None:
    turns = []
    row = Row("row", "work", lambda n: [Contender(OURS, lambda: turns.append(n))], 1, [], rounds=2)
    measure(row, rounds=5)
    assert len(turns) == 1 + 2  # the first one is not timed


def test_goals_by_passes() -> None:
    # Three times as many passes, of which we may spend a twentieth beside the network.
    assert by_passes("theirs", theirs=6, ours=2) == Goal("theirs", faster=2.86)


def test_ratios_are_of_medians() -> None:
    values = {OURS: [1.0, 2.0, 9.0], "theirs": [8.0, 6.0, 1.0]}
    goals = [Goal("theirs", faster=3), Goal("theirs", at_most=0.3), Goal("theirs")]
    faster, at_most, told = compare("row", "work", values, goals)
    assert (faster.ratio, faster.goal, faster.verdict) == (3.0, "≥ 3 × faster", "met")
    assert (at_most.ratio, at_most.goal, at_most.verdict) == (pytest.approx(1 / 3), "≤ 0.3 ×", "missed")
    assert (told.ratio, told.goal, told.verdict) == (3.0, "", "")


def test_unequal_outputs_are_refused() -> None:
    ones = torch.ones(3)
    assert assert_close(ones * 1.00001, ones, 1e-4, "maps") == "maps equal to 0.0001 of the largest entry"
    for wrong in (ones * 1.01, ones * torch.nan):
        with pytest.raises(AssertionError, match="maps differ"):
            assert_close(wrong, ones, 1e-4, "maps")


def test_peers_get_the_network_as_they_take_it() -> None:
    setting = Setting("shapes", 2, torch.device("cpu"))
    images = setting.images(2)
    assert torch.equal(images[:1], setting.images(1))
    assert 0 <= images.min() < images.max() <= 1
    assert all(parameter.requires_grad for parameter in setting.as_found.parameters())
    assert not any(parameter.requires_grad for parameter in setting.prepared.parameters())
    with torch.no_grad():
        for network in (setting.as_found, setting.prepared):
            torch.testing.assert_close(network(images), setting.network(images))


@pytest.mark.slow
def test_the_pass_counts_what_the_network_computes() -> None:
    setting = Setting("random", 1, torch.device("cpu"))
    assert setting.flops == pytest.approx(61.9e9, rel=1e-2)  # 15.47 G multiplications and additions, both ways


def test_the_limit_is_the_best_rate(tiny: Setting) -> None:
    line = bare_network(tiny, rounds=1)[0]
    assert line.ratio == pytest.approx(line.theirs[0] / line.ours[0])
    assert line.flops == tiny.flops * tiny.batch_size
    best = line.flops / line.theirs[0] / 1e9
    assert f"share of {best:.0f} GFLOP/s" in line.work


def test_layers_add_up_to_the_pass(tiny: Setting) -> None:
    *layers, whole = layer_by_layer(tiny, rounds=1)
    weighted = [line for line in layers if line.flops]
    assert len(weighted) == 2 * (13 + 3)
    # Counted otherwise than here: by PyTorch, as it runs.
    assert sum(line.flops for line in weighted) == whole.flops == tiny.flops * tiny.batch_size
    assert all(0 < line.ratio < 1 + 1e-9 for line in weighted)
    kinds = {line.work for line in layers if not line.flops}
    assert kinds == {f"{kind}, all of them" for kind in ("ReLU", "MaxPool2d", "AdaptiveAvgPool2d")}


def test_table_of_layers() -> None:
    lines = [
        Result("layers", "conv", "forward", [0.002, 0.001, 0.004], [0.001], ratio=0.5, flops=2e8),
        Result("layers", "conv", "backward", [0.004], [0.001], ratio=0.25, flops=2e8),
        Result("layers", "ReLU, all of them", "forward", [0.001], [], flops=0.0),
        Result("layers", "ReLU, all of them", "backward", [0.001], [], flops=0.0),
        Result("layers", "the pass as a whole", "", [0.01], [0.002], ratio=0.2, flops=4e8),
    ]
    assert layer_table(lines).rows == [
        ["conv", "0.20", "2.0 ms", "100", "50%", "4.0 ms", "50", "25%", "60.0%"],
        ["ReLU, all of them", "", "1.0 ms", "", "", "1.0 ms", "", "", "20.0%"],
        ["all of these, one by one", "0.20", "3.0 ms", "", "", "5.0 ms", "", "", "80.0%"],
        ["the pass as a whole", "0.40", "10.0 ms forward and backward", "40", "20%", "", "", "", "100.0%"],
    ]


def test_bare_pass_to_the_layer_is_what_grad_cam_reads(tiny: Setting) -> None:
    images, target = tiny.images(2), tiny.target(2)
    needs = Needs(layer_gradients={"features.29"})
    expected = ForwardPass(tiny.network, images, target, needs=needs).layer_gradient("features.29")
    torch.testing.assert_close(tiny.bare_layer_gradient(images, target), expected)


@pytest.mark.slow
def test_host_time_and_growth(
    call: Callable[..., Any], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_rows, "N_IMAGES", 4)
    monkeypatch.setattr(host_rows, "BATCH_SIZE", 2)
    monkeypatch.setattr(million_rows, "SIZES", (20, 200))
    call(benchmark.main, *SMALL, "--rows", "host,million", "--json", "numbers.json")
    lines = json.loads(Path("numbers.json").read_text())["results"]
    assert [line["row"] for line in lines] == ["host"] * 6 + ["million"] * 40
    for line in lines:
        ratio = median(line["ours"]) / median(line["theirs"])
        assert line["ratio"] == pytest.approx(ratio if line["goal"] else 1 / ratio)
    for whole, beyond in zip(lines[0:6:2], lines[1:6:2]):
        assert beyond["ours"] == pytest.approx([of - bare for of, bare in zip(whole["ours"], whole["theirs"])])
    printed = capsys.readouterr().out
    assert "host time of an image beyond loading and these passes | the goal |" in printed
    assert "summary of robustness, four budgets: 200 images | ten times that of a tenth |" in printed
