from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import VGG16_Weights

from datamodules import ShapesDataModule, write_shapes
from datamodules.batch import with_pixels
from lightning_modules import VGG16, Network, WeightsError, fold_batch_norm, load_vgg16, save_vgg16
from lightning_modules.networks.built_in import vgg16
from lightning_modules.networks.built_in.vgg16 import EMBEDDED_WEIGHTS

NAMES = ["cat", "dog", "eel"]


def small_network(batch_norm: bool = False) -> VGG16:
    options = {"width": 1 / 32, "hidden_features": 8, "input_size": 32, "resize_size": 40}
    return VGG16(NAMES, batch_norm=batch_norm, **options).initialize(0)


@pytest.fixture
def small_imagenet(monkeypatch: pytest.MonkeyPatch) -> type:
    """Makes the layout that is expected of bare state dicts a small one, so that the tests of errors are fast."""

    class Small(VGG16):
        def __init__(self, class_names: list[str], **options: object) -> None:
            small = {"width": 1 / 32, "hidden_features": 8, "input_size": 32}
            super().__init__(class_names, **{**small, **options})

    monkeypatch.setattr(vgg16, "VGG16", Small)
    return Small


class TestNetwork:
    def test_random_is_of_full_size_frozen_and_channels_last(self, small_imagenet: type) -> None:
        network = load_vgg16("random")
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
        assert network.module.features[2].weight.is_contiguous(memory_format=torch.channels_last)
        assert len(network.class_names) == 1000
        with torch.device("meta"):
            assert sum(p.numel() for p in VGG16(NAMES).parameters()) == 134_272_835  # of three classes

    def test_weights_follow_from_the_seed(self) -> None:
        first = [small.state_dict() for small in (small_network(), small_network())]
        assert all(torch.equal(a, b) for a, b in zip(first[0].values(), first[1].values()))
        other = VGG16(**small_network().description()).initialize(1)
        assert not torch.equal(other.features[0].weight, first[0]["features.0.weight"])

    def test_folding_batch_norms_keeps_the_output(self) -> None:
        network = small_network(batch_norm=True)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
        images = torch.rand(4, 3, 32, 32)
        folded = fold_batch_norm(network.eval()).eval()
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        assert isinstance(folded.features[29], nn.ReLU)
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-5)

    def test_input_size(self) -> None:
        with pytest.raises(ValueError, match="at least 32 pixels, got 16"):
            VGG16(NAMES, input_size=16)


class TestEmbeddedModel:
    def test_carries_what_it_is(self, shapes_network: Network) -> None:
        assert shapes_network.class_names[:3] == ["arrow", "circle", "crescent"]
        assert (shapes_network.input_size, shapes_network.resize_size) == (112, 128)
        assert EMBEDDED_WEIGHTS.stat().st_size <= 6_000_000

    @pytest.mark.slow
    def test_is_accurate_on_images_of_another_seed(self, shapes_network: Network, tmp_path: Path) -> None:
        """Neither trained on nor used to choose the best epoch."""
        write_shapes(tmp_path / "new", n_train=0, n_val=160, n_pairs=0, seed=1)
        data = ShapesDataModule(str(tmp_path / "new"), 0, 160, 0, seed=1, num_workers=0)
        data.setup("test")
        batches = map(with_pixels, data.test_dataloader())
        right = [shapes_network(batch["image"]).argmax(1) == batch["label"] for batch in batches]
        assert torch.cat(right).float().mean() >= 0.97


class TestFiles:
    @pytest.mark.slow
    def test_torchvisions_layout(self, tmp_path: Path) -> None:
        """A file with the layout of the real weights takes the path that they take; normalization lies inside."""
        theirs = torchvision.models.vgg16(init_weights=False).eval()
        torch.save(theirs.state_dict(), tmp_path / "vgg16.pth")
        network = load_vgg16(tmp_path / "vgg16.pth")
        preset = VGG16_Weights.IMAGENET1K_V1
        assert network.class_names == preset.meta["categories"]
        images = torch.rand(2, 3, 224, 224)
        mean_and_std = preset.transforms().mean, preset.transforms().std
        with torch.no_grad():
            expected = theirs(torchvision.transforms.functional.normalize(images, *mean_and_std))
            torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)

    def test_ours(self, tmp_path: Path) -> None:
        network = small_network().network().freeze()
        save_vgg16(network, tmp_path / "small.pth")
        loaded = load_vgg16(tmp_path / "small.pth")
        assert loaded.module.description() == network.module.description()
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(loaded(images), network(images))

    def test_batch_norms_are_folded_on_loading(self, tmp_path: Path) -> None:
        network = small_network(batch_norm=True).network().eval()
        save_vgg16(network, tmp_path / "small.pth")
        loaded = load_vgg16(tmp_path / "small.pth")
        assert not loaded.module.batch_norm
        images = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(loaded(images), network(images))


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


class TestRefusals:
    def refused(self, path: Path | str, message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            load_vgg16(path)

    def test_unknown_name(self) -> None:
        self.refused("IMAGENET1K_V2", "no such file.*IMAGENET1K_V1.*shapes.*random")

    def test_weights_without_a_classifier(self) -> None:
        self.refused("IMAGENET1K_FEATURES", "classifier is NaN.*Use IMAGENET1K_V1")

    def test_file_of_those(self, tmp_path: Path, small_imagenet: type) -> None:
        state = small_imagenet(vgg16.imagenet_class_names()).state_dict()
        state["classifier.6.weight"].fill_(torch.nan)
        torch.save(state, tmp_path / "features.pth")
        self.refused(tmp_path / "features.pth", r"features\.pth has NaN.*classifier\.6\.weight.*IMAGENET1K_FEATURES")

    def test_pickle_with_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        torch.save({"features.0.weight": Evil()}, "evil.pth")
        self.refused("evil.pth", "not a file of tensors alone.*not executed")
        Path("plain.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
        self.refused("plain.pth", "not executed")
        assert not Path("executed").exists()

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 a broken archive", bytes(1000)])
    def test_no_pytorch_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pth").write_bytes(content)
        self.refused(tmp_path / "x.pth", r"x\.pth is not a")

    def test_truncated_file(self, tmp_path: Path) -> None:
        save_vgg16(small_network().network(), tmp_path / "x.pth")
        content = (tmp_path / "x.pth").read_bytes()
        (tmp_path / "x.pth").write_bytes(content[: len(content) // 2])
        self.refused(tmp_path / "x.pth", "not a file of PyTorch or safetensors, or is damaged")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "holds a list, not a state dict"),
            ({}, "is not a state dict"),
            ({"epoch": 3}, "is not a state dict"),
            ({"state_dict": {}, "epoch": 3}, "is not a state dict.*holds state_dict, epoch"),
            ({"vgg16": {"class_names": NAMES, "depth": 19}, "state_dict": {"x": torch.ones(1)}}, "be built.*depth"),
        ],
    )
    def test_no_state_dict(self, tmp_path: Path, content: object, message: str) -> None:
        torch.save(content, tmp_path / "x.pth")
        self.refused(tmp_path / "x.pth", message)

    def test_missing_surplus_and_misshapen(self, tmp_path: Path, small_imagenet: type) -> None:
        state = small_imagenet(vgg16.imagenet_class_names()).state_dict()
        del state["features.0.bias"]
        state["features.1.weight"] = torch.zeros(1)
        state["classifier.6.weight"] = torch.zeros(10, 8)
        torch.save(state, tmp_path / "x.pth")
        self.refused(
            tmp_path / "x.pth",
            r"missing: features\.0\.bias; surplus: features\.1\.weight; "
            r"classifier\.6\.weight has shape \(10, 8\), not \(1000, 8\)",
        )


class TestDownload:
    """torchvision's own loading code, on a file that has the layout of the real one and a file:// address."""

    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_imagenet: type) -> Path:
        torch.save(small_imagenet(vgg16.imagenet_class_names()).state_dict(), tmp_path / "vgg16.pth")
        digest = hashlib.sha256((tmp_path / "vgg16.pth").read_bytes()).hexdigest()
        source = tmp_path / f"vgg16-{digest[:8]}.pth"
        (tmp_path / "vgg16.pth").rename(source)
        monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
        self.point_at(source, monkeypatch)
        return source

    def point_at(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(VGG16_Weights.IMAGENET1K_V1), "url", property(lambda _: source.as_uri()))

    def test_once(self, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert load_vgg16("IMAGENET1K_V1").class_names[281] == "tabby"
        assert "100%" in capfd.readouterr().err
        source.unlink()
        load_vgg16("IMAGENET1K_V1")
        assert "100%" not in capfd.readouterr().err

    def test_no_network(self, source: Path) -> None:
        source.unlink()
        with pytest.raises(
            WeightsError, match=r"could not be downloaded from file.*put it at .*hub.checkpoints.vgg16-"
        ):
            load_vgg16("IMAGENET1K_V1")

    def test_wrong_hash_of_the_download(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = source.rename(source.with_name("vgg16-00000000.pth"))
        self.point_at(wrong, monkeypatch)
        with pytest.raises(WeightsError, match="invalid hash value"):
            load_vgg16("IMAGENET1K_V1")

    def test_damage_after_the_download(self, source: Path) -> None:
        load_vgg16("IMAGENET1K_V1")
        cached = Path(torch.hub.get_dir(), "checkpoints", source.name)
        cached.write_bytes(cached.read_bytes()[:-1] + b"x")
        with pytest.raises(WeightsError, match=r"damaged.*SHA-256 begins with.*Delete it"):
            load_vgg16("IMAGENET1K_V1")


def test_a_file_keeps_how_images_were_resized(tmp_path: Path) -> None:
    small = VGG16(["cat", "dog"], width=0.05, hidden_features=8, input_size=32, interpolation="bicubic")
    save_vgg16(small.initialize(0).eval().network(), tmp_path / "x.pth")
    assert load_vgg16(tmp_path / "x.pth").interpolation == "bicubic"
