from __future__ import annotations

import gc
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.batch import Original
from datamodules.reading.parcels import Parcel, Slots


def arrived(parcel: Parcel) -> Any:
    return pickle.loads(pickle.dumps(parcel))


def content() -> dict[str, Any]:
    return {
        "path": ["a", "ü"],
        "image": torch.rand(2, 3, 5, 7),
        "turned": torch.rand(4, 3).T,
        "label": torch.tensor([3, -1]),
        "is": torch.tensor([True, False, True]),
        "half": torch.rand(3).bfloat16(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "boxes": torch.zeros(0, 4),
        "original": [Original(np.arange(24, dtype=np.uint8).reshape(2, 4, 3), (0.0, 0.0, 1.0, 2.0)), None],
    }


@pytest.mark.parametrize("n_bytes", [pytest.param(n, id=str(n)) for n in (0, 1, 4096, 1 << 20)])
def test_what_arrives_is_what_was_packed(n_bytes: int) -> None:
    made = content()
    slots = Slots(1, 2, n_bytes) if n_bytes else None
    found = arrived(Parcel(made, slots, 0))
    assert found.keys() == made.keys()
    for name, value in made.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value)
            assert found[name].dtype == value.dtype
            found[name].zero_()  # can be written to
    assert found["path"] == made["path"]
    assert found["original"][1] is None
    np.testing.assert_array_equal(found["original"][0].pixels, made["original"][0].pixels)


def test_tensors_in_a_slot_are_not_copied() -> None:
    slots = Slots(1, 1, 1 << 20)
    found = arrived(Parcel(torch.zeros(1000), slots, 0))
    slots.bytes_of(0)[:] = 255
    assert found.view(torch.uint8).unique().tolist() == [255]


def test_the_largest_goes_first_and_what_does_not_fit_goes_beside() -> None:
    slots = Slots(1, 1, 4096)
    parcel = Parcel([torch.zeros(600), torch.ones(900), torch.ones(50)], slots, 0)
    assert [isinstance(place, bytearray) for place in parcel.places] == [True, False, False]
    assert parcel.places[2] == (3648, 3848)


def test_a_slot_is_free_again_when_nothing_is_left_of_its_tensors() -> None:
    slots = Slots(2, 1, 4096)
    taken = Parcel({"a": torch.zeros(9), "b": torch.ones(9)}, slots, 1)
    assert taken.slot == (slots.number, 1)
    beside = Parcel(torch.ones(9), slots, 1)
    assert beside.slot is None
    assert torch.equal(arrived(beside), torch.ones(9))
    found = arrived(taken)
    kept = found.pop("b")[2:]
    del found, beside
    gc.collect()
    assert slots.take(1) is None
    assert kept.tolist() == [1] * 7
    del kept
    gc.collect()
    assert slots.take(1) == 1
    assert slots.take(0) == 0


def test_what_arrived_outlives_the_slots() -> None:
    slots = Slots(1, 1, 4096)
    found = arrived(Parcel(torch.ones(9), slots, 0))
    number = slots.number
    del slots
    gc.collect()
    assert found.tolist() == [1] * 9
    del found
    gc.collect()
    assert number not in Slots.known


def test_no_memory() -> None:
    with pytest.raises(OSError, match="Cannot allocate memory"):
        Slots(1, 1, 1 << 60)
