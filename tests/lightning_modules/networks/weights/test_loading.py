"""What an architecture's own loading accepts is accepted; and then every parameter was set, once, to finite numbers."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from lightning_modules import InputError, WeightsError, load_network, load_vgg16
from lightning_modules.networks.built_in import vgg16
from lightning_modules.networks.weights.loading import load, loaded
from lightning_modules.networks.weights.state_dicts import read_state_dict
from tests.lightning_modules.networks.strangers import Small


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small_vit() -> nn.Module:
    return models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=3
    )


def small_densenet() -> nn.Module:
    return models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def old_densenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision's published files have it: norm.1, conv.2."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): t for name, t in state.items()}


def old_vit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As in torchvision's first files: mlp.linear_1."""
    return {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t for name, t in state.items()}


def check_loaded(made: nn.Module, expected: nn.Module) -> None:
    for name, tensor in without_counters(expected.state_dict()).items():
        assert torch.equal(made.state_dict()[name], tensor), name


def load_from(path: Path, content: Any, module: nn.Module) -> list[str]:
    torch.save(content, path)
    return load(read_state_dict(path), module, "weights of it", "Advice.")


OLD: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Any]]] = {
    "resnet without counters": (lambda: models.resnet18(num_classes=3), without_counters),
    "vgg_bn without counters": (lambda: models.vgg.make_layers([4, "M", 8], batch_norm=True), without_counters),
    "densenet's old names": (small_densenet, old_densenet),
    "vit's old names": (small_vit, old_vit),
    "mnasnet": (lambda: models.mnasnet0_5(num_classes=3), lambda state: state),
    "mnasnet as a plain dict": (lambda: models.mnasnet0_5(num_classes=3), dict),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OLD)
def test_files_that_the_architectures_own_loading_accepts(tmp_path: Path, kind: str) -> None:
    make, change = OLD[kind]
    source, target = make(), make()
    for name, buffer in source.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    load_from(tmp_path / "x.pth", change(source.state_dict()), target)
    check_loaded(target, source)


@pytest.mark.slow
def test_published_densenet_by_its_file(tmp_path: Path) -> None:
    """By the file's own name torchvision's preparation is known too."""
    module = models.densenet121(num_classes=1000)
    file = tmp_path / "densenet121-a639ec97.pth"
    torch.save(old_densenet(module.state_dict()), file)
    with warnings.catch_warnings(action="error"):
        network = load_network("torchvision.models.densenet121", file, input_size=64)
    check_loaded(network.module, module)


class Nested(nn.Module):
    """A part called as what wraps modules."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        for part in parts:
            self.add_module(part, nn.Linear(2, 2))


class TestPrefixes:
    @pytest.mark.parametrize("part", ["network", "module", "model", "net", "backbone"])
    def test_a_part_of_that_name_stays(self, tmp_path: Path, part: str) -> None:
        source, target = Nested(part), Nested(part)
        assert load_from(tmp_path / "x.pth", source.state_dict(), target) == []
        check_loaded(target, source)

    @pytest.mark.parametrize(
        "prefix",
        ["module.", "_orig_mod.", "model.", "net.", "backbone.", "network.", "module._orig_mod.", "model.net."],
    )
    def test_what_wraps_is_taken_off_and_told(self, tmp_path: Path, prefix: str) -> None:
        source, target = Nested("network", "head"), Nested("network", "head")
        state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
        assert load_from(tmp_path / "x.pth", state, target) == [f"the prefix {prefix} was removed from its names"]
        check_loaded(target, source)

    def test_two_names_that_would_become_one(self, tmp_path: Path) -> None:
        """``network.head`` beside ``head`` of a network that has but the head."""
        state = Nested("head").state_dict() | {f"network.{n}": t for n, t in Nested("head").state_dict().items()}
        target = Nested("head")
        with pytest.raises(WeightsError, match=r"surplus: network\.head\.weight, network\.head\.bias"):
            load_from(tmp_path / "x.pth", state, target)

    def test_a_checkpoint_of_a_lightning_module(self, tmp_path: Path) -> None:
        source, target = Small(), Small()
        state = {f"model.{name}": tensor for name, tensor in source.state_dict().items()}
        content = {"state_dict": state, "epoch": 3, "optimizer_states": [{"state": {}}]}
        assert load_from(tmp_path / "x.ckpt", content, target) == ["the prefix model. was removed from its names"]
        check_loaded(target, source)


class TestSeveral:
    def test_the_one_taken_is_told_and_another_can_be_named(self, tmp_path: Path) -> None:
        plain, averaged, target = Small(), Small(), Small()
        file = tmp_path / "last.ckpt"
        notes = load_from(file, {"state_dict": plain.state_dict(), "model_ema": averaged.state_dict()}, target)
        check_loaded(target, plain)
        assert re.search(r"state_dict was taken.*also holds model_ema: last\.ckpt#model_ema takes that", notes[0])
        network = load_network(f"{Small.__module__}.Small", f"{file}#model_ema", **SAID)
        check_loaded(network.module, averaged)


SAID: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": 16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_loaded_into_the_networks(tmp_path: Path, dtype: torch.dtype) -> None:
    source, target = Small(), Small()
    load_from(tmp_path / "x.pth", {name: t.to(dtype) for name, t in source.state_dict().items()}, target)
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor.to(dtype).float())


def test_safetensors(tmp_path: Path) -> None:
    source = Small()
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    network = load_network(f"{Small.__module__}.Small", tmp_path / "x.safetensors", **SAID)
    check_loaded(network.module, source)


class Twice(nn.Module):
    """Two names of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight


class TestRefused:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_no_numbers(self, tmp_path: Path, value: float) -> None:
        state = Small().state_dict()
        state["head.weight"][0, 0] = value
        with pytest.raises(WeightsError, match=r"x\.pth has NaN or infinite weights in head\.weight,"):
            load_from(tmp_path / "x.pth", state, Small())

    def test_missing_surplus_and_shapes(self, tmp_path: Path) -> None:
        state = Small().state_dict()
        state["tail.weight"] = state.pop("head.bias")
        with pytest.raises(WeightsError, match=r"missing: head\.bias; surplus: tail\.weight\. Advice\."):
            load_from(tmp_path / "x.pth", state, Small())

    def test_a_half_that_overflows(self, tmp_path: Path) -> None:
        state = Small().state_dict()
        state["head.weight"][0, 0] = 1e30
        with pytest.raises(
            WeightsError, match=r"weights in head\.weight, or such as float16, the network's, cannot hold"
        ):
            load_from(tmp_path / "x.pth", state, Small().half())

    def test_quantized_numbers(self, tmp_path: Path) -> None:
        state = Small().state_dict()
        state["head.weight"] = (state["head.weight"] * 127).to(torch.int8)
        with pytest.raises(WeightsError, match=r"head\.weight as torch\.int8, which is no weight: it may be quantized"):
            load_from(tmp_path / "x.pth", state, Small())

    def test_one_tensor_of_two_values(self, tmp_path: Path) -> None:
        state = copy.deepcopy(Twice().state_dict())
        state["second.weight"] = state["second.weight"] + 1
        with pytest.raises(WeightsError, match="are one tensor of the network, with two values"):
            load_from(tmp_path / "x.pth", state, Twice())


class TestClasses:
    def test_a_file_tells_their_number(self, tmp_path: Path) -> None:
        """So that num_classes need not be said, of torchvision's networks too."""
        source = models.squeezenet1_1(num_classes=10)
        torch.save({"state_dict": source.state_dict()}, tmp_path / "x.pth")
        with pytest.warns(UserWarning, match="made with num_classes=10, as the file has it"):
            network = load_network("torchvision.models.squeezenet1_1", tmp_path / "x.pth", input_size=64)
        assert network.class_names == [str(k) for k in range(10)]
        check_loaded(network.module, source)

    def test_a_network_whose_code_does_not_take_a_number(self, tmp_path: Path) -> None:
        torch.save(Small(7).state_dict(), tmp_path / "x.pth")
        with pytest.raises(WeightsError, match=r"head\.weight has shape \(7, 6\), not \(4, 6\)"):
            loaded(read_state_dict(tmp_path / "x.pth"), Small, (), "it", "Advice.")

    def test_a_vgg16_of_ten_classes_from_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a checkpoint or alone; torchvision's layout, narrower, so that the test is fast."""
        small = partial(vgg16.VGG16, width=1 / 32, hidden_features=8)
        monkeypatch.setattr(vgg16, "VGG16", small)
        source = small([*"abcdefghij"]).initialize(0).eval()
        names = write(tmp_path / "names.txt", "\n".join("abcdefghij") + "\n")
        images = torch.rand(1, 3, 64, 64)
        for content, said in (({"state_dict": source.state_dict(), "epoch": 5}, names), (source.state_dict(), None)):
            torch.save(content, tmp_path / "x.pth")
            with pytest.warns(UserWarning, match="made with num_classes=10, as the file has it"):
                network = load_vgg16(tmp_path / "x.pth", class_names=said, input_size=64)
            assert network.class_names == (list("abcdefghij") if said else [str(k) for k in range(10)])
            torch.testing.assert_close(network(images), source(network.normalized(images)))
        with pytest.raises(InputError, match="has 10 outputs, but 2 class_names"):
            network.module.network(class_names=["a", "b"])


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_googlenet_that_does_not_say_how_its_images_are_normalized(tmp_path: Path) -> None:
    """torchvision's own weights take images that the network normalizes once more; those of others may not."""
    torch.save(models.googlenet(aux_logits=False, init_weights=False).state_dict(), tmp_path / "mine.pth")
    named: dict[str, Any] = {
        "class_path": "torchvision.models.googlenet",
        "init_args": {"init_weights": False, "aux_logits": False},
    }
    with pytest.warns(UserWarning, match=r"can normalize its images a second time.*transform_input: true"):
        network = load_network(named, tmp_path / "mine.pth", input_size=64)
    assert not network.module.transform_input
