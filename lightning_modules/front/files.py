"""What is made of files in a line: pixels, predictions, maps, attacked images; and images of classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datamodules import ClassIndexDataModule, ImageSourcesDataModule
from datamodules.batch import Batch, pixels_of, with_pixels
from datamodules.image_sources import ImageSource
from datamodules.loader import default_workers
from lightning_modules.activation_maximization import ActivationMaximizationModule
from lightning_modules.attacks.base import Attack
from lightning_modules.attacks.budgets import format_eps
from lightning_modules.attribution import AttributionModule
from lightning_modules.classifier import PredictionModule
from lightning_modules.errors import InputError
from lightning_modules.evaluation import refuse_rounded_weights
from lightning_modules.figures.attacks import AttackFigures
from lightning_modules.figures.attribution import attribution_figure
from lightning_modules.figures.saving import Drawing
from lightning_modules.front.results import Attacked, ClassImages, Explained, Predictions, Results
from lightning_modules.host import on_host
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.networks.network import Network
from lightning_modules.results.storage import Row
from lightning_modules.robustness import RobustnessModule

Files = ImageSource | Sequence[ImageSource]
"""A file, a folder, an address, an image, its levels; or a list of them."""

MOST_FILES = 1_000
"""Of more, maps and pixels do not belong into the memory, but into a run."""

SECONDS = 3
"""What takes longer has a progress bar."""


def preprocess_files(network: Network, files: Files, **options: Any) -> Tensor:
    """Pixels of files as the network sees them: ``(N, 3, H, W)`` in [0, 1], where the network is.

    Args:
        network: Its sizes and interpolation are taken.
        files: Files, folders, addresses, images, arrays.
        **options: ``exif_orientation``, ``num_workers``.

    Raises:
        InputError: If one cannot be read: of the pixels alone nobody could tell which.
    """
    batches = list(_batches(network, files, 16, options))
    if failed := [failure for batch in batches for failure in batch["failed"]]:
        raise InputError("; ".join(f"{path}: {error}" for path, error in failed[:5]))
    return torch.cat([pixels_of(batch["image"]) for batch in batches])


@torch.no_grad()
def predict_files(
    network: Network, files: Files, top_k: int = 5, *, batch_size: int = 16, **options: Any
) -> Predictions:
    """The most probable classes of images.

    Args:
        network: What is asked.
        files: Files, folders, addresses, images, arrays.
        top_k: How many classes the table shows of each.
        batch_size: Images in a pass.
        **options: ``exif_orientation``, ``num_workers``.
    """
    found, module = Predictions(network.class_names, top_k), PredictionModule(network)
    for batch in _batches(network, files, batch_size, options, are_kept=False):
        found.add(module.predict_step(with_pixels(batch), 0))
    return found


class _Explaining(AttributionModule):
    """Keeps what a run drops: of each batch the pixels, the logits and the maps."""

    kept: list[tuple[Tensor, Tensor, dict[str, Tensor]]]

    def draw(self, forward_pass: Any, batch: Batch, maps: Any, images: Sequence[Row]) -> dict[int, Figure | Drawing]:
        self.kept.append(on_host((forward_pass.images.detach(), forward_pass.logits, dict(maps))))
        return super().draw(forward_pass, batch, maps, images)


class _Attacking(RobustnessModule):
    """The same of the clean images and of those under each budget."""

    kept: list[list[tuple[Tensor, Tensor, dict[str, Tensor]]]]

    def draw_attacked(self, drawn: AttackFigures, shown: Sequence[int]) -> dict[int, Figure | Drawing]:
        self.kept.append(on_host(list(zip(drawn.images, drawn.logits, map(dict, drawn.maps)))))
        return super().draw_attacked(drawn, shown)


def explain_files(
    network: Network,
    files: Files,
    methods: Sequence[AttributionMethod] | None = None,
    target: str | int | Sequence[str | int] | None = None,
    *,
    metrics: Sequence[AttributionMetric] = (),
    batch_size: int = 16,
    **options: Any,
) -> Explained:
    """Maps of images, as ``evaluate_attribution.py`` computes and draws them, to the bit for the same batches.

    Args:
        network: What is explained.
        files: Files, folders, addresses, images, arrays.
        methods: None = those of the script.
        target: The class to explain by name, index or WordNet id; several of them, each of every image, in one figure.
            None = the predicted class.
        metrics: Scores of the maps, which are in the rows.
        batch_size: Images in a pass.
        **options: ``exif_orientation``, ``num_workers``.
    """
    several = isinstance(target, Sequence) and not isinstance(target, str)
    targets = list(cast(Sequence[str | int], target)) if several else ["predicted" if target is None else target]
    if not targets or "label" in targets:
        raise InputError(
            "target should name a class, or several, or be None for the predicted one: there are no labels."
        )
    make: dict[str, Any] = {"methods": methods, "metrics": list(metrics), "network": network}
    modules = [_Explaining(target=each, **make) for each in targets]  # type: ignore[arg-type]
    found = Explained()
    _evaluate(found, modules, network, files, batch_size, options)
    of_targets = [_joined(module.kept) for module in modules if module.kept]
    if of_targets:
        found.images, found.logits, _ = of_targets[0]
        found.predictions = [network.class_names[k] for k in found.logits.argmax(1).tolist()]
        for name in of_targets[0][2]:
            maps = [of_target[name] for _, _, of_target in of_targets]
            found.maps[name] = torch.stack(maps, 1) if several else maps[0]
    return found


def attack_files(
    network: Network,
    files: Files,
    attack: Attack | None = None,
    eps: str | float | Sequence[str | float] = "4/255",
    methods: Sequence[AttributionMethod] | None = None,
    target: str | int | None = None,
    *,
    batch_size: int = 16,
    **options: Any,
) -> Attacked:
    """Attacked images and their maps, as ``evaluate_robustness.py`` computes and draws them, to the bit.

    Args:
        network: What is attacked.
        files: Files, folders, addresses, images, arrays.
        attack: None = FGSM.
        eps: A budget, or several, in pixel units.
        methods: Whose maps are compared before and after. None = Grad-CAM.
        target: The class to lead to, of a targeted attack; None = the least likely one. Other attacks lead away from
            the predicted class.
        batch_size: Images in a pass.
        **options: ``exif_orientation``, ``num_workers``.
    """
    sweep = [eps] if isinstance(eps, str | float | int) else list(eps)
    if target is None and not (attack and attack.targeted):
        target = "predicted"
    module = _Attacking(eps=sweep, attack=attack, methods=methods, target=target, network=network)  # type: ignore[arg-type]
    found = Attacked()
    _evaluate(found, [module], network, files, batch_size, options)
    for name, parts in zip(["0", *map(format_eps, module.eps)], zip(*module.kept)):
        found.adversarial[name], found.logits[name], found.maps[name] = _joined(parts)
    found.images = found.adversarial.pop("0", found.images)
    return found


def class_images(network: Network, classes: Any, *, n_images: int = 1, seed: int = 0, **options: Any) -> ClassImages:
    """Images that classes or channels respond to, as ``maximize_activation.py`` makes them, to the bit.

    Args:
        network: What responds.
        classes: Names, WordNet ids or indices of classes, channels (``features.28:17``), or a list of them.
        n_images: Images of each.
        seed: Of the first image of each.
        **options: What :class:`ActivationMaximizationModule` takes: ``steps``, ``transforms``, ``judges``, ...
    """
    module = ActivationMaximizationModule(network=network, n_figures=10**6, **options)  # type: ignore[arg-type]
    refuse_rounded_weights(network)
    names, channels = network.class_names, network.layer_channels
    data = ClassIndexDataModule(classes, n_images, seed, class_names=names, channels=channels)
    module.check_data(data)
    data.setup("test")
    found = ClassImages()
    with tqdm(total=len(data.items) * len(module.recipes), unit="image", delay=SECONDS) as bar, torch.no_grad():
        for batch in data.test_dataloader():
            outputs = module.test_step(cast(Any, batch), 0)
            found.rows += outputs["rows"]
            for row in outputs["rows"]:
                if row["status"] == "ok":
                    found.images.append(outputs["images"][row["image"]])
                    found.paths.append(row["image"])
            bar.update(len(outputs["rows"]))
            drawings = {batch["path"][i]: drawing for i, drawing in outputs["figures"].items()}
            found.drawings |= {i: drawings[path] for i, path in enumerate(found.paths) if path in drawings}
    return found


def _evaluate(
    found: Results,
    modules: Sequence[_Explaining] | Sequence[_Attacking],
    network: Network,
    files: Files,
    batch_size: int,
    options: dict[str, Any],
) -> None:
    """Adds the rows and the figures of all images, those of several modules in one figure."""
    for module in modules:
        module.kept = []
    for batch in _batches(network, files, batch_size, options | {"n_originals": MOST_FILES}):
        drawings = []
        for module in modules:
            with torch.no_grad():  # not inference mode, whose tensors nobody could differentiate through later
                outputs = module.test_step(batch, 0)
            failed = found.failed
            found.rows += [row for row in outputs["rows"] if (row["path"], row["error"]) not in failed]
            drawings.append(outputs["figures"])
        for i, drawing in drawings[0].items():
            same = [of_module[i] for of_module in drawings]
            found.drawings[len(found.paths) + i] = drawing if len(same) == 1 else _beside(same, modules)
        found.paths += batch["path"]


def _joined(parts: Sequence[tuple[Tensor, Tensor, dict[str, Tensor]]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The pixels, the logits and the maps of all batches."""
    images, logits, maps = zip(*parts)
    return torch.cat(images), torch.cat(logits), {name: torch.cat([of[name] for of in maps]) for name in maps[0]}


def _beside(drawings: Sequence[Any], modules: Sequence[Any]) -> Any:
    """What draws one figure of the maps of several targets: those of a method beside each other."""

    def draw() -> Figure:
        names = [m.network.class_names[m.target] if isinstance(m.target, int) else m.target for m in modules]
        pixels, view, first, top = drawings[0].args
        maps = {f"{name} ({of})": d.args[2][name] for name in first for of, d in zip(names, drawings)}
        title, subtitle = (drawings[0].keywords[name] for name in ("title", "subtitle"))
        subtitle = f"{subtitle.partition('   maps explain')[0]}   maps explain: {', '.join(map(str, names))}"
        return attribution_figure(pixels, view, maps, top, title=title, subtitle=subtitle)

    return draw


def _batches(
    network: Network, files: Files, batch_size: int, options: dict[str, Any], are_kept: bool = True
) -> Iterator[Batch]:
    """Batches of files on the device of the network, with a progress bar where they take some seconds.

    Raises:
        InputError: If there are too many, or none.
    """
    refuse_rounded_weights(network)
    is_one = isinstance(files, str | bytes | os.PathLike | Image.Image) or getattr(files, "ndim", 4) < 4
    sources: Any = [files] if is_one else list(cast(Sequence[ImageSource], files))
    options = {"num_workers": default_workers(), "is_relative": are_kept, **network.preprocessing, **options}
    data = ImageSourcesDataModule(sources, batch_size, **options)
    n, device = len(data.sources), next(network.parameters()).device
    if are_kept and n > MOST_FILES:
        raise InputError(
            f"There are {n:,} images; what comes of more than {MOST_FILES:,} may not fit in the memory. They belong "
            "into a run: scripts/evaluate_attribution.py or evaluate_robustness.py, --data.root."
        )
    with tqdm(total=n, unit="image", delay=SECONDS) as bar:
        for batch in data.predict_dataloader():
            yield cast(Batch, {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()})
            bar.update(len(batch["path"]) + len(batch["failed"]))
