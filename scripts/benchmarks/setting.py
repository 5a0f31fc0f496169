"""What all rows share: the network in our form and in the peers', the images, the bare loop."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Contender, Goal, by_passes
from lightning_modules import VGG16, Network, load_vgg16

LAYER = "features.29"
"""The last layer with positions, which class activation maps look at."""


def prepared(peer: str) -> str:
    """What a peer is called that is given what we have."""
    return f"{peer}, given our network and memory"


def peer_goals(peer: str, theirs: float, ours: float) -> list[Goal]:
    """Against a peer that is given what we have, by the passes that both make; as its users have it, no goal."""
    return [by_passes(prepared(peer), theirs, ours), Goal(peer)]


@dataclass
class Setting:
    """Networks and images of a benchmark.

    Attributes:
        weights: What :func:`load_vgg16` takes; ``random`` is the full-size VGG16, seeded.
        batch_size: Images in a batch of the rows that are not of fewer by their nature.
        device: Where all is computed.
        dtype: Of weights and images.
    """

    weights: str
    batch_size: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    @cached_property
    def exact(self) -> Setting:
        """The same in float64, to compare outputs in.

        In float32 a rounding, which is another in another memory format, may open or close a ReLU: a whole patch of
        the map then differs, and nobody is right.
        """
        return replace(self, dtype=torch.float64)

    @cached_property
    def network(self) -> Network[VGG16]:
        """Ours: frozen, ``channels_last``."""
        return load_vgg16(self.weights).to(self.device, self.dtype)

    @cached_property
    def as_found(self) -> Network[VGG16]:
        """The network as the peers' users have it: torchvision's memory format, parameters that may be trained.

        Its ReLUs are not in place, since Captum's hooks cannot see through those.
        """
        return self.for_peers(
            copy.deepcopy(self.network).requires_grad_(True).to(memory_format=torch.contiguous_format)
        )

    @cached_property
    def prepared(self) -> Network[VGG16]:
        """The network as ours is, frozen and ``channels_last``, for peers whose user knows about that."""
        return self.for_peers(copy.deepcopy(self.network))

    def peer(self, name: str, run: Callable[[Network[VGG16]], Any], units: float = 1.0) -> list[Contender]:
        """A peer that works on a network, given ours and our memory; and the same as its users have it."""
        return [
            Contender(prepared(name), partial(run, self.prepared), units),
            Contender(name, partial(run, self.as_found), units, as_found=True),
        ]

    @staticmethod
    def for_peers(network: Network[VGG16]) -> Network[VGG16]:
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        return network

    def images(self, n: int) -> Tensor:
        """Images of uniform noise over smooth colours, ``(n, 3, H, W)`` in [0, 1]; image ``i`` is always the same."""
        size = self.network.input_size
        made = []
        for i in range(n):
            generator = torch.Generator().manual_seed(i)
            coarse = torch.rand(1, 3, 7, 7, generator=generator)
            smooth = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
            made.append(0.8 * smooth + 0.2 * torch.rand(1, 3, size, size, generator=generator))
        return torch.cat(made).to(self.device, self.dtype)

    def target(self, n: int) -> Tensor:
        """A class for each image, long ``(n,)``."""
        return torch.arange(n, device=self.device) % len(self.network.class_names)

    def bare_gradient(self, images: Tensor, target: Tensor) -> Tensor:
        """The limit: one forward and one backward pass of the bare network, with nothing else."""
        images = images.detach().clone(memory_format=torch.channels_last).requires_grad_()
        score = self.network(images).gather(1, target[:, None]).sum()
        return torch.autograd.grad(score, images)[0]

    def bare_layer_gradient(self, images: Tensor, target: Tensor) -> Tensor:
        """What a class activation map needs at least: a forward pass, and a backward pass that ends at its layer."""
        vgg, images = self.network.module, images.contiguous(memory_format=torch.channels_last)
        k = int(LAYER.removeprefix("features.")) + 1
        with torch.no_grad():
            activation = vgg.features[:k](self.network.normalized(images))
        activation.requires_grad_()
        logits = vgg.classifier(vgg.avgpool(vgg.features[k:](activation)).flatten(1))
        return torch.autograd.grad(logits.gather(1, target[:, None]).sum(), activation)[0]

    def bare_forwards(self, n: int, most: int = 32) -> None:
        """Forward passes of ``n`` images, at most ``most`` in one."""
        images = self.images(1).expand(min(n, most), -1, -1, -1)
        for start in range(0, n, most):
            self.bare_forward(images[: n - start])

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of that for one image; a multiplication and an addition count as two."""
        images = self.images(1)  # before it is counted: the network is loaded, and looked at, when it is first needed
        with FlopCounterMode(display=False) as counter:
            self.bare_forward(images)
        return 2 * counter.get_total_flops()  # the way back to the pixels takes as many as the way there

    @torch.no_grad()
    def bare_forward(self, images: Tensor) -> Tensor:
        """One forward pass of the bare network."""
        return self.network(images.contiguous(memory_format=torch.channels_last))

    def bf16(self, enabled: bool = True) -> contextlib.AbstractContextManager:
        """bfloat16 by autocast, as ``--trainer.precision bf16-mixed`` has it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def has_fast_bf16(self) -> bool:
        """Whether the device multiplies bfloat16 in hardware."""
        if self.device.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        flags = torch.backends.cpu.get_cpu_capability(), torch.cpu._is_avx512_bf16_supported()
        return bool(flags[1]) or torch.cpu._is_amx_tile_supported()
