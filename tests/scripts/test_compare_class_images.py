"""Class images of ours beside the peers'. Most tests have a peer of their own, since lucent and Horama take long."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError

import compare_class_images
import numpy as np
import pytest
import torch
from benchmarks.class_image_peers import PEERS, Peer, magnitudes, spectrum_of
from PIL import Image
from torch import Tensor

from datamodules import Preprocess
from lightning_modules import Network
from lightning_modules.errors import InputError
from lightning_modules.results.rows.parts import read_rows

JUDGE = "{network: vgg16, weights: shapes, input_size: 64, name: other}"
OPTIONS = (
    *("--model.weights", "shapes", "--model.steps", 4, "--model.n_fresh", 1, "--model.judges", f"[{JUDGE}]"),
    *("--data.num_workers", 0, "--trainer.accelerator", "cpu", "--out", "run"),
)
needs_horama = pytest.mark.skipif(not PEERS["horama_maco"].is_there(), reason="needs Horama")

pytestmark = pytest.mark.filterwarnings("ignore:model.judges")


def descent(network: Network, target: int, steps: int, spectrum: Tensor | None) -> Tensor:
    """A few steps on pixels, by the sign."""
    images = torch.rand(1, 3, 48, 48, requires_grad=True)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(network(images)[0, target], images)
        images = (images + gradient.sign() / 50).clamp(0, 1).detach().requires_grad_()
    return images


@pytest.fixture(autouse=True)
def own_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "own", Peer("Own", "torch", ("torch",), 3, descent))


@pytest.fixture
def rows(call: Callable[..., Any], tmp_path: Path) -> list[dict]:
    call(compare_class_images.main, *OPTIONS, "--data.classes", "[1, 7]", "--model.peers", "[own]")
    return read_rows(tmp_path / "run/results").to_pylist()


@pytest.mark.slow
def test_a_peer_has_the_same_classes_judges_and_time(rows: list[dict], tmp_path: Path) -> None:
    assert [(row["target"], row["variant"], row["status"]) for row in rows] == [
        (k, name, "ok") for k in (1, 7) for name in ("Own", "VGG Lens")
    ]
    assert all(row["judge.other.rank"] >= 1 for row in rows)
    for peer, ours in (rows[:2], rows[2:]):
        assert ours["steps"] == 4
        assert 1 <= peer["steps"] <= 400
        assert peer["cpu_seconds"] < 3 * ours["cpu_seconds"]
        assert np.asarray(Image.open(tmp_path / "run/images" / peer["image"])).shape == (112, 112, 3)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert list(summary["variants"]) == ["VGG Lens", "Own"]
    assert summary["produced_by"]["peers"] == {"torch": version("torch")}
    assert (tmp_path / "run/figures/comparison.png").is_file()


@pytest.mark.slow
def test_a_continued_run_with_the_steps_of_the_peer(call: Callable[..., Any], tmp_path: Path) -> None:
    options = (*OPTIONS, "--data.classes", "[1, 7]", "--model.peers", "[own]", "--model.own_steps", "true")
    call(compare_class_images.main, *options, "--data.batch_size", 1, "--trainer.limit_test_batches", 1)
    call(compare_class_images.main, *options)
    rows = read_rows(tmp_path / "run/results").to_pylist()
    assert len(rows) == 6
    assert [row["steps"] for row in rows if row["variant"] == "Own, 3 steps"] == [3, 3]
    assert len(list((tmp_path / "run/images").iterdir())) == 6


def test_chance_follows_from_the_seed_and_is_nobody_elses(shapes_network: Network) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    one, same, other = (PEERS["own"].image(shapes_network, 1, 1, seed, None) for seed in (5, 5, 2**62))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (1, 3, 112, 112)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.peers", "[lucid]"), "model.peers: no peer is called 'lucid'; there are lucent, horama_maco, "),
        (("--model.peers", "[gone]"), r"Gone cannot be had: No module named 'nowhere'. pip install .*'.\[bench\]'"),
        (("--model.peers", "[old]"), "Old cannot be had: .*no attribute 'gone'"),
        (("--model.peers", "[broken]"), r"Broken \(torch .*\) fails: this network is too small."),
        (("--model.ablation", "true"), "model.ablation must be false where peers are compared"),
        (("--model.images_per_pass", "2"), "model.images_per_pass must be 1 where"),
        (("--model.judges", "[]"), "model.judges: name at least one"),
        (("--data.classes", "[1, 'features.28:3']"), "compared on classes; features.28:3 is a channel"),
    ],
    ids=["unknown", "missing", "another version", "failing", "ablation", "passes", "no judge", "channel"],
)
def test_refused(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    def fail(*args: object) -> Tensor:
        raise RuntimeError("this network is too small\nat line 3")

    # The package is there, but not what it needs.
    (tmp_path / "half").mkdir()
    (tmp_path / "half/__init__.py").touch()
    (tmp_path / "half/inner.py").write_text("import nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PEERS, "gone", Peer("Gone", "torch", ("half.inner:name",), 3, descent))
    monkeypatch.setitem(PEERS, "old", Peer("Old", "torch", ("torch:gone",), 3, descent))
    monkeypatch.setitem(PEERS, "broken", Peer("Broken", "torch", ("torch",), 3, fail))
    with pytest.raises(InputError, match=message):
        call(compare_class_images.main, *OPTIONS, "--data.classes", "[1]", "--model.peers", "[own]", *options)
    assert not (tmp_path / "run/images").exists()


class TestSpectrum:
    @needs_horama
    def test_magnitudes_of_a_grey_wave(self) -> None:
        """Grey is along the first of the uncorrelated colours, nearly; the mean has no part."""
        wave = torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16).expand(1, 3, 16, 16) * 0.2
        found = magnitudes(0.5 + wave)
        assert found.shape == (1, 3, 16, 9)
        torch.testing.assert_close(found, magnitudes(0.3 + wave), atol=1e-3, rtol=0)
        assert (found[0].amax(0) > 1e-3).nonzero().tolist() == [[0, 3]]
        assert found[0, 0, 0, 3] > 10 * found[0, 1:, 0, 3].max()

    @needs_horama
    def test_of_the_photos_that_can_be_read(self, tmp_path: Path) -> None:
        for k, size in enumerate(((600, 520), (20, 30))):
            pixels = np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        (tmp_path / "broken.jpg").touch()
        spectrum = spectrum_of(str(tmp_path))
        assert (spectrum.n_photos, spectrum.n_failed) == (2, 1)
        assert spectrum.magnitudes.shape == (3, 512, 257)
        images = [Preprocess(512, 512)(Image.open(tmp_path / f"{k}.png")) for k in (0, 1)]
        torch.testing.assert_close(spectrum.magnitudes, magnitudes(torch.stack(images)).mean(0).float())
        (tmp_path / "0.png").unlink()
        (tmp_path / "1.png").unlink()
        with pytest.raises(InputError, match=r"model\.photos: none of the 1 photos in .* can be read"):
            spectrum_of(str(tmp_path))


@needs_horama
def test_magnitudes_that_cannot_be_downloaded(
    shapes_network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_download(*args: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("horama.maco_fv.download_url", no_download)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"Horama MACO, whole .* fails: .*no route to host.* yours: model\.photos\."):
        PEERS["horama_maco_whole"].image(shapes_network, 3, 1, 0, None)


@pytest.fixture
def spectrum(shapes: Path, tmp_path: Path) -> Tensor:
    """Of two photos, taken under inference mode, as Lightning tests."""
    (tmp_path / "photos").mkdir()
    for photo in sorted((shapes / "val").glob("*/*"))[:2]:
        (tmp_path / "photos" / photo.name).write_bytes(photo.read_bytes())
    with torch.inference_mode():
        return spectrum_of(str(tmp_path / "photos")).magnitudes


@needs_horama
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["horama_maco_whole", "horama_fourier_whole"])
def test_horama(spectrum: Tensor, shapes_network: Network, kind: str) -> None:
    few, more = (PEERS[kind].image(shapes_network, 3, steps, 0, spectrum) for steps in (1, 12))
    assert few.shape == more.shape == (1, 3, 112, 112)
    assert 0 <= float(more.min()) < float(more.max()) <= 1
    with torch.no_grad():
        assert shapes_network(more)[0, 3] > shapes_network(few)[0, 3]


@needs_horama
@pytest.mark.slow
def test_horama_by_default_is_the_middle_of_a_large_image(
    spectrum: Tensor, shapes_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []

    def maco(objective: Callable, **options: object) -> tuple[Tensor, None]:
        asked.append(options)
        image = torch.zeros(3, 1280, 1280)
        image[:, 464:816, 464:816] = 1
        return image, None

    monkeypatch.setattr("horama.maco", maco)
    image = PEERS["horama_maco"].image(shapes_network, 3, 7, 0, spectrum)
    torch.testing.assert_close(image, torch.ones(1, 3, 112, 112))
    assert asked == [
        {
            "values_range": (0.0, 1.0),
            "noise": 0.01,
            "device": "cpu",
            "total_steps": 7,
            "model_input_size": 112,
            "image_size": 1280,
        }
    ]


@pytest.mark.slow
@pytest.mark.skipif(not PEERS["lucent"].is_there(), reason="needs lucent and the kornia that it takes")
def test_lucent(shapes_network: Network) -> None:
    few, more = (PEERS["lucent"].image(shapes_network, 3, steps, 0, None) for steps in (1, 12))
    assert few.shape == more.shape == (1, 3, 112, 112)
    with torch.no_grad():
        assert shapes_network(more)[0, 3] > shapes_network(few)[0, 3]
