from __future__ import annotations

import pytest

from datamodules import ClassIndexDataModule, DataError
from datamodules.class_indices import parse_units
from datamodules.sources.imagenet import imagenet_class_names

CHANNELS = {"features.28": 4, "classifier.6": 1000}


def names(wanted: object, class_names: list[str] | None = None, layer: str | None = None) -> list[str]:
    units = parse_units(wanted, class_names or imagenet_class_names(), CHANNELS, layer)  # type: ignore[arg-type]
    return [unit.name for unit in units]


def test_index_name_and_wnid() -> None:
    units = parse_units([207, "tabby", "n02123045", "281", "n01440764"], imagenet_class_names())
    assert [(unit.target, unit.name, unit.layer) for unit in units] == [
        (207, "golden retriever", None),
        (281, "tabby", None),
        (0, "tench", None),
    ]


def test_all_and_single() -> None:
    assert names("all") == imagenet_class_names()
    assert names(3) == ["tiger shark"]
    assert names("tench") == ["tench"]


def test_channels() -> None:
    assert names(["features.28:3", "tabby", "classifier.6:999"]) == ["features.28:3", "tabby", "classifier.6:999"]
    assert names("features.28:all") == [f"features.28:{k}" for k in range(4)]
    assert names([1, "0"], layer="features.28") == ["features.28:1", "features.28:0"]
    assert names("all", layer="features.28") == names("features.28:all")


def test_class_names_that_look_like_something_else() -> None:
    assert names(["a:1", "7"], ["a:1", "7", "b"]) == ["a:1", "7"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("tabi", r"'tabi', which is no class.*Did you mean one of: .*tabby"),
        (1000, "names class 1000; the network has classes 0 to 999"),
        (-1, "names class -1"),
        ("features.99:3", "layer 'features.99', which the network does not have; it has features.28, classifier.6"),
        ("features.28:4", "features.28:4; the channels of features.28 are 0 to 3, or all"),
        ("features.28:x", "features.28:x; the channels"),
        ([], "data.classes is empty"),
    ],
)
def test_bad_units(wanted: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(wanted)


@pytest.mark.parametrize("option", ["n_images", "batch_size"])
def test_bad_options(option: str) -> None:
    with pytest.raises(DataError, match=f"data.{option} must be at least 1, got 0"):
        ClassIndexDataModule("all", class_names=["cat"], **{option: 0})


def test_batches() -> None:
    data = ClassIndexDataModule(
        ["dog", "features.28:2"], n_images=2, seed=5, class_names=["cat", "dog"], channels=CHANNELS
    )
    (batch,) = data.test_dataloader()
    assert batch["target"].tolist() == [1, 2, 1, 2]
    assert batch["seed"].tolist() == [5, 5, 6, 6]
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert batch["layer"] == [None, "features.28"] * 2
    assert batch["name"] == ["dog", "features.28:2"] * 2
    assert batch["path"] == [
        "0001_dog_seed5.png",
        "features.28_0002_seed5.png",
        "0001_dog_seed6.png",
        "features.28_0002_seed6.png",
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_devices_share_the_units_exactly(world: int) -> None:
    paths = []
    for rank in range(world):
        data = ClassIndexDataModule("all", class_names=[f"c{k}" for k in range(7)], batch_size=2)
        data.read_done = lambda: {"0003_c3_seed0.png"}
        data.setup("test")
        data.trainer = type("FakeTrainer", (), {"global_rank": rank, "world_size": world})()
        paths += [path for batch in data.test_dataloader() for path in batch["path"]]
    assert sorted(paths) == [f"{k:04d}_c{k}_seed0.png" for k in (0, 1, 2, 4, 5, 6)]
