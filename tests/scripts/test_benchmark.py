from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark
import pytest
import torch
from benchmarks import host_rows, million_rows
from benchmarks.limit_rows import bare_network
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Row, assert_close, compare, measure

from lightning_modules.running.cli import RunError

SMALL = ("--weights", "shapes", "--rounds", "2", "--batch_size", "2", "--peers", "false")


def test_rows_and_what_is_kept_of_others(call: Callable[..., Any], capsys: pytest.CaptureFixture) -> None:
    call(benchmark.main, *SMALL, "--rows", "three_maps,fgsm", "--json", "numbers.json")
    first = json.loads(Path("numbers.json").read_text())["results"]
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
    assert content["machine"] in printed


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

    def contenders(n: int) -> list[Contender]:
        return [
            Contender(name, lambda name=name: order.append((name, n)), units=10, as_found=name == "theirs")
            for name in names
        ]

    goals = [Goal("theirs", faster=1e9), Goal("theirs", at_most=1e9)]
    row = Row("row", "work", contenders, 4, goals, lambda outputs: f"checked {sorted(outputs)}")
    slower, quicker = measure(row, rounds=2)
    assert order[:3] == [(name, 1) for name in names]
    # Where the way with memory changes, the first one runs once more, untimed.
    turns = [OURS, OURS, "bare", "theirs", "theirs"], ["theirs", "bare", "bare", OURS]
    assert order[3:] == [(name, 4) for turn in turns for name in turn]
    assert [len(slower.ours), len(slower.theirs)] == [2, 2]
    assert slower.note == f"checked {sorted(names)}"
    assert (slower.verdict, quicker.verdict) == ("missed", "met")


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
def test_the_limit_counts_what_the_network_computes() -> None:
    setting = Setting("random", 1, torch.device("cpu"))
    assert setting.flops == pytest.approx(61.9e9, rel=1e-2)  # 15.47 G multiplications and additions, both ways
    small = Setting("shapes", 2, torch.device("cpu"))
    line = bare_network(small, rounds=1)[0]
    assert line.ours
    assert line.ratio == pytest.approx(line.theirs[0] / line.ours[0])


@pytest.mark.slow
def test_host_time_and_growth(
    call: Callable[..., Any], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_rows, "N_IMAGES", 4)
    monkeypatch.setattr(host_rows, "BATCH_SIZE", 2)
    monkeypatch.setattr(million_rows, "SIZES", (20, 200))
    call(benchmark.main, *SMALL, "--rows", "host,million", "--json", "numbers.json")
    lines = json.loads(Path("numbers.json").read_text())["results"]
    assert [line["row"] for line in lines] == ["host"] * 3 + ["million"] * 40
    for line in lines:
        assert line["ratio"] == pytest.approx(sum(line["ours"]) / len(line["ours"]) / line["theirs"][0])
    printed = capsys.readouterr().out
    assert "host time beyond loading, an image | the goal |" in printed
    assert "summary of robustness, four budgets: 200 images | ten times that of a tenth |" in printed
