"""Activation maximization: images of what a network takes for a class, or of what excites a channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa
import torch
from matplotlib.figure import Figure

from datamodules.batch import Photos, UnitBatch
from lightning_modules.errors import InputError
from lightning_modules.exemplars import read_exemplars, read_facts, settle_exemplars
from lightning_modules.figures.exemplars import exemplar_sheets
from lightning_modules.figures.synthesis import Growth, run_sheets
from lightning_modules.figures.variants import variants_figure
from lightning_modules.gradients.fitting import is_out_of_memory
from lightning_modules.image_pass import ImagePass, Watch, passes
from lightning_modules.judging import judged_image, load_judges, measured_image, warn_of_judges
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.making import Said
from lightning_modules.networks.network import Network
from lightning_modules.results.report import Report
from lightning_modules.results.rows.images import Rows
from lightning_modules.results.rows.parts import read_rows
from lightning_modules.results.rows.reading import on_host
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
from lightning_modules.run_module import Outputs, RunModule
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
    TotalVariation,
    Transform,
    maximize,
)

FIRST_SAID = " Below: what {} names first, and the rank and probability that it gives the class asked for."
"""In the title of all variants."""


class ActivationMaximizationModule(RunModule):
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
        image_size: int | None = None,
        images_per_pass: int = 1,
        fresh_shift: int = 16,
        n_fresh: int = 32,
        ablation: bool = False,
        n_figures: int = 16,
        network: str | dict = "vgg16",
        judges: Sequence[str | dict] = (),  # not dict[str, Any]: a parser reads numbers in what may be anything
        **said: Unpack[Said],
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
        both = Recipe(parametrization or FourierImage(), regularizers, transforms, steps, learning_rate, warm_up)
        super().__init__(load_network(network, weights, **said), n_figures)
        self.recipes = both.ablated() if ablation else {VARIANTS[-1]: both}
        self.objective = objective or LogitMargin()
        size = image_size or self.network.input_size
        self.size = (size, size)
        self.images_per_pass = images_per_pass
        self.fresh = RandomShift(fresh_shift)
        self.n_fresh = n_fresh
        self.judges = load_judges(judges, self.network)
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
        """Whether the judges know the classes that images are to be made of.

        Raises:
            InputError: If one does not; names them.
        """
        units = [unit for unit, _ in getattr(data, "items", [])]
        for judge in self.judges:
            judge.check(unit.target for unit in units if unit.layer is None)

    def on_test_start(self) -> None:
        super().on_test_start()
        units = [unit for unit, _ in getattr(self.trainer.datamodule, "items", [])]  # type: ignore[attr-defined]
        for judge in self.judges:
            # They are no parts of this module: its state dict, and its precision, are those of the network.
            judge.network.to(self.device)
        if self.judges and self.trainer.is_global_zero:
            warn_of_judges(self.judges, n_channels=sum(unit.layer is not None for unit in units), n_units=len(units))

    def prepare_run(self, run: Path) -> None:
        """Finds the photos that excite the units most, if there are photos."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        photos: Photos | None = getattr(data, "photos", None)
        if photos is not None:
            units = list(dict.fromkeys(unit for unit, _ in data.items))
            settle_exemplars(self.network, units, self._objective_of, photos, data.n_exemplars, run / "exemplars")

    def test_step(self, batch: UnitBatch, batch_idx: int) -> Outputs:
        """Optimizes the images of a batch; those of each pass are handed over, but for the last."""
        batch = on_host(batch)  # where it is, unless a data module of somebody else's lets it be moved
        *early, last = passes(batch, self._objective_of, self.images_per_pass)
        for images in early if self.part_listeners else []:
            self.hand_over(self._outputs_of([images]), batch, len(images.members))
        return self._outputs_of([last] if self.part_listeners else [*early, last])

    def _outputs_of(self, parts: Sequence[ImagePass]) -> Outputs:
        outputs: Outputs = {"rows": [], "images": {}, "figures": {}}
        self.n_in_hand = sum(len(images.members) for images in parts)
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
        # What belongs to one unit stands together, so that a part of the rows has all of it or nothing.
        outputs["rows"].sort(key=lambda row: row["path"])
        return outputs

    def _objective_of(self, layer: str | None) -> Objective:
        """What is maximized of the units of a layer; None = of classes."""
        return self.objective if layer is None or layer == self.objective.layer else Channel(layer)

    def _make(self, wanted: ImagePass, variant: str, outputs: Outputs) -> None:
        """Makes the images of a pass as ``variant`` has it and adds what they give to ``outputs``."""
        files = wanted.files(variant if len(self.recipes) > 1 else None)
        keys, named_members = wanted.keys, wanted.named
        watch = self._watch(wanted, variant, files)
        start, cpu_start = time.monotonic(), time.process_time()
        recipe, n = self.recipes[variant], len(wanted.members)
        images = maximize(self.network, wanted.objective, wanted.target, recipe, self.size, keys, watch)
        made = {
            "variant": variant,
            "steps": recipe.steps,
            "seconds": (time.monotonic() - start) / n,
            "cpu_seconds": (time.process_time() - cpu_start) / n,
        }
        finished = [
            measured_image(image, self.network, wanted.objective, row["target"], key, (self.fresh, self.n_fresh))
            for image, key, row in zip(images, keys, named_members)
        ]
        # All is computed before anything is read, so that a GPU is waited for once.
        finished, reached = on_host((finished, watch.reached))
        for member, (image, named, file, growth) in enumerate(zip(finished, named_members, files, watch.growths)):
            unreached_in = recipe.steps if reached is not None and not reached[member] else None
            judged = judged_image(image, self.network, wanted.objective, named["target"], self.judges, unreached_in)
            is_ok = judged["status"] == "ok"
            outputs["rows"].append({**named, **made, **judged} | ({"image": file} if is_ok else {}))
            if is_ok:
                outputs["images"][file] = image.pixels.numpy()
            if is_ok and growth is not None:
                figure = growth.draw(f"{named['name']}, seed {named['seed']}")
                outputs["figures"][wanted.members[member]] = figure

    def _watch(self, wanted: ImagePass, variant: str, files: Sequence[str]) -> Watch:
        """What notes how the images of a pass grow, and calls the listeners."""
        steps = self.recipes[VARIANTS[-1]].steps
        most = self.n_figures if variant == VARIANTS[-1] else 0
        growths = [Growth(steps) if int(wanted.batch["index"][i]) < most else None for i in wanted.members]
        names = [file.removesuffix(".png") for file in files]

        def tell(progress: Progress) -> None:
            for listener in self.listeners:
                listener(names, progress, steps)

        return Watch(growths, tell)

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
        report, n = report_synthesis(summary), torch.get_num_threads()
        notes = [*report.notes, f"The processor worked with {n} thread{'s' * (n > 1)} (OMP_NUM_THREADS)."]
        return replace(report, notes=[*notes, self.legend] if len(self.recipes) > 1 else notes)

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
            title = f"{run.name}: {self.legend}" + "".join(FIRST_SAID.format(judge.name) for judge in self.judges[:1])
            yield "ablation", variants_figure(rows, run / "images", labels, title, first_of)
        whole = [row for row in rows if row["variant"] == VARIANTS[-1]]
        folder = run / "exemplars"
        yield from exemplar_sheets(whole, read_exemplars(folder), run / "images", folder, run.name)
