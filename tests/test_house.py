"""The house: each folder imports only from the floors below its own, and says what lives there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Of lightning_modules, from the ground up. Rooms of one floor never import each other.
FLOORS = [
    {"errors", "host", "random_numbers", "text"},
    {"networks"},
    {"gradients"},
    {"methods", "attacks", "synthesis"},
    {"metrics"},
    {"results", "figures"},
    {"exemplars", "judging", "pages"},
    {"evaluation"},
    {"activation_maximization", "attribution", "classifier", "robustness"},
    {"front", "strategies"},
    {"running"},
]
# Of the rooms that are large enough to have floors of their own.
INNER_FLOORS = {
    "networks": [
        {"compiling", "enabled", "outputs"},
        {"options"},
        {"libraries"},
        {"class_names"},
        {"inputs"},
        {"observed"},
        {"network"},
        {"making", "weights"},
        {"built_in"},
        {"loading"},
    ],
    "running": [
        {"arithmetic", "parsing", "progress", "stopping"},
        {"folder"},
        {"starts"},
        {"cli"},
        {"description"},
        {"comparison", "demonstration", "evaluation", "packing", "prediction", "training"},
        {"again", "pairs"},
        {"look", "strategies"},
    ],
    "results": [
        {"tables", "statistics"},
        {"scores"},
        {"report"},
        {"storage"},
        {"arrays", "rows"},
        {"attacked_rows"},
        {"adversarial", "choosing", "maps", "summaries"},
        {"comparison"},
    ],
}
# Of datamodules, likewise.
DATA_FLOORS = [
    {"errors", "imagenet", "text", "writing"},
    {"classes"},
    {"batch"},
    {"images"},
    {"preprocess", "label_tables"},
    {"boxes", "labels", "loader", "remote", "subset", "units"},
    {"ahead", "reader"},
    {"source"},
    {"labelling", "walk"},
    {"folder", "tar_index"},
    {"decoded", "tar", "training"},
    {"modules", "packing", "photos"},
    {"class_indices", "image_sources", "pictures"},
    {"shapes"},
]
FILES = [file for package in ("datamodules", "lightning_modules", "scripts") for file in (ROOT / package).rglob("*.py")]


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor_of(room: str, floors: list[set[str]]) -> int:
    (floor,) = [k for k, rooms in enumerate(floors) if room in rooms] or [None]
    assert floor is not None, f"{room} stands on no floor: add it to FLOORS or DATA_FLOORS"
    return floor


def assert_goes_down(file: Path, package: str, floors: list[set[str]]) -> None:
    """Args: the file, the package as it is imported, and the floors of what lies in it."""
    room = file.relative_to(ROOT / package.replace(".", "/")).with_suffix("").parts[0]
    for name in imports_of(file):
        if name.startswith(f"{package}."):
            other = name.removeprefix(f"{package}.").split(".")[0]
            assert other == room or floor_of(other, floors) < floor_of(room, floors), f"{file} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_go_down(file: Path) -> None:
    package, *inner = file.relative_to(ROOT).with_suffix("").parts
    imported = imports_of(file)
    if package == "datamodules":
        assert not {name for name in imported if name.startswith(("lightning_modules", "scripts"))}
        if inner != ["__init__"]:
            assert_goes_down(file, package, DATA_FLOORS)
    if package == "lightning_modules":
        assert not {name for name in imported if name.startswith("scripts")}
        if inner == ["__init__"]:
            return
        of_data = {name for name in imported if name.split(".")[0] == "datamodules" and inner[0] != "front"}
        allowed = tuple(f"datamodules.{name}." for name in ("batch", "text", "writing"))
        assert not {name for name in of_data if not name.startswith(allowed)}
        assert_goes_down(file, package, FLOORS)
        if inner[0] in INNER_FLOORS and inner[1:] != ["__init__"]:
            assert_goes_down(file, f"lightning_modules.{inner[0]}", INNER_FLOORS[inner[0]])


def test_cleverhans_lives_behind_one_adapter() -> None:
    # The benchmark runs cleverhans as a peer.
    files = [file for file in FILES if "benchmarks" not in file.parts]
    using = [file for file in files if any(name.startswith("cleverhans") for name in imports_of(file))]
    assert using == [ROOT / "lightning_modules/attacks/cleverhans_adapter.py"]


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda script: script.name)
def test_a_script_parses_and_runs(script: Path) -> None:
    """All else is a library, so that a script of somebody else's can have it."""
    assert len(script.read_text().splitlines()) < 40


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name == "__init__.py"], ids=lambda file: file.parent.name
)
def test_each_room_opens_with_what_lives_there(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


AS_LARGE_AS_THEY_MAY_BE = {
    "lightning_modules/attacks/cleverhans_adapter.py": 330,
    "lightning_modules/robustness.py": 420,
}
"""Files that are longer than some 300 lines. None is to be added, and these are to shrink."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_file_is_an_idea_and_a_function_a_screen(file: Path) -> None:
    name, text = file.relative_to(ROOT).as_posix(), file.read_text()
    assert len(text.splitlines()) <= AS_LARGE_AS_THEY_MAY_BE.get(name, 320)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name not in ("as_network", "summarize_robustness"):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is longer than 60 lines"


def test_few_modules_lie_flat() -> None:
    assert len([file for file in (ROOT / "lightning_modules").glob("*.py") if file.name != "__init__.py"]) <= 12


PRIVATE = {
    "torch._functorch",
    "torch.utils._pytree",
    *(
        f"pytorch_lightning.strategies.launchers.{name}"
        for name in ("_MultiProcessingLauncher", "_SubprocessScriptLauncher")
    ),
}
"""What is imported of other libraries for want of a public way. None is to be added."""


def test_hardly_any_private_name_of_another_library_is_used() -> None:
    ours = ("datamodules", "lightning_modules", "benchmarks", "_while_importing")
    found = set()
    for name in {name for file in FILES for name in imports_of(file) if not name.startswith((*ours, "__future__"))}:
        parts = name.split(".")
        if any(part.startswith("_") for part in parts):
            found.add(".".join(parts[: next(k for k, part in enumerate(parts) if part.startswith("_")) + 1]))
    assert found <= PRIVATE
