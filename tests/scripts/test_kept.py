"""Maps and attacked images that a run keeps: there where their rows are, whatever happened on the way."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import evaluate_attribution
import evaluate_robustness
import numpy as np
import pytest
from PIL import Image

from lightning_modules import InputError, read_adversarial, read_maps
from lightning_modules.results.adversarial import picture_file
from lightning_modules.results.storage import read_rows

from .blows import parts_of, wait_for
from .processes import Run

pytestmark = pytest.mark.slow

MAPS = ["--model.methods", "[GradCAM, Saliency]", "--model.save_maps", "true"]
ATTACKED = ["--model.eps", "[0.5/255, 4/255]", "--model.save_adversarial", "true", "--model.methods", "[]"]


@pytest.fixture(scope="module")
def images(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 images, two of which are none."""
    folder = tmp_path_factory.mktemp("images") / "val"
    for k, path in enumerate(sorted((shapes / "val").glob("*/*"))):
        if k % 3 == 0:
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.parent.name)
    (folder / "star" / "broken.png").write_bytes(b"none")
    (folder / "ring" / "broken.png").touch()
    return folder


def options(images: Path) -> list[object]:
    common: list[object] = ["--data.root", images, "--data.num_workers", 0, "--trainer.accelerator", "cpu"]
    return [*common, "--model.weights", "shapes", "--model.n_figures", 0]


def good_paths(run: Path) -> list[str]:
    rows = read_rows(run / "results").to_pandas()
    assert (rows["status"] == "failed").sum() == 2
    return sorted(rows.loc[rows["status"] == "ok", "path"].unique())


def assert_same_maps(run: Path, other: Path) -> None:
    """As near as float16 tells, since convolutions round differently in batches of other sizes."""
    ours, theirs = read_maps(run), read_maps(other)
    assert list(ours) == list(theirs) == good_paths(run)
    for path in ours:
        for name, attribution in theirs[path].items():
            found = ours[path][name]
            assert found.shape == attribution.shape
            np.testing.assert_allclose(found, attribution, rtol=2**-10, atol=2**-10 * float(attribution.abs().max()))


def stems(folder: Path) -> list[str]:
    """Of what is whole: a process that was killed while it wrote leaves a file that begins with a dot."""
    return sorted(file.stem for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def test_maps_of_a_run_that_is_continued(call: Callable, images: Path, tmp_path: Path, capsys: Any) -> None:
    call(evaluate_attribution.main, *options(images), *MAPS, "--out", "whole")
    said = capsys.readouterr().out
    assert "model.save_maps stores up to 75.4 kB of each image, 2.19 MB of 29; the disk has" in said
    parts = [*options(images), *MAPS, "--out", "parts"]
    call(evaluate_attribution.main, *parts, "--data.batch_size", 5, "--trainer.limit_test_batches", 2)
    assert "754 kB of 10; the disk has" in capsys.readouterr().out
    run = tmp_path / "parts"
    (of_rows,) = stems(run / "results")
    # What a run leaves that was killed before it wrote the rows.
    shutil.copy(run / f"maps/{of_rows}.arrow", run / "maps/part-1-0000.arrow")
    (run / "maps/.part-2-0000.arrow.tmp").touch()
    call(evaluate_attribution.main, *parts)
    assert "1.43 MB of 19; the disk has" in capsys.readouterr().out
    assert stems(run / "maps") == stems(run / "results")
    assert_same_maps(run, tmp_path / "whole")
    call(evaluate_attribution.main, *options(images), "--model.methods", "[GradCAM]", "--out", "parts", "--overwrite")
    assert not (run / "maps").exists()


def test_attacked_images_of_a_run_that_is_continued(call: Callable, images: Path, tmp_path: Path) -> None:
    args = [*options(images), *ATTACKED]
    call(evaluate_robustness.main, *args, "--out", "whole")
    call(evaluate_robustness.main, *args, "--out", "parts", "--data.batch_size", 5, "--trainer.limit_test_batches", 2)
    call(evaluate_robustness.main, *args, "--out", "parts")
    whole, parts = (read_adversarial(tmp_path / name) for name in ("whole", "parts"))
    assert list(whole) == list(parts) == good_paths(tmp_path / "parts")
    for name in ("whole", "parts"):
        run, rows = tmp_path / name, read_rows(tmp_path / name / "results").to_pandas().set_index(["path", "eps"])
        for path, of_image in read_adversarial(run).items():
            assert list(of_image) == ["0", "0.5/255", "4/255"]
            for eps, value in (("0.5/255", 0.5 / 255), ("4/255", 4 / 255)):
                linf = (of_image[eps].double() - of_image["0"].double()).abs().max()
                assert float(linf) == rows.loc[(path, value), "linf"]
                with Image.open(run / picture_file(path, value)) as image:
                    pixels = np.asarray(image)
                expected = (of_image[eps].numpy() * np.float32(255)).round().transpose(1, 2, 0)
                np.testing.assert_array_equal(pixels, expected)
    assert len(list((tmp_path / "parts/adversarial").rglob("*.png"))) == 2 * 27
    assert (tmp_path / "parts/adversarial").is_dir()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(
    call: Callable, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(2_000_000))
    with pytest.raises(InputError, match=r"2\.19 MB of 29; the disk of run has 2 MB left\. Make room, choose fewer"):
        call(evaluate_attribution.main, *options(images), *MAPS, "--out", "run")
    assert not (tmp_path / "run/results").exists()
    call(evaluate_attribution.main, *options(images), *MAPS, "--data.sample", 20, "--out", "run")
    assert len(read_maps(tmp_path / "run")) >= 18


@pytest.mark.process
def test_two_processes_that_are_killed_and_one_that_goes_on(call: Callable, images: Path, tmp_path: Path) -> None:
    args = [*options(images), *MAPS, "--data.batch_size", 2, "--out", "run"]
    killed = Run("evaluate_attribution", [*args, "--trainer.devices", 2], tmp_path, world=2, rows_per_part=8)
    run = tmp_path / "run"
    wait_for(lambda: len(parts_of(tmp_path)) >= 2 or killed.has_ended(), killed)
    assert not killed.has_ended(), killed.output()
    killed.kill(signal.SIGKILL)
    kept = set(stems(run / "results"))
    call(evaluate_attribution.main, *args)
    assert kept < set(stems(run / "results"))
    assert stems(run / "maps") == stems(run / "results")
    call(evaluate_attribution.main, *args[:-1], "whole")
    assert_same_maps(run, tmp_path / "whole")
