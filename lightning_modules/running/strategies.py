"""The strategies of a run on the command line: RUN/strategies, and a section of the page of the run."""

from __future__ import annotations

import csv
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jsonargparse.typing import PositiveInt
from sklearn.decomposition import PCA
from tensorboard.plugins.projector import ProjectorConfig, visualize_embeddings
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.io import write_png
from torchvision.transforms.functional import resize
from torchvision.utils import make_grid
from tqdm import tqdm

from datamodules.batch import Batch, with_pixels
from datamodules.text import Text, Texts
from lightning_modules.attribution import AttributionModule
from lightning_modules.figures.saving import save_figure
from lightning_modules.networks.class_names import find_class
from lightning_modules.pages.runs import STRATEGIES
from lightning_modules.results.maps import FOLDER
from lightning_modules.results.report import first_paragraph
from lightning_modules.results.storage import columns_of_rows, read_rows
from lightning_modules.running.again import made_again
from lightning_modules.running.cli import as_typed
from lightning_modules.running.folder.finished_run import leave_beside, read_summary
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.strategies.drawing import SIDE, contact_sheet, overlaid
from lightning_modules.strategies.finding import N_NEAREST, Strategies, balanced
from lightning_modules.strategies.vectors import Look, features, in_order, kept_masses, new_masses
from lightning_modules.text import plain, plain_name

# Pixels of a side, and numbers of a position, in TensorBoard's projector.
THUMBNAIL, MOST_DIMENSIONS = 48, 200


def run_strategies(model_class: Any, data_class: Any, *, description: str | None, args: list[str] | None = None) -> int:
    """Parses the options, finds the strategies of a run and writes RUN/strategies; returns the exit code.

    Args:
        model_class: Of the run, an AttributionModule.
        data_class: Of the run.
        description: What help says first.
        args: The options; None = those of the command line.
    """
    parser = HelpfulParser(description=description or "", usage="%(prog)s RUN [options]")
    parser.add_argument("run", type=str, help="Folder of a run of evaluate_attribution.py that has ended.")
    parser.add_function_arguments(_find, as_group=False, skip={"run", "model_class", "data_class"})
    words = sys.argv[1:] if args is None else list(args)
    options = parser.parse_args(words)
    run = Path(options.run).expanduser()
    given = vars(options) | {"run": run, "model_class": model_class, "data_class": data_class}
    strategies, scores, notes, look = _find(**given)
    out = run / STRATEGIES
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    strategies.rows[["path", "class", "cluster", "x", "y"]].to_parquet(out / "clusters.parquet", index=False)
    _draw(strategies, look, scores, options.n_images, out)
    report = replace(strategies.report(scores, notes), about=first_paragraph(description or ""))
    summary = strategies.summary(scores) | {"command": as_typed(["python", sys.argv[0], *words])}
    settings = parser.dump(options, skip_validation=True)
    leave_beside(run, out, "Clusters, summary, sheets", report, summary, settings)
    return 0


def _find(
    run: Path,
    model_class: Any,
    data_class: Any,
    method: Text = "GradCAM",
    classes: Texts | None = None,
    by: Literal["maps", "features"] = "maps",
    n_images: PositiveInt = 5000,
    seed: int = 0,
) -> tuple[Strategies, list[str], list[str], Look]:
    """The strategies of a run, the names of its scores, notes on what was left out, and what looks at its images.

    Args:
        run: Its folder.
        model_class: See :func:`run_strategies`.
        data_class: Likewise.
        method: Whose maps, as the rows name it.
        classes: Classes to look at. null = all that maps explain.
        by: What is clustered: maps, or features, the activations of the layer before the head.
        n_images: Images in TensorBoard's projector, as many of each class as there can be; also those of which features
            are computed, or maps where RUN kept none.
        seed: Seed of all draws.
    """
    read_summary(run)  # refuses what is none
    rows = _rows_of(run, method)
    module, look = _made_again(run, model_class, data_class)
    names, network = module.network.class_names, module.network
    if classes is not None:
        wanted = [classes] if isinstance(classes, str) else classes
        rows = rows[rows["target"].isin([find_class(name, names) for name in wanted])]
    if rows.empty:
        raise RunError(f"{run} has no map of {method} that shows something of these classes.")
    is_kept, n, notes = any((run / FOLDER).glob("*.arrow")), len(rows), []
    if not is_kept or by == "features":
        rows = rows.iloc[balanced(rows["target"].to_numpy(), n_images, seed)]
        what = "features" if is_kept else "maps, as RUN kept none (--model.save_maps true keeps them)"
        notes.append(f"{len(rows):,} of {n:,} images were read again for {what}.")
    if is_kept:
        maps = kept_masses(run, method, rows["path"].tolist())
    else:
        maps = new_masses(network, look, rows, module.methods[method])
    vectors = features(network, look, rows) if by == "features" else maps.reshape(len(rows), -1)
    is_good = np.isfinite(vectors).all(1) & np.isfinite(maps).all((1, 2))
    if n_bad := int((~is_good).sum()):
        notes.append(f"{n_bad:,} images were left out: they cannot be read any more, or their maps show nothing.")
    strategies = Strategies(rows[is_good].reset_index(drop=True), maps[is_good], vectors[is_good], names, seed)
    strategies.measure_suspects(network, look)
    scores = ["probability", *(name for name in module.columns if rows[name].notna().any())]
    return strategies, scores, notes, look


def _rows_of(run: Path, method: str) -> pd.DataFrame:
    """The rows of the images of which a method's map shows something."""
    columns = columns_of_rows(run / "results", lists=False)
    rows = read_rows(run / "results", columns).to_pandas()
    methods = rows["method"].dropna().unique() if {"method", "target"} <= set(columns) else []
    if method not in methods:
        raise RunError(f"{run} has no maps of {method!r}, but of: {', '.join(methods) or 'none'}.")
    return rows[(rows["method"] == method) & (rows["status"] == "ok") & ~rows["degenerate"].astype(bool)]


def _made_again(run: Path, model_class: Any, data_class: Any) -> tuple[AttributionModule, Look]:
    """The module of a run on one device, and what looks at its images."""
    cli = made_again(run, model_class, data_class, "--model.n_figures", "0")
    data, network = cli.datamodule, cli.model.network
    data.setup("test")
    source = data.source

    def look(rows: pd.DataFrame, compute: Callable[[Batch, Tensor], Tensor]) -> dict[str, np.ndarray]:
        target_of = dict(zip(rows["path"], rows["target"].astype(int)))
        data.source = source.take(np.flatnonzero([name in target_of for name in source.names()]))
        found: dict[str, np.ndarray] = {}
        for batch in tqdm(data.test_dataloader(), unit="batch", delay=3):
            if batch["path"]:
                batch = with_pixels(batch | {"image": batch["image"].to(network.mean.device)})
                target = torch.tensor([target_of[path] for path in batch["path"]], device=batch["image"].device)
                found |= dict(zip(batch["path"], compute(batch, target).cpu().numpy()))
        return found

    return cli.model, look


def _draw(strategies: Strategies, look: Look, scores: list[str], n_images: int, out: Path) -> None:
    """A sheet for each class that is shown, and TensorBoard's projector."""
    rows = strategies.rows

    def pixels(side: int) -> Callable[[Batch, Tensor], Tensor]:
        return lambda batch, _: (resize(batch["image"], [side, side]) * 255).round().byte().permute(0, 2, 3, 1)

    nearest = [i for found in strategies.shown for c in found.clusters for i in c.members[:N_NEAREST]]
    shown = look(rows.iloc[nearest], pixels(SIDE)) if nearest else {}
    for k, found in enumerate(strategies.shown):
        save_figure(contact_sheet(found, strategies, shown), out / "figures", f"class_{k:02d}_{plain_name(found.name)}")
    sample = balanced(rows["target"].to_numpy(), n_images, strategies.seed)
    chosen, vectors = rows.iloc[sample], strategies.vectors[sample]
    thumbnails = in_order(look(chosen, pixels(THUMBNAIL)), chosen)
    shown_maps = np.stack([overlaid(image, strategies.maps[i]) for image, i in zip(thumbnails, sample)])
    columns = ["label_name", "prediction_name", "top1", "class", "cluster", *scores, "path"]
    metadata = chosen.assign(cluster=chosen["class"] + " " + chosen["cluster"].astype(str))[columns]
    if vectors.shape[1] > MOST_DIMENSIONS:
        vectors = PCA(MOST_DIMENSIONS, random_state=strategies.seed).fit_transform(vectors)
    board = out / "tensorboard"
    SummaryWriter(str(board)).close()  # TensorBoard looks where there are events
    np.savetxt(board / "tensors.tsv", vectors, "%.6g", "\t")
    metadata.map(lambda value: plain(str(value))).to_csv(
        board / "metadata.tsv", sep="\t", index=False, quoting=csv.QUOTE_NONE, quotechar=None
    )
    # Not by add_embedding, which takes a gigabyte for the sprite.
    n = math.ceil(math.sqrt(len(chosen)))
    square = np.pad(shown_maps, ((0, n * n - len(chosen)), *3 * ((0, 0),)))
    write_png(make_grid(torch.from_numpy(square).permute(0, 3, 1, 2), n, 0), str(board / "sprite.png"))
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_path="tensors.tsv", metadata_path="metadata.tsv")
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend([THUMBNAIL, THUMBNAIL])
    visualize_embeddings(str(board), config)
