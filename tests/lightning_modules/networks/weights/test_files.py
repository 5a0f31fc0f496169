"""What a file of weights is, and which of its parts is read."""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_modules import WeightsError
from lightning_modules.networks.weights.files import find_file, read_weights
from lightning_modules.networks.weights.state_dicts import read_state_dict


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


STATE = nn.Linear(2, 2).state_dict()
ARGS = {"state_dict": STATE, "args": argparse.Namespace(lr=1), "best": np.float64(3)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", lambda: b"", "it is an empty file"),
        ("x.safetensors", lambda: b"", "it is an empty file"),
        ("x.pth", lambda: b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("x.safetensors", lambda: b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("x.pth", lambda: b"\n<!DOCTYPE html><html>", "a web page"),
        ("x.json", lambda: b'{"metadata": {}, "weight_map": {"a": "b"}}', "several files"),
        ("x.pth", lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "a file of another library, such as Keras"),
        ("x.pth", lambda: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(99), "a file of another library, .*ONNX"),
        ("x.pb", lambda: b"\x0a\x20\x00" + bytes(99), "a file of another library"),
        ("x.gz", lambda: gzip.compress(saved(STATE)), "a compressed file; unpack it"),
        ("x.pt", scripted, r"TorchScript archive.*torch\.jit\.load\('x\.pt'\)\.state_dict\(\), 'new\.pth'\)"),
        ("x.pth", lambda: saved(nn.Linear(2, 2)), r"also holds torch\.nn\.modules\.linear\.Linear\. It was not .*"
         r"save its state dict: that of torch\.load\('x\.pth', weights_only=False\)"),
        ("x.pth", lambda: saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False), "not a file of tensors alone"),
        ("x.pth", lambda: saved(ARGS), r"also holds argparse\.Namespace, numpy.*not executed.*state dict"),
        ("x.pkl", lambda: pickle.dumps(STATE), "not a file of tensors alone: .*not executed"),
        ("x.safetensors", lambda: b"\xff" * 50, "x.safetensors is not a file of "),
        ("x.pth", lambda: bytes(1000), "is not a file of PyTorch or safetensors, or is damaged"),
        ("x.pth", lambda: saved(STATE)[:500], "is not a file of PyTorch or safetensors, or is damaged"),
        ("x.pth", lambda: saved(torch.ones(3)), "holds a Tensor, not a state dict"),
    ],
)  # fmt: skip
def test_what_else_it_is(tmp_path: Path, name: str, content: Any, message: str) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(WeightsError, match=message) as error:
        read_state_dict(tmp_path / name)
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"it is a folder; name the file itself\."):
        read_weights(tmp_path)
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(WeightsError, match=r"such as .*/last\.ckpt"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_safetensors(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert torch.equal(read_state_dict(tmp_path / name).tensors["weight"], STATE["weight"])
    content = (tmp_path / name).read_bytes()
    for damaged in (content[:-4], content[:40]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged"):
            read_weights(tmp_path / name)


def test_a_file_of_pytorch_that_is_called_otherwise(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.safetensors")
    assert set(read_state_dict(tmp_path / "x.safetensors").tensors) == {"weight", "bias"}


def one(value: float) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.tensor([value])}


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": []}


@pytest.mark.parametrize(
    ("content", "part", "value", "note"),
    [
        (one(1), "", 1, None),
        ({"state_dict": one(1), "epoch": 3, "optimizer": OPTIMIZER}, "", 1, None),
        ({"best_acc": torch.ones(1), "net": one(1)}, "", 1, None),
        ({"checkpoint": {"model": one(1)}}, "", 1, None),
        ({"some": one(1), "scaler": {"scale": torch.ones(1)}, "rng_state": torch.ones(9)}, "", 1, None),
        ({"model_ema": one(2), "model": one(1)}, "", 1, "it also holds model_ema: x.pth#model_ema"),
        ({"model_ema": one(2), "model": one(1)}, "model_ema", 2, None),
        ({"model_ema": one(2), "model": one(1)}, "model_ema.a", 2, None),
        ({"ema_state_dict": one(2), "state_dict": one(1)}, "", 1, "ema_state_dict"),
        ({"ema_state_dict": one(2), "state_dict": one(1)}, "ema_state_dict", 2, None),
        ({"other": one(2), "state_dict": one(1)}, "", 1, "x.pth#other takes that"),
        ({"a": {"model": one(2)}, "model": one(1)}, "a.model", 2, None),
        ({"ema.a.weight": torch.tensor([2.0]), **one(1)}, "ema", 2, None),
        ({"model": {"ema.a.weight": torch.tensor([2.0]), **one(1)}, "model_ema": one(3)}, "ema", 2, None),
        ({"model": {"ema.a.weight": torch.tensor([2.0]), **one(1)}}, "model.ema", 2, None),
    ],
)  # fmt: skip
def test_parts(tmp_path: Path, content: Any, part: str, value: float, note: str | None) -> None:
    torch.save(content, tmp_path / "x.pth")
    state = read_state_dict(tmp_path / "x.pth", part)
    (tensor,) = [tensor for name, tensor in state.tensors.items() if name == "a.weight"[-len(name) :]]
    assert tensor.item() == value
    assert len(state.notes) == (note is not None)
    if note:
        assert note.rstrip() in state.notes[0]


@pytest.mark.parametrize(
    ("content", "part", "message"),
    [
        (
            {"generator": one(1), "discriminator": one(2)},
            "",
            r"several state dicts: generator, discriminator.*x.pth#gen",
        ),
        ({"model": one(1)}, "ema", r"has no part 'ema'; its parts are model, a\."),
        ({"optimizer": OPTIMIZER}, "", "is not a state dict.*but holds optimizer"),
        ({}, "", "is not a state dict.*holds nothing"),
        ({**one(1), "epoch": 3}, "", "not a state dict: under 'epoch' it holds a int"),
        ({"state_dict": {**one(1), "b": "x"}}, "", "under 'b' it holds a str"),
        ({"a": torch.ones(2, dtype=torch.cfloat)}, "", "holds a as a tensor of complex64"),
        ({"a": torch.ones(2, 2).to_sparse()}, "", "holds a as a tensor of float32, sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "", "holds a as a tensor of .* on meta"),
    ],
)
def test_no_such_part(tmp_path: Path, content: Any, part: str, message: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "x.pth", part)


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantized(tmp_path: Path) -> None:
    torch.save({"a": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="holds a as a tensor of qint8"):
        read_state_dict(tmp_path / "x.pth")


def test_names_of_files(tmp_path: Path) -> None:
    for name in ("x.pth", "a#b.pth"):
        (tmp_path / name).touch()
    assert find_file(tmp_path / "x.pth") == (tmp_path / "x.pth", "")
    assert find_file(f"{tmp_path}/x.pth#model.ema") == (tmp_path / "x.pth", "model.ema")
    assert find_file(f"{tmp_path}/a#b.pth") == (tmp_path / "a#b.pth", "")
    assert find_file(f"{tmp_path}/a#b.pth#ema") == (tmp_path / "a#b.pth", "ema")
    assert find_file(f"{tmp_path}/y.pth#model") is None
    assert find_file(f"{tmp_path}/x.pth#") is None
