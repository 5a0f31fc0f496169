"""What came out of files or of classes: rows, tensors and figures, which a notebook shows."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lightning_modules.attacks.budgets import format_eps, parse_eps
from lightning_modules.classifier import Prediction
from lightning_modules.errors import InputError
from lightning_modules.judging.named import note_of_named
from lightning_modules.results.storage import Row
from lightning_modules.results.tables import Table

SHOWN = 3
"""Figures that a result shows of itself in a notebook."""

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
        file_columns: What each file is known by, as the rows of a run have it.
    """

    def __init__(self, class_names: Sequence[str], top_k: int) -> None:
        super().__init__()
        self.file_columns: list[Mapping[str, Any]] = []
        self.class_names = class_names
        self.top_k = top_k
        self.probabilities = torch.zeros(0, len(class_names))

    def add(self, step: Prediction) -> None:
        """Adds what a batch is taken for."""
        self.paths += step["path"]
        self.file_columns += step["file_columns"]
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
