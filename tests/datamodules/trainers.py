"""What stands for a Trainer where a data module only asks which process it serves, on what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch


def fake_trainer(rank: int = 0, world: int = 1, device: str = "cpu") -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(global_rank=rank, world_size=world, num_devices=1, strategy=strategy)
