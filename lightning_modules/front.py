"""From files to maps, attacks and figures in a line, for notebooks and scripts: by the modules that runs have.

Nothing is written. What belongs into thousands of rows belongs into a run, see ``scripts``.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
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
from lightning_modules.attacks.budgets import format_eps, parse_eps
from lightning_modules.attribution import AttributionModule
from lightning_modules.classifier import Prediction, PredictionModule
from lightning_modules.errors import InputError
from lightning_modules.evaluation import EvaluationModule, refuse_rounded_weights
from lightning_modules.figures.attacks import AttackFigures
from lightning_modules.figures.attribution import attribution_figure
from lightning_modules.figures.saving import Drawing
from lightning_modules.host import on_host
from lightning_modules.judging.named import note_of_named
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.networks.network import Network
from lightning_modules.results.storage import Row
from lightning_modules.results.tables import Table
from lightning_modules.robustness import RobustnessModule

Files = ImageSource | Sequence[ImageSource]
"""A file, a folder, an address, an image, its levels; or a list of them."""

MOST_FILES = 1_000
"""Of more, maps and pixels do not belong into the memory, but into a run."""

SHOWN = 3
"""Figures that a result shows of itself in a notebook."""

SECONDS = 3
"""What takes longer has a progress bar."""


NOTHING = torch.zeros(0)


@dataclass(repr=False, eq=False)
class Results:
    """What came out of files or of classes: a row for each, also for those that failed.

    Attributes:
        rows: As a run has them.
        paths: What the images that could be read are called, N.
        drawings: What draws the figure of an image, by its number.
    """

    rows: list[Row] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    drawings: dict[int, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(path, error) of what could not be read, or of which nothing came out."""
        return list(dict.fromkeys((r["path"], r["error"]) for r in self.rows if r["status"] == "failed"))

    def to_pandas(self) -> pd.DataFrame:
        """The rows."""
        return pd.DataFrame(self.rows)

    def figure(self, i: int = 0) -> Figure:
        """The figure of the i-th image, as a run draws it.

        Raises:
            InputError: If there is none; says why.
        """
        if not 0 <= i < len(self):
            raise InputError(f"There are {len(self)} images, so figure takes 0 to {len(self) - 1}, got {i}.")
        if i not in self.drawings:
            error = dict(self.failed).get(self.paths[i], "it is not drawn")
            raise InputError(f"There is no figure of {self.paths[i]}: {error}.")
        return self.drawings[i]()

    def __repr__(self) -> str:
        failed = "".join(f"\n  failed {path}: {error}" for path, error in self.failed)
        return f"{type(self).__name__} of {len(self):,} images{failed}"

    def _pictures(self) -> Iterator[bytes]:
        """The first few, as JPEG."""
        for i in sorted(self.drawings)[:SHOWN]:
            file = io.BytesIO()
            self.figure(i).savefig(file, format="jpeg", dpi=80, pil_kwargs={"quality": 85})
            yield file.getvalue()

    def _repr_html_(self) -> str:
        images = [base64.b64encode(content).decode() for content in self._pictures()]
        parts = [f'<img style="max-width: 100%" src="data:image/jpeg;base64,{image}">' for image in images]
        more = f"<p>{len(images)} of {len(self.drawings):,} figures: .figure(i) is the i-th.</p>"
        return "".join(parts) + more * (len(images) < len(self.drawings)) + self._failures()

    def _failures(self) -> str:
        lines = [f"failed {path}: {error}" for path, error in self.failed]
        return "".join(f"<p>{html.escape(line)}</p>" for line in lines[:20])


class Predictions(Results):
    """The most probable classes of images.

    Attributes:
        probabilities: Of all classes, ``(N, n_classes)``, on the host.
        class_names: Of the network.
    """

    def __init__(self, class_names: Sequence[str], top_k: int) -> None:
        super().__init__()
        self.class_names = class_names
        self.top_k = top_k
        self.probabilities = torch.zeros(0, len(class_names))

    def add(self, step: Prediction) -> None:
        """Adds what a batch is taken for."""
        self.paths += step["path"]
        if step["path"]:
            self.probabilities = torch.cat([self.probabilities, step["probabilities"].cpu()])
            for path, of in zip(step["path"], step["probabilities"].cpu()):
                index = int(of.argmax())
                named = {
                    "prediction": index,
                    "prediction_name": self.class_names[index],
                    "probability": float(of[index]),
                }
                self.rows.append({"path": path, "status": "ok", "error": None, **named})
        self.rows += [{"path": path, "status": "failed", "error": error} for path, error in step["failed"]]

    @property
    def table(self) -> Table:
        """The most probable classes of each image."""
        rows = []
        best = self.probabilities.topk(min(self.top_k, len(self.class_names)))
        for path, indices, values in zip(self.paths, best.indices.tolist(), best.values.tolist()):
            rows += [
                ["" if rank else path, self.class_names[index], str(index), f"{value:.1%}"]
                for rank, (index, value) in enumerate(zip(indices, values))
            ]
        return Table(["image", "class", "index", "probability"], rows, n_left=4)

    @property
    def note(self) -> str:
        """How many images that are named after a class are taken for it."""
        return note_of_named(self.paths, self.probabilities, self.class_names)

    def __repr__(self) -> str:
        return f"{self.table.markdown()}\n{self.note}".rstrip() + "".join(f"\nfailed {p}: {e}" for p, e in self.failed)

    def _repr_html_(self) -> str:
        frame = pd.DataFrame(self.table.rows, columns=list(self.table.header))
        return frame.to_html(index=False, max_rows=60) + f"<p>{html.escape(self.note)}</p>" + self._failures()


@dataclass(repr=False, eq=False)
class Explained(Results):
    """Maps of images: ``explained["GradCAM"]`` are those of a method, ``(N, 1 or 3, H, W)``, raw, on the host.

    Where several targets were asked for, they are ``(N, n_targets, 1 or 3, H, W)``.

    Attributes:
        images: Pixels, ``(N, 3, H, W)``.
        logits: ``(N, n_classes)``.
        predictions: The names of the predicted classes, N.
        maps: By the methods' names.
    """

    images: Tensor = NOTHING
    logits: Tensor = NOTHING
    predictions: list[str] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, method: str) -> Tensor:
        if method not in self.maps:
            raise InputError(f"There are no maps of {method!r}; there are those of {', '.join(self.maps)}.")
        return self.maps[method]


@dataclass(repr=False, eq=False)
class Attacked(Results):
    """Attacked images: ``attacked["4/255"]`` are those under a budget, ``(N, 3, H, W)``, on the host; "0" are clean.

    Attributes:
        images: The clean ones.
        adversarial: Those under each budget, by how it was written.
        maps: Budget, "0" = clean -> method -> maps.
        logits: Budget, "0" = clean -> ``(N, n_classes)``.
    """

    images: Tensor = NOTHING
    adversarial: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, eps: str | float) -> Tensor:
        name = format_eps(parse_eps(eps))
        return self.images if name == "0" else self.adversarial[name]


@dataclass(repr=False, eq=False)
class ClassImages(Results):
    """Images of classes or channels.

    Attributes:
        images: Pixels as a run saves them, N times uint8 ``(H, W, 3)``.
    """

    images: list[np.ndarray] = field(default_factory=list)

    def _pictures(self) -> Iterator[bytes]:
        for pixels in self.images[:12]:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=90)
            yield file.getvalue()


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
    """Keeps the maps, which a run drops."""

    parts: list[Any]
    part: Any

    def draw(self, forward_pass: Any, batch: Batch, maps: Any, images: Sequence[Row]) -> dict[int, Figure | Drawing]:
        self.part = on_host((dict(maps), forward_pass.logits))
        return super().draw(forward_pass, batch, maps, images)

    def evaluate(self, batch: Batch) -> Any:
        outputs = super().evaluate(batch)
        self.parts.append(self.part)
        return outputs


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
    found, images = Explained(), []
    parts: list[list[tuple[dict[str, Tensor], Tensor]]] = [[] for _ in modules]
    for batch in _batches(network, files, batch_size, options | {"n_originals": MOST_FILES}):
        drawings = []
        for module, of_module in zip(modules, parts):
            module.parts = []
            drawings.append(_step(module, batch, found))
            of_module += module.parts
        for i in drawings[0]:
            same = [of_target[i] for of_target in drawings]
            found.drawings[len(found.paths) + i] = same[0] if len(same) == 1 else _beside(same, modules)
        found.paths += batch["path"]
        images += [pixels_of(batch["image"]).cpu()] if batch["path"] else []
    if images:
        found.images = torch.cat(images)
        found.logits = torch.cat([logits for _, logits in parts[0]])
        found.predictions = [network.class_names[k] for k in found.logits.argmax(1).tolist()]
        for name in parts[0][0][0]:
            of_targets = [torch.cat([maps[name] for maps, _ in of_module]) for of_module in parts]
            found.maps[name] = torch.stack(of_targets, 1) if several else of_targets[0]
    return found


def _beside(drawings: Sequence[Any], modules: Sequence[AttributionModule]) -> Any:
    """What draws one figure of the maps of several targets: those of a method beside each other."""

    def draw() -> Figure:
        names = [m.network.class_names[m.target] if isinstance(m.target, int) else m.target for m in modules]
        pixels, view, first, top = drawings[0].args
        maps = {f"{name} ({of})": d.args[2][name] for name in first for of, d in zip(names, drawings)}
        title, subtitle = (drawings[0].keywords[name] for name in ("title", "subtitle"))
        subtitle = f"{subtitle.partition('   maps explain')[0]}   maps explain: {', '.join(map(str, names))}"
        return attribution_figure(pixels, view, maps, top, title=title, subtitle=subtitle)

    return draw


class _Attacking(RobustnessModule):
    """Keeps the attacked pixels and the maps, which a run drops."""

    parts: list[Any]
    part: Any

    def draw_attacked(self, drawn: AttackFigures, shown: Sequence[int]) -> dict[int, Figure | Drawing]:
        self.part = drawn
        return super().draw_attacked(drawn, shown)

    def evaluate(self, batch: Batch) -> Any:
        outputs = super().evaluate(batch)
        self.parts.append(on_host((self.part.images, self.part.maps, self.part.logits)))
        return outputs


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
    parts: list[tuple[list[Tensor], list[dict[str, Tensor]], list[Tensor]]] = []
    for batch in _batches(network, files, batch_size, options | {"n_originals": MOST_FILES}):
        module.parts = []
        drawings = _step(module, batch, found)
        found.drawings |= {len(found.paths) + i: drawing for i, drawing in drawings.items()}
        found.paths += batch["path"]
        parts += module.parts
    for k, name in enumerate(["0", *map(format_eps, module.eps)] if parts else []):
        pixels = torch.cat([images[k] for images, _, _ in parts])
        found.maps[name] = {method: torch.cat([maps[k][method] for _, maps, _ in parts]) for method in module.methods}
        found.logits[name] = torch.cat([logits[k] for _, _, logits in parts])
        if k:
            found.adversarial[name] = pixels
        else:
            found.images = pixels
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


def _step(module: EvaluationModule, batch: Batch, found: Results) -> dict[int, Any]:
    """Adds the rows of a batch, and gives what draws its figures."""
    with torch.no_grad():  # not inference mode, whose tensors nobody could differentiate through later
        outputs = module.test_step(batch, 0)
    failed = found.failed
    found.rows += [row for row in outputs["rows"] if (row["path"], row["error"]) not in failed]
    return outputs["figures"]


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
    sizes = {name: getattr(network, name) for name in ("input_size", "resize_size", "interpolation")}
    options = {"num_workers": default_workers(), "is_relative": are_kept, **sizes, **options}
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
