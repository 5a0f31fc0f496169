"""How images are brought to a square: timm's pixels and transformers', to the bit, and where boxes go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import ConvNextImageProcessorPil, DeiTImageProcessorPil, ViTImageProcessorPil

from datamodules import DataError, Preprocess
from datamodules.batch import CROPS

SIZES = [(640, 427), (427, 640), (333, 500), (97, 61), (224, 224), (57, 300)]
"""Of images, with odd margins, to be reduced and to be enlarged."""


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.87])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_timms(size: tuple[int, int], crop_mode: str, crop_pct: float, interpolation: str) -> None:
    options: dict[str, Any] = {"input_size": (3, 96, 96), "crop_pct": crop_pct, "crop_mode": crop_mode}
    transform = timm.data.create_transform(
        **options, interpolation=interpolation, mean=(0.0,) * 3, std=(1.0,) * 3, is_training=False
    )
    ours = Preprocess(int(96 / crop_pct), 96, interpolation, crop_mode)
    assert torch.equal(ours(picture(*size)), transform(picture(*size)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("processor", "ours"),
    [
        (ViTImageProcessorPil(size={"height": 96, "width": 96}), Preprocess(None, 96, "bilinear", "squash_floor")),
        (
            DeiTImageProcessorPil(size={"height": 107, "width": 107}, crop_size={"height": 96, "width": 96}),
            Preprocess(107, 96, "bicubic", "squash_floor"),
        ),
        (
            ConvNextImageProcessorPil(size={"shortest_edge": 96}, crop_pct=0.875, resample=3),
            Preprocess(int(96 / 0.875), 96, "bicubic", "center_floor"),
        ),
    ],
    ids=["ViT", "DeiT", "ConvNext"],
)
def test_pixels_are_transformers(size: tuple[int, int], processor: Any, ours: Preprocess) -> None:
    image = picture(*size)
    theirs = processor(image, return_tensors="np", do_normalize=False)["pixel_values"][0]
    levels = np.rint(theirs * 255).astype(np.uint8)
    assert np.abs(theirs * 255 - levels).max() < 1e-3
    assert np.array_equal(ours.levels(image).numpy(), levels)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("resize_size", [None, 83])
def test_boxes_go_where_their_pixels_go(crop: str, resize_size: int | None) -> None:
    """The corners of a bright box in the picture are those of the box, to a pixel that the resize blurs."""
    pixels = np.zeros((300, 480, 3), np.uint8)
    box = torch.tensor([[200.0, 90.0, 280.0, 210.0]])
    pixels[90:210, 200:280] = 255
    preprocess = Preprocess(resize_size, 64, crop=crop)
    seen = preprocess(Image.fromarray(pixels))[0] > 0.5
    rows, columns = (seen.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    found = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]])
    torch.testing.assert_close(preprocess.move_boxes(box, 480, 300), found.float(), rtol=0, atol=1)
    whole = preprocess.move_boxes(torch.tensor([[0.0, 0, 480, 300]]), 480, 300)
    assert torch.equal(whole, torch.tensor([[0.0, 0, 64, 64]]))
    sees_all = crop.startswith("squash") and resize_size is None
    assert (preprocess.view(480, 300) == (0, 0, 480, 300)) == sees_all


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "border"}, "crop should be one of center, center_floor, squash, squash_floor, got 'border'"),
        ({"crop": "squash_floor", "resize_size": 200}, "cannot take 224 pixels of 200: resize_size must be at least"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess(**options)
