from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules import ClassIndexDataModule, DataError
from datamodules.units import parse_units

CHANNELS = {"features.28": 4, "classifier.6": 1000}
RELU = "layer1.0.relu"
RESNET = {f"{RELU}@0": 64, f"{RELU}@1": 64, f"{RELU}@2": 256, "layer4": 512, "a.end": 3, "b.end": 3}


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
    # What is read on the host is not moved.
    assert data.transfer_batch_to_device(batch, torch.device("meta"), 0)["target"].device.type == "cpu"


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_devices_share_the_units_exactly(world: int) -> None:
    paths = []
    for rank in range(world):
        data = ClassIndexDataModule("all", class_names=[f"c{k}" for k in range(7)], batch_size=2)
        assert data.begin_run(Path("run"), lambda: {"0003_c3_seed0.png"}, 1.0)
        data.setup("test")
        data.trainer = type("FakeTrainer", (), {"global_rank": rank, "world_size": world})()
        paths += [path for batch in data.test_dataloader() for path in batch["path"]]
    assert sorted(paths) == [f"{k:04d}_c{k}_seed0.png" for k in (0, 1, 2, 4, 5, 6)]


class TestCallsOfLayers:
    def units(self, *wanted: str) -> list[str]:
        return [unit.name for unit in parse_units(list(wanted), ["cat"], RESNET)]

    def test_named(self) -> None:
        assert self.units("layer1.0.relu@2:200", "layer4:3") == ["layer1.0.relu@2:200", "layer4:3"]

    def test_the_end_of_a_name(self) -> None:
        assert self.units("0.relu@2:200") == ["layer1.0.relu@2:200"]

    def test_the_one_call_of_a_layer(self) -> None:
        assert self.units("layer4@0:3") == ["layer4:3"]

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ("layer1.0.relu:200", r"may be one of 3: layer1\.0\.relu@0 \(64 channels\), .*\(256 ch"),
            ("0.relu:200", r"'0\.relu', which may be one of 3: layer1\.0\.relu@0"),
            ("layer1.0.relu@3:200", r"which the network does not have; it has layer1\.0\.relu@0, layer1\.0\.relu@1"),
            ("layer4@1:3", "'layer4@1', which the network does not have; it has layer4"),
            ("layer1.0.relu@1:200", "the channels of layer1.0.relu@1 are 0 to 63"),
            ("end:1", r"may be one of 2: a\.end .*, b\.end"),
            ("layer9:1", "'layer9', which the network does not have; it has layer1"),
        ],
    )
    def test_refused(self, wanted: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.units(wanted)
