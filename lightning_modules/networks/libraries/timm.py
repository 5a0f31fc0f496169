"""timm's networks: their normalization, sizes, and the layer of Grad-CAM."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lightning_modules.networks.options import Preset


def timm_preset(module: nn.Module) -> Preset | None:
    """The options of a network of timm's, by its ``pretrained_cfg``; None for any other module.

    The sizes are those of timm's own evaluation: the crop is ``crop_pct`` of the shorter side.
    """
    if not type(module).__module__.startswith("timm.") or not hasattr(module, "pretrained_cfg"):
        return None
    from timm.data import resolve_model_data_config  # timm is there, or there were no such module

    config: dict[str, Any] = resolve_model_data_config(module)
    height, width = config["input_size"][1:]
    name = getattr(module, "pretrained_cfg", {}).get("architecture", type(module).__name__)
    warnings = []
    if height != width:
        warnings += [f"timm takes images of {height} × {width} for it; here they are squares of {height}"]
    options: Any = {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "input_size": height,
        "resize_size": math.floor(height / config["crop_pct"]),
        "interpolation": config["interpolation"],
        "crop": config.get("crop_mode", "center"),
        "target_layer": _target_layer(module),
    }
    return Preset(f"timm's pretrained_cfg of {name}", options, tuple(warnings))


def _target_layer(module: Any) -> str | None:
    """Of a ViT the norm before the last attention: behind it, only the class token reaches the logits."""
    blocks = getattr(module, "blocks", None)
    if getattr(module, "global_pool", None) == "token" and blocks is not None and hasattr(blocks[-1], "norm1"):
        return f"blocks.{len(blocks) - 1}.norm1"
    return None
