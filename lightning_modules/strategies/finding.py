"""From the maps of a run to the clusters of each class, and to those that look like a watermark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.networks.network import Network
from lightning_modules.results.report import Report
from lightning_modules.results.scores import mean_or_none
from lightning_modules.results.tables import Table, number, share
from lightning_modules.strategies.clusters import FEWEST, find_clusters
from lightning_modules.strategies.suspicion import Region, common_region, with_and_without
from lightning_modules.strategies.vectors import Look

# Images that stand for a cluster; images of a cluster whose region is replaced; classes in the table and on sheets.
N_NEAREST, N_TRIED, MOST_SHOWN = 5, 32, 12


@dataclass
class Cluster:
    """Images of a class whose maps are alike.

    Attributes:
        members: Numbers of their rows, the nearest to the middle first.
        mean_map: ``(g, g)``, of sum 1.
        region: What their maps have in common, and what the class loses without it.
    """

    members: np.ndarray
    mean_map: np.ndarray
    region: Region


@dataclass
class ClassClusters:
    """The clusters of a class.

    Attributes:
        name: Of the class.
        gap: How clearly it falls apart, see :class:`~.clusters.Clusters`; 0 where there is one cluster.
        clusters: The largest first.
    """

    name: str
    gap: float
    clusters: list[Cluster]

    @property
    def is_suspicious(self) -> bool:
        return any(cluster.region.reason for cluster in self.clusters)


class Strategies:
    """The clusters of the images of each class, by the maps that explain it or by other vectors.

    Args:
        rows: N rows in the order of their paths: ``path``, ``top1``, ``target`` (the class that the map explains), ...
        maps: ``(N, g, g)``, each of sum 1.
        vectors: What is clustered, ``(N, D)``.
        class_names: Of the network.
        seed: Of the draws.

    Attributes:
        rows: With the name of the ``class`` that the map explains, the ``cluster``, and ``x`` and ``y``, the place of
            the image in its class.
        classes: The one that falls apart most clearly first.
    """

    def __init__(
        self, rows: pd.DataFrame, maps: np.ndarray, vectors: np.ndarray, class_names: Sequence[str], seed: int = 0
    ) -> None:
        self.maps, self.vectors, self.seed = maps, vectors, seed
        numbers, places, classes = np.zeros(len(rows), int), np.zeros((len(rows), 2)), []
        for target, images in sorted(rows.groupby("target").indices.items()):
            found = find_clusters(vectors[images], seed)
            numbers[images], places[images] = found.number, found.places
            distance = np.linalg.norm(vectors[images] - found.middles[found.number], axis=1)
            by_distance = np.argsort(distance, kind="stable")
            members = [images[by_distance[found.number[by_distance] == k]] for k in range(len(found.middles))]
            clusters = [Cluster(own, maps[own].mean(0), common_region(maps[own])) for own in members]
            classes.append(ClassClusters(class_names[int(target)], found.gap, clusters))
        names = {"class": [class_names[int(target)] for target in rows["target"]]}
        self.rows = rows.assign(**names, cluster=numbers, x=places[:, 0], y=places[:, 1])
        self.classes = sorted(classes, key=lambda found: -found.gap)

    @property
    def shown(self) -> list[ClassClusters]:
        """The classes with suspicious clusters, then those that fall apart most clearly."""
        apart = [found for found in self.classes if found.gap > 0]
        return sorted(apart, key=lambda found: not found.is_suspicious)[:MOST_SHOWN]

    def measure_suspects(self, network: Network, look: Look) -> None:
        """Measures what a class that falls apart loses without the region of a cluster, where that region is odd."""
        draws, rows = np.random.default_rng(self.seed), self.rows
        suspects = [c for found in self.classes if found.gap > 0 for c in found.clusters if c.region.oddity]
        tried = [draws.permutation(suspect.members)[:N_TRIED] for suspect in suspects]
        mask_of = {path: c.region.mask for c, own in zip(suspects, tried) for path in rows["path"].iloc[own]}

        def pairs(batch: Batch, target: Tensor) -> Tensor:
            masks = torch.from_numpy(np.stack([mask_of[path] for path in batch["path"]])).to(target.device)
            return with_and_without(network, batch["image"], target, masks)

        found = look(rows[rows["path"].isin(mask_of)], pairs) if suspects else {}
        for suspect, own in zip(suspects, tried):
            if measured := [found[path] for path in rows["path"].iloc[own] if path in found]:
                suspect.region = suspect.region.measured(np.stack(measured))

    def summary(self, scores: Sequence[str]) -> dict[str, Any]:
        """What ``summary.json`` holds: counts, and the clusters of each class with their mean scores."""
        clusters = [[self._summary(cluster, scores) for cluster in found.clusters] for found in self.classes]
        by_gap = [{"class": f.name, "gap": f.gap, "clusters": own} for f, own in zip(self.classes, clusters)]
        suspicious = [found.name for found in self.classes if found.is_suspicious]
        return {"n_images": len(self.rows), "n_failed": 0, "suspicious": suspicious, "classes_by_gap": by_gap}

    def _summary(self, cluster: Cluster, scores: Sequence[str]) -> dict[str, Any]:
        own, region = self.rows.iloc[cluster.members], cluster.region
        found: dict[str, Any] = {"n": len(own), "suspicious": region.reason or None}
        found |= {name: mean_or_none(own[name].to_numpy(float)) for name in ("top1", *scores)}
        found |= {"nearest": own["path"].head(N_NEAREST).tolist(), "mean_map": cluster.mean_map.round(6).tolist()}
        return found | {"region": {**region._asdict(), "mask": region.mask.tolist()}}

    def report(self, scores: Sequence[str], notes: Sequence[str]) -> Report:
        """A row for each cluster of the shown classes, and a sentence for each that is suspicious."""
        lines, reasons = [], []
        for found in self.shown:
            for k, cluster in enumerate(found.clusters):
                own, region = self._summary(cluster, scores), cluster.region
                line = [found.name, "" if k else f"{found.gap:.2f}", str(k), f"{own['n']:,}", share(own["top1"])]
                line += [*(number(own[name], ".3f") for name in scores), share(region.area), share(region.drop)]
                lines.append([*line, "yes" if region.reason else ""])
                reasons += [f"Cluster {k} of {found.name} is suspicious: {region.reason}."] if region.reason else []
        header = ["class", "gap", "cluster", "images", "top-1", *scores, "region", "lost without it", "suspicious"]
        n_few = sum(sum(len(c.members) for c in found.clusters) < 2 * FEWEST for found in self.classes)
        few = [f"{n_few:,} classes have fewer than {2 * FEWEST} images, too few for two clusters."] if n_few else []
        apart = f"{sum(found.gap > 0 for found in self.classes):,} of {len(self.classes):,} classes fall apart."
        remarks = [*(reasons or ["No cluster is suspicious."]), apart, *few, *notes]
        tables = [Table(header, lines, "Clusters of the classes that fall apart")] if lines else []
        return Report("", f"{len(self.rows):,} images", tables, remarks)


def balanced(classes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The numbers of at most ``n`` of N images, as many of each class as there can be, in order.

    Example:
        >>> balanced(np.array([7, 7, 7, 7, 7, 8, 9, 9]), 5, seed=0).tolist()[-3:]
        [5, 6, 7]
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    turn = pd.Series(classes[order]).groupby(classes[order]).cumcount()
    return np.sort(order[np.argsort(turn, kind="stable")[:n]])
