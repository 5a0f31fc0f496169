"""Activation maximization: images of what a network takes for a class, or of what excites a channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa
import torch
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.batch import Photos, UnitBatch
from lightning_modules.errors import InputError
from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.exemplars import read_exemplars, read_facts, update_exemplars
from lightning_modules.figures.sheets import exemplar_sheets, run_sheets, variants_figure
from lightning_modules.figures.synthesis import Growth
from lightning_modules.gradients.fitting import is_out_of_memory
from lightning_modules.host import on_host
from lightning_modules.judging import judged_image, load_judges, measured_image, warn_of_judges
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.results.report import Report
from lightning_modules.results.storage import Rows, read_rows
from lightning_modules.results.summaries.synthesis import (
    COLUMNS,
    label_of_variant,
    report_synthesis,
    summarize_synthesis,
    table_of_images,
    tables_of_failures,
)
from lightning_modules.results.summaries.verdicts import first_of, verdicts
from lightning_modules.results.tables import Table
from lightning_modules.synthesis import (
    L2,
    VARIANTS,
    Channel,
    FourierImage,
    LogitMargin,
    Objective,
    Parametrization,
    Progress,
    RandomRotation,
    RandomScale,
    RandomShift,
    Recipe,
    Regularizer,
    Schedule,
    TotalVariation,
    Transform,
    maximize,
)
from lightning_modules.synthesis.passes import ImagePass, passes_of
from lightning_modules.text import plain_name


class ActivationMaximizationModule(EvaluationModule):
    """Optimizes an image for each unit of a batch, to the end, in one test step.

    An image follows from the settings, its unit and its seed alone: hundreds of steps amplify a difference of one
    rounding into another image, so a forward pass never holds more or fewer than ``images_per_pass``.

    Args:
        weights: What :func:`load_network` takes.
        network: What :func:`load_network` takes.
        objective: What is maximized, by name or import path. null = LogitMargin of the class against all others. Units
            given as layer:channel are maximized by Channel, unless this objective is of their layer.
        parametrization: What is optimized, by name or import path. null = FourierImage.
        regularizers: Penalties of the image, by name or import path. null = TotalVariation and L2; [] = none.
        transforms: What the network sees the image through, in order, by name or import path. null = a random shift,
            scale and rotation; [] = none.
        steps: Steps of Adam, at least 1.
        learning_rate: Of Adam, above 0.
        warm_up: Share of the steps, in [0, 1], over which the penalties grow from nothing to their weights.
        schedule: What changes from step to step, by name or import path: CoarseToFine begins with small views and low
            frequencies. null = nothing.
        image_size: Height and width in pixels of the images. null = what the network was trained on.
        images_per_pass: Images that share a forward pass, at least 1. A GPU is faster with more; another number gives
            other images.
        fresh_shift: Farthest shift in pixels of the crops on which the finished image is judged; the optimization never
            saw them.
        n_fresh: How many such crops, at least 1.
        ablation: Whether each image is made four times: with neither, with the regularizers only, with the transforms
            only, and with both.
        n_figures: Images, from the first on, of which a figure shows how they grew.
        judges: Other networks that are asked what each finished image of a class is. Each is what model.network takes,
            or {network: ..., weights: ..., class_names: ..., name: ...}. They are asked for a class by its name.
    """

    seconds_per_part = 5.0
    """Images take long, so their rows do not wait for each other."""

    def __init__(
        self,
        weights: str = "IMAGENET1K_V1",
        objective: Objective | None = None,
        parametrization: Parametrization | None = None,
        regularizers: Sequence[Regularizer] | None = None,
        transforms: Sequence[Transform] | None = None,
        steps: int = 256,
        learning_rate: float = 0.05,
        warm_up: float = 0.5,
        schedule: Schedule | None = None,
        image_size: int | None = None,
        images_per_pass: int = 1,
        fresh_shift: int = 16,
        n_fresh: int = 32,
        ablation: bool = False,
        n_figures: int = 16,
        network: str | dict = "vgg16",
        judges: Sequence[str | dict] = (),  # not dict[str, Any]: a parser reads numbers in what may be anything
        **options: Unpack[NetworkOptions],
    ) -> None:
        for name, value, least in (
            ("steps", steps, 1),
            ("image_size", image_size, 32),
            ("images_per_pass", images_per_pass, 1),
            ("fresh_shift", fresh_shift, 0),
            ("n_fresh", n_fresh, 1),
        ):
            if value is not None and value < least:
                raise InputError(f"model.{name} must be at least {least}, got {value}.")
        regularizers = [TotalVariation(), L2()] if regularizers is None else list(regularizers)
        if transforms is None:
            transforms = [RandomShift(32), RandomScale(0.5, 1.8), RandomRotation(20)]
        both = Recipe(
            parametrization or FourierImage(), regularizers, transforms, steps, learning_rate, warm_up, schedule
        )
        super().__init__(load_network(network, weights, **options), n_figures)
        self.recipes = both.ablated() if ablation else {VARIANTS[-1]: both}
        self.objective = objective or LogitMargin()
        size = image_size or self.network.input_size
        self.size = (size, size)
        self.images_per_pass = images_per_pass
        self.fresh = RandomShift(fresh_shift)
        self.n_fresh = n_fresh
        self.judges = load_judges(judges, self.network)
        self.better = {field.name: "higher" for field in self.schema if "probability" in field.name}
        self.listeners: list[Callable[[Sequence[str], Progress, int], None]] = []

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows: one for each image made."""
        text = ("path", "status", "error", "variant", "image", "name", "layer", "prediction_name")
        whole = ("target", "seed", "prediction", "steps")
        fields = [*((name, pa.string()) for name in text), *((name, pa.int64()) for name in whole)]
        fields += [(name, pa.float64()) for name in COLUMNS]
        return pa.schema([*fields, *(field for judge in self.judges for field in judge.fields)])

    @property
    def legend(self) -> str:
        """What the names of several variants stand for, in a sentence."""
        both = self.recipes[VARIANTS[-1]]
        return f"TV stands for the penalties {both.regularizers}, shifts for the transforms {both.transforms}."

    @property
    def helpers(self) -> dict[str, Network]:
        return {f"judge.{judge.name}": judge.network for judge in self.judges}

    def check_data(self, data: Any) -> None:
        """Checks that the judges know the classes that images are to be made of."""
        units = [unit for unit, _ in getattr(data, "items", [])]
        for judge in self.judges:
            judge.check(unit.target for unit in units if unit.layer is None)

    def on_test_start(self) -> None:
        super().on_test_start()
        units = [unit for unit, _ in getattr(self.trainer.datamodule, "items", [])]  # type: ignore[attr-defined]
        for judge in self.judges:
            # Not registered as submodules, so they stay out of the state dict and the trainer's precision.
            judge.network.to(self.device)
        if self.judges and self.trainer.is_global_zero:
            warn_of_judges(self.judges, n_channels=sum(unit.layer is not None for unit in units), n_units=len(units))

    def prepare_run(self, run: Path) -> None:
        """Finds the photos that excite the units most, if there are photos."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        photos: Photos | None = getattr(data, "photos", None)
        if photos is not None:
            units = list(dict.fromkeys(unit for unit, _ in data.items))
            update_exemplars(self.network, units, self._objective_of, photos, data.n_exemplars, run / "exemplars")

    def test_step(self, batch: UnitBatch, batch_idx: int) -> Outputs:  # type: ignore[override]
        """Makes the images of a batch; those of each pass but the last are handed over at once."""
        batch = on_host(batch)  # a data module of somebody else's may let it be moved
        *early, last = passes_of(batch, self._objective_of, self.images_per_pass)
        for images in early if self.part_listeners else []:
            self.hand_over(self.evaluate([images]), batch, len(images.rows))
        return self.evaluate([last] if self.part_listeners else [*early, last])

    def evaluate(self, parts: Sequence[ImagePass]) -> Outputs:  # type: ignore[override]
        """The rows, images and figures of units, pass by pass.

        Raises:
            InputError: If a pass does not fit in the device's memory.
        """
        outputs: Outputs = {"rows": [], "images": {}, "figures": {}}
        self.n_in_hand = sum(len(images.rows) for images in parts)
        for images in parts:
            for variant in self.recipes:
                try:
                    self._make(images, variant, outputs)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    raise InputError(
                        f"The device's memory does not suffice for {self.images_per_pass} images at a time. Fewer, "
                        "model.images_per_pass, are other images, so this is yours to choose."
                    ) from error
        # The rows of a unit stand together, so that a part of the rows has all of them or none.
        outputs["rows"].sort(key=lambda row: row["path"])
        return outputs

    def _objective_of(self, layer: str | None) -> Objective:
        """What is maximized of the units of a layer; None = of classes."""
        return self.objective if layer is None or layer == self.objective.layer else Channel(layer)

    def _make(self, images: ImagePass, variant: str, outputs: Outputs) -> None:
        """Makes the images of a pass in one variant, and adds their rows, pixels and figures to ``outputs``."""
        recipe, rows, n = self.recipes[variant], images.rows, len(images.rows)
        stems = [row["path"].removesuffix(".png") for row in rows]
        if len(self.recipes) > 1:
            stems = [f"{stem}_{plain_name(variant)}" for stem in stems]
        is_drawn = [variant == VARIANTS[-1] and index < self.n_figures for index in images.indices]
        growths = {k: Growth(recipe.steps) for k in range(n) if is_drawn[k]}
        reached: Tensor | None = None  # whether the objective's gradient ever reached each image, bool (N,)

        def listen(progress: Progress) -> None:
            nonlocal reached
            reached = progress.reached if reached is None else reached | progress.reached
            for k, growth in growths.items():
                growth.add(progress, k)
            for listener in self.listeners:
                listener(stems, progress, recipe.steps)

        start, cpu_start = time.monotonic(), time.process_time()
        made = maximize(self.network, images.objective, images.target, recipe, self.size, images.keys, listen)
        same = {
            "variant": variant,
            "steps": recipe.steps,
            "seconds": (time.monotonic() - start) / n,
            "cpu_seconds": (time.process_time() - cpu_start) / n,
        }
        fresh = self.fresh, self.n_fresh
        measured = [
            measured_image(image, self.network, images.objective, row["target"], key, fresh)
            for image, key, row in zip(made, images.keys, rows)
        ]
        # All is computed before anything is read, so that a GPU is waited for once.
        measured, reached = on_host((measured, reached))
        for k, (image, row, stem) in enumerate(zip(measured, rows, stems)):
            unreached_in = recipe.steps if reached is not None and not reached[k] else None
            judged = judged_image(image, self.network, images.objective, row["target"], self.judges, unreached_in)
            outputs["rows"].append({**row, **same, **judged})
            if judged["status"] == "ok":
                outputs["rows"][-1]["image"] = f"{stem}.png"
                outputs["images"][f"{stem}.png"] = image.pixels.numpy()
                if k in growths:
                    outputs["figures"][images.numbers[k]] = growths[k].draw(f"{row['name']}, seed {row['seed']}")

    def n_to_compute(self) -> int | None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return len(data.items) - len(data.done) if hasattr(data, "items") else None

    def passes(self) -> dict[str, int]:
        return {"steps": sum(recipe.steps for recipe in self.recipes.values())}

    @property
    def n_listed(self) -> int | None:
        n_units = super().n_listed
        return None if n_units is None else n_units * len(self.recipes)

    def summarize(self, table: Rows) -> dict[str, Any]:
        judges = {judge.name: {"n_classes": judge.n_classes, "had_part": judge.had_part} for judge in self.judges}
        return summarize_synthesis(table, judges)

    def report(self, summary: dict[str, Any]) -> Report:
        n = torch.get_num_threads()
        notes = [f"The processor worked with {n} thread{'s' * (n > 1)} (OMP_NUM_THREADS)."]
        return report_synthesis(summary, [*notes, self.legend] if len(self.recipes) > 1 else notes)

    def details(self, run: Path) -> list[Table]:
        rows = read_rows(run / "results").to_pylist()
        return [table_of_images(rows), *tables_of_failures(rows)]

    def facts(self, run: Path) -> dict[str, Any]:
        found = read_facts(run / "exemplars")
        return super().facts(run) | ({"exemplars": found} if found else {})

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        """Contact sheets of all images, all variants side by side, and the photos that excite the same."""
        rows = read_rows(run / "results").to_pylist()
        yield from run_sheets(rows, run, verdicts)
        if len(summary["variants"]) > 1:
            labels = {name: label_of_variant(name, numbers) for name, numbers in summary["variants"].items()}
            title = f"{run.name}: {self.legend}"
            if self.judges:
                name = self.judges[0].name
                title += (
                    f" Below: what {name} names first, and the rank and probability that it gives the class asked for."
                )
            yield "ablation", variants_figure(rows, run / "images", labels, title, first_of)
        whole = [row for row in rows if row["variant"] == VARIANTS[-1]]
        folder = run / "exemplars"
        yield from exemplar_sheets(whole, read_exemplars(folder), run / "images", folder, run.name)
