"""What wraps a module, what lies beside it in its file, and what its own code makes of names."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from lightning_modules import WeightsError
from lightning_modules.networks.weights.loading import load, loaded
from lightning_modules.networks.weights.state_dicts import read_state_dict


class Net(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, num_classes)


def notes_of(path: Path, content: Any, module: nn.Module, part: str = "") -> list[str]:
    torch.save(content, path)
    return load(read_state_dict(path, part), module, "weights of it", "Advice.")


def same(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in first.state_dict().items())


def under(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def test_what_wraps_a_part(tmp_path: Path) -> None:
    """As in PyTorch's own ImageNet example, which puts VGG's features alone into DataParallel."""
    source, target = Net(), Net()
    wrapped = copy.deepcopy(source)
    wrapped.features = nn.DataParallel(wrapped.features)  # type: ignore[assignment]
    notes = notes_of(tmp_path / "x.pth", {"state_dict": wrapped.state_dict()}, target)
    assert notes == ["module. was removed from within its names"]
    assert same(source, target)


@pytest.mark.slow
def test_a_compiled_module(tmp_path: Path) -> None:
    source, target = Net(), Net()
    assert notes_of(tmp_path / "x.pth", source.state_dict(), torch.compile(target)) == []
    assert same(source, target)


@pytest.mark.parametrize(
    ("others", "left_out"),
    [
        ({"criterion.weight": torch.ones(3)}, "criterion"),
        ({"val_accuracy.tp": torch.ones(3)}, "val_accuracy"),
        (under("ema_model.module.", Net()) | {"ema_model.n_averaged": torch.tensor(3)}, "ema_model"),
    ],
)
def test_what_is_clearly_none_of_the_weights_is_left_out(tmp_path: Path, others: Any, left_out: str) -> None:
    source, target = Net(), Net()
    notes = notes_of(tmp_path / "x.pth", under("model.", source) | others, target)
    assert notes == ["the prefix model. was removed from its names", f"it also holds {left_out}, which was left out"]
    assert same(source, target)


def test_an_averaged_model(tmp_path: Path) -> None:
    source, target = Net(), Net()
    notes = notes_of(tmp_path / "x.pth", {"model_ema": AveragedModel(source).state_dict()}, target)
    assert notes == ["the prefix module. was removed from its names", "it also holds n_averaged, which was left out"]
    assert same(source, target)


def test_other_weights_beside_it_are_refused_unless_the_part_is_named(tmp_path: Path) -> None:
    """The network that was trained may be ``head(model(x))``."""
    source, target = Net(), Net()
    content = under("model.", source) | {"head.weight": torch.ones(2, 3)}
    with pytest.raises(WeightsError, match=r"surplus: head\.weight\. If a part of it .* name that: x\.pth#model\."):
        notes_of(tmp_path / "x.pth", content, target)
    assert notes_of(tmp_path / "x.pth", content, target, "model") == []
    assert same(source, target)
    both = under("student.", source) | under("teacher.", Net())
    with pytest.raises(WeightsError, match=r"name that: x\.pth#student or x\.pth#teacher\."):
        notes_of(tmp_path / "x.pth", both, target)


def test_two_names_that_become_one(tmp_path: Path) -> None:
    content = Net().state_dict() | {"features.module.0.weight": torch.ones(4, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"surplus: features\.module\.0\.weight"):
        notes_of(tmp_path / "x.pth", content, Net())
    del content["features.0.bias"]
    content["features.module.0.bias"] = torch.ones(4)
    with pytest.raises(WeightsError, match=r"0\.weight and features\.module\.0\.weight, which are both features\.0\.w"):
        notes_of(tmp_path / "x.pth", content, Net())


def test_two_names_that_the_modules_own_code_makes_one(tmp_path: Path) -> None:
    vit = models.VisionTransformer(16, 8, 1, 1, 8, 8, num_classes=3)
    content = dict(vit.state_dict())
    name = "encoder.layers.encoder_layer_0.mlp.0.weight"
    content[name.replace("mlp.0", "mlp.linear_1")] = content[name] + 1
    with pytest.raises(WeightsError, match=r"mlp\.linear_1\.weight and .*mlp\.0\.weight, which are one tensor"):
        notes_of(tmp_path / "x.pth", content, vit)


class Forgiving(Net):
    """Whose own loading is not strict."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        known = {name: tensor for name, tensor in state_dict.items() if name in self.state_dict()}
        super().load_state_dict({**self.state_dict(), **known})


def test_own_code_that_leaves_parameters_as_they_are(tmp_path: Path) -> None:
    content = dict(Forgiving().state_dict())
    del content["head.weight"]
    with pytest.raises(WeightsError, match=r"leaves head\.weight of the network without values"):
        notes_of(tmp_path / "x.pth", content, Forgiving())


def test_buffers(tmp_path: Path) -> None:
    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("index", torch.tensor([0, 1]))

    source, target = Masked(), Masked()
    assert notes_of(tmp_path / "x.pth", source.state_dict(), target) == []
    assert same(source, target)
    with pytest.raises(WeightsError, match="NaN or infinite weights in mask"):
        notes_of(tmp_path / "x.pth", source.state_dict() | {"mask": torch.tensor([0.0, torch.nan])}, Masked())


def test_one_name_of_a_tensor_of_two_is_enough(tmp_path: Path) -> None:
    """As safetensors.torch.save_model leaves it."""

    def tied() -> nn.ModuleDict:
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        second.weight = first.weight
        return nn.ModuleDict({"first": first, "second": second})

    source, target = tied(), tied()
    save_model(source, str(tmp_path / "x.safetensors"))
    assert len(read_state_dict(tmp_path / "x.safetensors").tensors) == 3
    assert load(read_state_dict(tmp_path / "x.safetensors"), target, "", "") == []
    assert same(source, target)


def test_mnasnet_of_safetensors_which_keeps_no_versions(tmp_path: Path) -> None:
    source, target = (models.mnasnet0_5(num_classes=3) for _ in range(2))
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    assert load(read_state_dict(tmp_path / "x.safetensors"), target, "", "") == []
    assert same(source, target)


def test_mnasnet_in_data_parallel_which_has_a_version_of_its_own(tmp_path: Path) -> None:
    source, target = (models.mnasnet0_5(num_classes=3) for _ in range(2))
    assert len(notes_of(tmp_path / "x.pth", nn.DataParallel(source).state_dict(), target)) == 1
    assert same(source, target)


class Auxiliary(Net):
    """A head that only training uses, as GoogLeNet and Inception have it."""

    def __init__(self, num_classes: int = 3, aux_logits: bool = True) -> None:
        super().__init__(num_classes)
        self.aux1 = nn.Linear(4, num_classes) if aux_logits else None


def test_heads_that_only_training_uses(tmp_path: Path) -> None:
    """torchvision's own builders take them off once the weights are loaded."""
    short = Auxiliary(5, aux_logits=False)
    torch.save(short.state_dict(), tmp_path / "x.pth")
    options = ("num_classes", "aux_logits")
    target, notes = loaded(read_state_dict(tmp_path / "x.pth"), Auxiliary, options, "it", "")
    assert notes == ["the network was made with num_classes=5, aux_logits=False, as the file has it"]
    assert same(short, target)
    source, target = Auxiliary(), Auxiliary(aux_logits=False)
    assert notes_of(tmp_path / "x.pth", source.state_dict(), target) == ["it also holds aux1, which was left out"]
    assert same(target, source)


def test_another_width_is_no_number_of_classes(tmp_path: Path) -> None:
    torch.save(Net(5).state_dict() | {"features.0.bias": torch.ones(7)}, tmp_path / "x.pth")
    with pytest.raises(
        WeightsError, match=r"features\.0\.bias has shape \(7,\), not \(4,\); head\.weight has shape \(5"
    ):
        loaded(read_state_dict(tmp_path / "x.pth"), Net, ("num_classes",), "it", "Advice.")


def test_shapes_that_a_copy_would_stretch(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"head\.bias has shape \(1,\), not \(3,\)"):
        notes_of(tmp_path / "x.pth", Net().state_dict() | {"head.bias": torch.ones(1)}, Net())
