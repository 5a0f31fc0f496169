"""VGG16 of any width, and the ways to get its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.libraries.torchvision import IMAGENET_MEAN, IMAGENET_STD, imagenet_class_names
from lightning_modules.networks.making import as_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions, Preset
from lightning_modules.networks.weights.files import WeightsError, download, find_file, first_line, read_weights
from lightning_modules.networks.weights.loading import load, loaded, warn_of
from lightning_modules.networks.weights.state_dicts import state_dict_in

EMBEDDED_WEIGHTS = Path(__file__).with_name("shapes_vgg16.pth")
WEIGHTS_HELP = (
    "IMAGENET1K_V1 (torchvision's, downloaded once), shapes (the small embedded model), random (seeded, untrained), "
    "or the path of a .pth, .ckpt or .safetensors file; if that holds several networks, PATH#model_ema takes one"
)


class VGG16(nn.Module):
    """VGG16 (configuration D) from normalized images to logits.

    The names of layers and parameters are torchvision's (``features.29``, ``classifier.6.weight``), so its state dicts
    fit. Unlike torchvision's, the module scales in width, and knows its class names and the size of image that it was
    trained on. :meth:`network` makes it one of pixels.

    Args:
        class_names: Name of each output, in order.
        width: Factor on the channels of every convolution; 1 is the paper's.
        hidden_features: Width of the two hidden fully connected layers.
        input_size: Height and width in pixels of the images it was trained on, at least 32.
        resize_size: Length in pixels of an image's shorter side before the crop to ``input_size``.
        batch_norm: Whether a batch norm follows each convolution, as training from scratch needs it.
        interpolation: How images were resized: bilinear, bicubic, ...
        crop: How images were brought to a square: center, squash, ...

    Shape: ``(N, 3, H, W)`` -> ``(N, len(class_names))``.

    Raises:
        InputError: If a size is below 32, ``hidden_features`` below 1, or ``class_names`` is not a list of names.

    Reference: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """

    target_layer = "features.29"
    """The last ReLU of the features: the default layer of Grad-CAM."""

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        width: float = 1.0,
        hidden_features: int = 4096,
        input_size: int = 224,
        resize_size: int = 256,
        batch_norm: bool = False,
        interpolation: str = "bilinear",
        crop: str = "center",
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("resize_size", resize_size)):
            if not isinstance(size, int) or size < 32:
                raise InputError(f"{name} must be at least 32 pixels, got {size}.")
        if not isinstance(hidden_features, int):
            raise InputError(f"hidden_features should be a whole number, got {hidden_features!r}.")
        check_at_least_one(hidden_features=hidden_features)
        if not class_names or isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
            raise InputError(f"class_names should be the names of the outputs, got {class_names!r}.")
        self.class_names = list(class_names)
        self.width = width
        self.hidden_features = hidden_features
        self.input_size = input_size
        self.resize_size = resize_size
        self.batch_norm = batch_norm
        self.interpolation = interpolation
        self.crop = crop
        channels = [v if isinstance(v, str) else max(1, int(v * width)) for v in cfgs["D"]]
        grid = input_size // 32
        self.features = make_layers(channels, batch_norm=batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((grid, grid))
        self.classifier = nn.Sequential(
            nn.Linear(int(channels[-2]) * grid * grid, hidden_features),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden_features, len(self.class_names)),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.avgpool(self.features(images))
        return self.classifier(torch.flatten(x, 1))

    def network(self, **options: Unpack[NetworkOptions]) -> Network[VGG16]:
        """The network from pixels in [0, 1] around this module; by default with ImageNet's normalization."""
        network = as_network(self, **options, preset=Preset("VGG16", {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}))
        self.class_names = list(network.class_names)
        return network

    def description(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values: ``VGG16(**network.description())`` has the same layout."""
        names = ("class_names", "width", "hidden_features", "input_size", "resize_size", "batch_norm")
        return {name: getattr(self, name) for name in (*names, "interpolation", "crop")}

    def initialize(self, seed: int) -> VGG16:
        """Draws all weights anew, from ``seed`` alone, as He et al. (ICCV 2015) do for ReLUs; returns ``self``.

        The last layer begins near zero, so that training starts from even probabilities. (torchvision's fixed deviation
        of 0.01 for the whole classifier suits 4,096 hidden units; narrower ones learn very slowly from it.)
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.get_parameter("classifier.6.weight"), 0, 0.01, generator=generator)
        return self


@gradients_enabled()
def load_vgg16(
    weights: str | Path = "IMAGENET1K_V1", *, seed: int = 0, **options: Unpack[NetworkOptions]
) -> Network[VGG16]:
    """Loads a VGG16 that maps pixels in [0, 1] to logits, frozen, in eval mode and ``channels_last``.

    The number of classes is that of the file; batch norms, as those of ``vgg16_bn``, are folded into the
    convolutions.

    Args:
        weights: ``"IMAGENET1K_V1"`` (torchvision's, downloaded once, its hash checked each time), ``"shapes"`` (the
            embedded model), ``"random"`` (full size, untrained), or the path of a file in torchvision's layout or of
            one that ``train_classifier.py`` wrote; ``PATH#PART`` takes a part of it. Nothing in it is executed.
        seed: Seed of the ``"random"`` weights; unused otherwise.
        **options: Options of the network, see :class:`~lightning_modules.networks.options.NetworkOptions`.

    Raises:
        WeightsError: If the weights cannot be had; there is no fallback.
        InputError: If there are more or fewer ``class_names`` than outputs.

    Example:
        >>> network = load_vgg16("shapes")
        >>> network(torch.rand(2, 3, 112, 112)).shape
        torch.Size([2, 8])
    """
    name = str(weights)
    if name == "random":
        with torch.device("meta"):  # 138 million weights need not be drawn twice
            module = VGG16(imagenet_class_names())
        return module.to_empty(device="cpu").initialize(seed).network(**options).freeze()
    if name == "shapes":
        return _from_file(EMBEDDED_WEIGHTS, "", options)
    if name in ("IMAGENET1K_V1", "DEFAULT"):
        return _from_file(download(VGG16_Weights.IMAGENET1K_V1), "", options)
    if name in VGG16_Weights.__members__:
        raise WeightsError(
            f"The weights {name} are of the features alone: their classifier is NaN, so they predict nothing. "
            "Use IMAGENET1K_V1."
        )
    found = find_file(weights)
    if found is None:
        raise WeightsError(f"No weights are called {name!r}, and there is no such file. Use {WEIGHTS_HELP}.")
    return _from_file(*found, options)


def save_vgg16(network: Network[VGG16], path: str | Path) -> None:
    """Writes a file that :func:`load_vgg16` reads: the weights with the architecture, class names and input size.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_vgg16(load_vgg16("shapes"), f"{folder}/network.pth")
        ...     load_vgg16(f"{folder}/network.pth").class_names[:2]
        ['arrow', 'circle']
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    torch.save({"vgg16": network.module.description(), "state_dict": state}, path)


def fold_batch_norm(network: VGG16) -> VGG16:
    """A plain VGG16 that computes what ``network`` computes in eval mode, its batch norms folded into the convolutions.

    Returns ``network`` itself if it has none.
    """
    if not network.batch_norm:
        return network
    folded = VGG16(**{**network.description(), "batch_norm": False})
    norms = [(a, b) for a, b in zip(network.features, list(network.features)[1:]) if isinstance(b, nn.BatchNorm2d)]
    convolutions = [module for module in folded.features if isinstance(module, nn.Conv2d)]
    for target, (convolution, norm) in zip(convolutions, norms, strict=True):
        target.load_state_dict(fuse_conv_bn_eval(convolution.eval(), norm.eval()).state_dict())
    folded.classifier.load_state_dict(network.classifier.state_dict())
    return folded


def _from_file(path: Path, part: str, options: NetworkOptions) -> Network[VGG16]:
    content = read_weights(path)
    state = state_dict_in(path, content, part)
    description = content.get("vgg16", {})
    ours = bool(description) and not (
        isinstance(description, Mapping) and any(isinstance(value, Tensor) for value in description.values())
    )
    if not ours:
        batch_norm = any(name.endswith("running_mean") for name in state.tensors)
        description = {"batch_norm": True} if batch_norm else {}

    def layout(num_classes: int = 1000) -> VGG16:
        names = imagenet_class_names() if num_classes == 1000 else [str(k) for k in range(num_classes)]
        try:
            with torch.device("meta"):  # without memory, of which a damaged description might ask for any amount
                return VGG16(**{"class_names": names, **description})
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise WeightsError(f"{path} describes a VGG16 that cannot be built: {first_line(error)}") from error

    network, notes = loaded(
        state,
        layout,
        () if ours else ("num_classes",),
        "a VGG16 of 1000 classes in torchvision's layout" if not ours else "the VGG16 that it describes",
        "Only checkpoints of train_classifier.py may have other widths; weights of another network need its import "
        "path, model.network.",
    )
    load(state, network.to_empty(device="cpu"), "", "")
    if not ours:  # our own checkpoints keep the network under a LightningModule's attribute
        warn_of(path, [*notes, *["its batch norms were folded into the convolutions"] * network.batch_norm])
    return fold_batch_norm(network.eval()).network(**options).freeze()
