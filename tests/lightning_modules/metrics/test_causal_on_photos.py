"""Insertion and deletion of a real network on real photos, against RISE's published procedure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from datamodules.preprocess import Preprocess
from lightning_modules import GradCAM, Saliency, explain, load_network
from lightning_modules.metrics import InsertionDeletion
from lightning_modules.metrics.order import pixel_order
from tests.references import rise_auc, rise_scores

STEP = 224 * 28


@pytest.mark.photos
@pytest.mark.slow
@pytest.mark.parametrize("method", [GradCAM(), Saliency()], ids=repr)
def test_insertion_and_deletion_are_rises(
    method: GradCAM | Saliency, photos: Path, squeezenet_weights: Path, plain_squeezenet: nn.Module
) -> None:
    """The whole way, from the file: torchvision's transforms and network there, ours here; curves to 1e-4."""
    theirs = nn.Sequential(plain_squeezenet, nn.Softmax(1)).eval()
    preset = models.SqueezeNet1_0_Weights.IMAGENET1K_V1.transforms()
    network = load_network("torchvision.models.squeezenet1_0", squeezenet_weights)
    prepare = Preprocess(network.resize_size, network.input_size)
    files = sorted(photos.rglob("*.*"))[5::35]
    pictures = [v2.functional.to_pil_image(torchvision.io.decode_image(str(file), "RGB")) for file in files]
    assert len(pictures) == 2
    explanation = explain(network, torch.stack([prepare(picture) for picture in pictures]), [method])
    maps = explanation[repr(method)]
    # Grad-CAM ties where it is 0; RISE takes the pixels in our order there.
    place = pixel_order(maps, explanation.forward_pass, method, None, 0).place
    batch: dict = {}
    found = InsertionDeletion(step=STEP).score(maps, explanation.forward_pass, batch, method)
    for k, picture in enumerate(pictures):
        image, importance = preset(picture)[None], -place[k].numpy()
        for name, mode in (("insertion", "ins"), ("deletion", "del")):
            scores = rise_scores(theirs, image, importance, mode, STEP)
            assert np.ptp(scores) > 0.1  # a curve that says something
            np.testing.assert_allclose(found[f"{name}_curve"][k], scores, rtol=0, atol=1e-4)
            assert float(found[name][k]) == pytest.approx(rise_auc(scores), abs=1e-5)
