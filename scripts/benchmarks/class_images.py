"""Class images by us, lucent and Horama, each in the processor time that ours took, left in a folder to be judged."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as F
from torchvision.utils import save_image

from benchmarks.timing import OURS, Goal, Result, compare
from datamodules import ImageSourcesDataModule
from datamodules.batch import pixels_of
from lightning_modules import ActivationMaximizationModule, Network
from lightning_modules.errors import InputError
from lightning_modules.networks.inputs import trusted
from lightning_modules.synthesis import maximize

CLASSES = ("hammerhead", "ostrich", "monarch", "volcano", "goldfish", "flamingo", "tabby", "school bus")
N_TRIED = 8
"""Steps by which a peer's pace is taken before its first image."""

SPECTRUM = "spectrum_decorrelated.npy"
"""Where Horama, from the folder that it works in, loads magnitudes of natural images; without it, it downloads some."""

HORAMA_CROP = 352
"""Of Horama's images, 1,280 pixels a side, the network sees crops of about so many, near the middle."""

Make = Callable[[int, int], Tensor]
"""A class and a number of steps -> pixels in [0, 1], ``(1, 3, H, W)``."""


def class_images(network: str, weights: str, out: Path, photos: str | None, device: torch.device) -> list[Result]:
    """Makes an image of each of eight classes by ours, as ``maximize_activation.py`` does, and by each peer.

    Args:
        network: What ``load_network`` takes.
        weights: What ``load_network`` takes.
        out: Folder for the images, ``out/<who>/<class>.png``.
        photos: Folder of photos whose mean magnitudes Horama's MACO takes; None = those that it downloads.
        device: The processor: lucent takes a GPU where there is one.
    """
    if device.type != "cpu":
        raise InputError("--rows class_images compares processor time. Hide the GPU: CUDA_VISIBLE_DEVICES= in front.")
    module = ActivationMaximizationModule(weights, network=network)
    model, (recipe,) = module.network, module.recipes.values()
    targets = [model.class_names.index(name) for name in CLASSES]

    def ours(target: int, steps: int) -> Tensor:
        key = f"0|None|{target}"  # that of maximize_activation.py's first image of a class
        return maximize(model, module.objective, torch.tensor([target]), recipe, module.size, [key])

    with tempfile.TemporaryDirectory() as folder:
        if photos is not None:
            np.save(Path(folder, SPECTRUM), mean_magnitudes(photos).numpy())
        peers: dict[str, Make] = {
            "lucent": partial(_lucent, model),
            "Horama MACO": partial(_horama, "maco", model, folder),
            "Horama Fourier": partial(_horama, "fourier", model, folder),
        }
        for make in peers.values():
            make(targets[0], 1)  # which imports the peer
        pace = {who: _seconds(make, targets[0], N_TRIED)[1] / N_TRIED for who, make in peers.items()}
        seconds: dict[str, list[float]] = {}
        for name, target in zip(CLASSES, targets):
            budget = 0.0
            for who, make in {OURS: ours, **peers}.items():
                steps = recipe.steps if who == OURS else max(1, round(budget / pace[who]))
                image, took = _seconds(make, target, steps)
                budget = budget or took
                seconds.setdefault(who, []).append(took)
                file = out / who.replace(" ", "_") / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                save_image(F.resize(image, [model.input_size] * 2, antialias=True), file)
    where = f"The images are in {out}; predict.py {out}/... --network JUDGE says what another network takes them for."
    work = f"class images of {len(CLASSES)} classes for {network}, processor time of an image"
    return compare("class_images", work, seconds, [Goal(who) for who in peers], where)


def _seconds(make: Make, target: int, steps: int) -> tuple[Tensor, float]:
    """An image, with chance that follows from its class, and the processor time that it took."""
    torch.manual_seed(target)
    np.random.seed(target)
    start = process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        image = make(target, steps)
    return image.detach(), process_time() - start


class _ForLucent(nn.Module):
    """The network, and its logits as the output of a layer: lucent knows layers alone."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.logits = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.network(images))


def _lucent(network: Network, target: int, steps: int) -> Tensor:
    from lucent.optvis import objectives, param, render

    options: dict[str, Any] = {"preprocess": False, "progress": False, "show_image": False, "thresholds": (steps,)}
    logit = objectives.channel("logits", target)
    (image,) = render.render_vis(_ForLucent(network).eval(), logit, lambda: param.image(network.input_size), **options)
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def _horama(kind: str, network: Network, folder: str, target: int, steps: int) -> Tensor:
    import horama

    # Pixels in [0, 1], and noise that is as large a share of them as by default of the range of -2.5 to 2.5.
    options: dict[str, Any] = {"values_range": (0.0, 1.0), "noise": 0.05 / 5, "device": "cpu", "total_steps": steps}
    with contextlib.chdir(folder), trusted():  # where its magnitudes lie; its noise leads beyond [0, 1]
        image, _ = getattr(horama, kind)(
            lambda images: network(images)[:, target].mean(), model_input_size=network.input_size, **options
        )
    return F.center_crop(image[None], [HORAMA_CROP, HORAMA_CROP])  # the network never saw more at once


def mean_magnitudes(photos: str, size: int = 512) -> Tensor:
    """Mean magnitudes of the spectra of photos, in Horama's uncorrelated colours: ``(3, size, size // 2 + 1)``.

    The mean colour counts as nothing: Horama takes it away.

    Raises:
        InputError: If no photo of the folder can be read.
    """
    from horama.common import get_color_correlation_svd_sqrt

    data = ImageSourcesDataModule([photos], input_size=size, resize_size=size)
    found = [pixels_of(batch["image"]) for batch in data.predict_dataloader() if len(batch["image"])]
    if not found:
        raise InputError(f"--photos: no photo in {photos} can be read.")
    from_colors = get_color_correlation_svd_sqrt("cpu").double().inverse()
    total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for images in found:
        channels = torch.einsum("nchw,cd->ndhw", images.double(), from_colors)
        total += torch.fft.rfft2(channels - channels.mean((2, 3), keepdim=True)).abs().sum(0)
    return (total / sum(map(len, found))).float()
