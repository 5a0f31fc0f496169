from __future__ import annotations

import pytest

from datamodules import ClassIndexDataModule, DataError

CHANNELS = {"features.28": 4, "classifier.6": 1000}


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
