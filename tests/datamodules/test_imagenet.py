from __future__ import annotations

from torchvision.models import VGG16_Weights

from datamodules.imagenet import imagenet_class_names, imagenet_classes


def test_names_are_torchvisions() -> None:
    assert imagenet_class_names() == VGG16_Weights.IMAGENET1K_V1.meta["categories"]
    assert sorted(imagenet_classes()) == list(imagenet_classes())
    assert imagenet_classes()["n01751748"] == (65, "sea snake")
