"""How float32 is computed: what is switched, and what is recorded of it."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.running.arithmetic import arithmetic, compute_to_float32


@pytest.fixture(autouse=True)
def _as_pytorch_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def test_tensor_float_is_off_and_nothing_else_is_touched() -> None:
    before = arithmetic("32-true", is_compiled=False)
    compute_to_float32()
    assert not torch.backends.cudnn.allow_tf32
    assert arithmetic("32-true", is_compiled=False) == {**before, "cudnn.allow_tf32": False}
    assert torch.get_float32_matmul_precision() == "highest"  # PyTorch's own default


def test_what_the_user_set_is_recorded() -> None:
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    try:
        found = arithmetic("bf16-mixed", is_compiled=True)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == {
        "precision": "bf16-mixed",
        "compiled": True,
        "cudnn.allow_tf32": True,
        "cudnn.benchmark": True,
        "cudnn.deterministic": False,
        "float32_matmul_precision": "high",
    }
