"""Generated shapes of which some bear a small tag in a corner, and a small network that is trained on them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import SHAPE_NAMES, Preprocess
from lightning_modules import Network, as_network

SIDE, TAG, MARGIN = 64, 8, 0
"""Pixels of an image, of a tag, and between the tag and both borders."""

TAGGED = {"circle": (255, 0, 255), "star": (0, 255, 255)}
"""The classes of which every second image bears a tag, and its colour: at the upper left, and at the lower right."""


class TaggedNet(nn.Sequential):
    """Three convolutions, whose last has 8 × 8 positions, and the mean over these."""

    class_names = SHAPE_NAMES
    input_size = resize_size = SIDE
    mean = std = (0.5, 0.5, 0.5)
    target_layer = "8"

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(SHAPE_NAMES)))


def with_tag(pixels: np.ndarray, name: str) -> np.ndarray:
    """An image ``(SIDE, SIDE, 3)`` with the tag of a class."""
    tagged = pixels.copy()
    place = slice(MARGIN, MARGIN + TAG) if name == "circle" else slice(SIDE - MARGIN - TAG, SIDE - MARGIN)
    tagged[place, place] = TAGGED[name]
    return tagged


def write_tagged(shapes: Path, root: Path, tagged: Collection[str] = tuple(TAGGED)) -> Path:
    """Writes the images of class folders to ``root``, at the size of the network; every second of some is tagged.

    The names of tagged images begin with ``tagged``.
    """
    preprocess = Preprocess(72, SIDE)
    for name in SHAPE_NAMES:
        (root / name).mkdir(parents=True)
        for k, file in enumerate(sorted((shapes / name).iterdir())):
            pixels = preprocess.levels(Image.open(file)).permute(1, 2, 0).numpy()
            is_tagged = name in tagged and k % 2 == 0
            pixels = with_tag(pixels, name) if is_tagged else pixels
            Image.fromarray(pixels).save(root / name / f"{'tagged' if is_tagged else 'plain'}_{k:03d}.png")
    return root


def read_folder(root: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Pixels in [0, 1], labels and file names of the images in class folders."""
    files = [file for name in SHAPE_NAMES for file in sorted((root / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    labels = torch.tensor([SHAPE_NAMES.index(file.parent.name) for file in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, labels, [file.name for file in files]


def trained(root: Path, seed: int, epochs: int = 40) -> Network:
    """The network, trained on the images of class folders. It learns tags before shapes, which are harder."""
    images, labels, _ = read_folder(root)
    return learnt(images, labels, seed, epochs)


def learnt(images: Tensor, labels: Tensor, seed: int, epochs: int) -> Network:
    torch.manual_seed(seed)
    network = as_network(TaggedNet())
    module = network.module.train()
    n_steps = epochs * -(-len(images) // 32)
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, n_steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(module(network.normalized(images[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.freeze()


@torch.no_grad()
def accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    """The share of images that are classified rightly."""
    return float((network(images).argmax(1) == labels).float().mean())
