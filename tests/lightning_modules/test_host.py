from __future__ import annotations

import pytest
import torch

from lightning_modules import host
from lightning_modules.host import in_parts, replaced


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("by", [0.5, torch.arange(18.0).view(3, 1, 2, 3)], ids=["a number", "images"])
def test_what_is_replaced_is_the_same_with_a_look_and_without(
    looks: bool, by: float | torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "lies_on_host", lambda tensor: looks)
    images = torch.rand(3, 1, 2, 3)
    some = replaced(images, torch.tensor([True, False, True]), by)
    instead = torch.as_tensor(by).expand(3, 1, 2, 3)
    assert torch.equal(some, torch.stack([instead[0], images[1], instead[2]]))
    none = replaced(images, torch.zeros(3, dtype=torch.bool), by)
    assert torch.equal(none, images)
    assert (none is images) == looks


def test_parts_are_single_images_where_that_helps() -> None:
    images, numbers = torch.rand(3, 1, 2, 2), torch.arange(3)
    assert [(len(part), int(number)) for part, number in in_parts(images, numbers)] == [(1, 0), (1, 1), (1, 2)]
    assert [len(part) for (part,) in in_parts(images.to("meta"))] == [3]
