from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from datamodules import Preprocess
from datamodules.photos import PhotoFolder
from datamodules.units import Unit
from lightning_modules import Network, as_network
from lightning_modules import exemplars as module
from lightning_modules.exemplars import find_exemplars, read_exemplars, read_facts, update_exemplars
from lightning_modules.synthesis import Channel, LogitMargin, Objective
from tests.references import TinyNet

UNITS = [
    Unit(1, "features.0", "features.0:1"),
    Unit(2, None, "2"),
    Unit(0, "features.1", "features.1:0"),
    Unit(0, "features.0", "features.0:0"),
]


def objective_of(layer: str | None) -> Objective:
    return LogitMargin() if layer is None else Channel(layer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty photos in two folders, of which two are the same and one is none."""
    for k in range(40):
        path = tmp_path / f"photos/{'ab'[k % 2]}/{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = 38 if k == 39 else k
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/a/broken.png").write_bytes(b"nothing")
    return tmp_path / "photos"


def photos(folder: Path) -> PhotoFolder:
    return PhotoFolder(str(folder), "data.exemplars", Preprocess(8, 8), 0)


def network() -> Network:
    return as_network(TinyNet(inplace=True), input_size=8).freeze()


def values_by_hand(net: Network, folder: Path) -> dict[str, list[float]]:
    """Of each photo, one at a time, what each unit makes of it."""
    found = {}
    for path in sorted(folder.glob("*/[0-9]*.png")):
        image = Preprocess(8, 8)(Image.open(path))[None].double()
        before = torch.nn.functional.conv2d(image, net.module.features[0].weight)  # type: ignore[union-attr, index]
        logits = net(image)[0]
        margin = logits[2] - torch.cat([logits[:2], logits[3:]]).logsumexp(0)
        found[path.relative_to(folder).as_posix()] = [
            float(before[0, 1].mean()), float(margin), float(before[0, 0].clamp(0).mean()), float(before[0, 0].mean()),
        ]  # fmt: skip
    return found


def test_they_are_those_of_each_photo_alone(folder: Path) -> None:
    net = network()
    by_hand = values_by_hand(net, folder)
    found = find_exemplars(net, UNITS, objective_of, photos(folder), 5)
    assert (found.facts["n_photos"], [path for path, _ in found.facts["failed"]]) == (41, ["a/broken.png"])
    for number in range(len(UNITS)):
        best = sorted(by_hand, key=lambda path: -by_hand[path][number])[:5]
        assert [found.paths[index] for index in found.indices[number].tolist()] == best
        assert found.values[number].tolist() == pytest.approx([by_hand[path][number] for path in best], abs=1e-5)
    assert len(found.paths) == len(set(found.indices.flatten().tolist()))


def test_one_pass_for_all(folder: Path) -> None:
    net = network()
    sizes: list[int] = []
    net.module.features.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))  # type: ignore[union-attr]
    find_exemplars(net, UNITS, objective_of, photos(folder), 5)
    assert sizes == [32, 8]  # of 32 photos and of 9, of which one is broken


def test_of_equal_photos_the_first_comes_first(folder: Path) -> None:
    found = find_exemplars(network(), UNITS, objective_of, photos(folder), 40)
    for indices in found.indices:
        paths = [found.paths[index] for index in indices.tolist()]
        assert paths.index("a/38.png") + 1 == paths.index("b/39.png")


def test_more_are_wanted_than_there_are(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"1 of the 41 photos of data\.exemplars could not be used: a/broken\.png: not "
    ):
        update_exemplars(network(), UNITS, objective_of, photos(folder), 50, tmp_path / "kept")
    rows = read_exemplars(tmp_path / "kept")
    assert len(rows) == 4 * 40
    assert {row["rank"] for row in rows} == set(range(1, 41))
    assert read_facts(tmp_path / "kept") == {
        "n_photos": 41, "n_failed": 1, "failed": [["a/broken.png", "not an image in a known format"]],
        "n_unturned": 0, "notes": [],
    }  # fmt: skip


def test_photos_that_are_not_as_meant_are_told_of(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (9, 8), "gray").save(tmp_path / "photos/a.png", exif=exif)
    Image.fromarray(np.zeros((8, 9, 4), np.uint8)).save(tmp_path / "photos/b.png")
    with pytest.warns(UserWarning, match="of data.exemplars") as told:
        update_exemplars(network(), UNITS, objective_of, photos(tmp_path / "photos"), 1, tmp_path / "kept")
    assert [str(warning.message).partition(":")[0] for warning in told] == [
        "Of the photos of data.exemplars, 1 image asks by its EXIF orientation to be turned, and the network saw it "
        "unturned, as published ImageNet numbers do. What turns it",
        "The photo b.png of data.exemplars",
    ]
    facts = read_facts(tmp_path / "kept")
    assert (facts["n_unturned"], [path for path, _ in facts["notes"]]) == (1, ["b.png"])
    turning = PhotoFolder(str(tmp_path / "photos"), "data.exemplars", Preprocess(8, 8), 0, exif_orientation=True)
    assert find_exemplars(network(), UNITS, objective_of, turning, 1).facts["n_unturned"] == 0


def test_what_is_no_number_is_left_out_and_told(folder: Path) -> None:
    net = network()
    with torch.no_grad():
        net.module.readout.weight[0] = torch.nan  # type: ignore[union-attr, index]
    found = find_exemplars(net, UNITS, objective_of, photos(folder), 3)
    assert len(found.facts["failed"]) == 41
    assert found.facts["failed"][0] == ["a/00.png", "a unit's value is not finite"]
    assert found.values[1].tolist() == [-torch.inf] * 3
    assert found.values[0].isfinite().all()  # a channel of which they are numbers


class TestKept:
    @pytest.fixture
    def searches(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Grows with each search."""
        found: list[int] = []

        def counted(*args: Any) -> Any:
            found.append(1)
            return find_exemplars(*args)

        monkeypatch.setattr(module, "find_exemplars", counted)
        return found

    @pytest.mark.filterwarnings("ignore:1 of the")
    def test_the_same_is_not_searched_again(self, folder: Path, tmp_path: Path, searches: list[int]) -> None:
        def settle(units: list[Unit] = UNITS, n: int = 2) -> list[dict]:
            update_exemplars(network(), units, objective_of, photos(folder), n, tmp_path / "kept")
            return read_exemplars(tmp_path / "kept")

        first = settle()
        assert (settle(), len(searches)) == (first, 1)
        for row in first:
            with Image.open(tmp_path / "kept" / row["photo"]) as photo:
                assert photo.size == (8, 8)
        assert len(settle(n=3)) == 12
        assert len(settle(UNITS[:1])) == 2
        assert len(searches) == 3
        (folder / "a/more.png").write_bytes((folder / "a/00.png").read_bytes())
        settle(UNITS[:1])
        assert len(searches) == 4

    @pytest.mark.filterwarnings("ignore:1 of the")
    def test_an_unfinished_search_is_none(self, folder: Path, tmp_path: Path, searches: list[int]) -> None:
        update_exemplars(network(), UNITS, objective_of, photos(folder), 2, tmp_path / "kept")
        assert json.loads((tmp_path / "kept/exemplars.json").read_text())["made_from"]["n"] == 2
        (tmp_path / "kept/exemplars.json").unlink()
        assert read_exemplars(tmp_path / "kept") == []
        assert read_facts(tmp_path / "kept") == {}
        update_exemplars(network(), UNITS, objective_of, photos(folder), 2, tmp_path / "kept")
        assert len(searches) == 2
