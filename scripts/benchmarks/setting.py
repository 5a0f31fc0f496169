"""What all rows share: the network in our form and in the peers', the images, the bare passes, how a row is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.timing import LEEWAY, OURS, Contender, Goal, Row, assert_close, by_passes
from lightning_modules import VGG16, Network, load_vgg16

LAYER = "features.29"
"""The last layer with positions, which class activation maps look at."""

Work = Callable[[Network, Tensor, Tensor], Any]
"""A network, images, a target for each -> maps, adversarial images, ..."""


class Peer(NamedTuple):
    """Someone else who does a row's work, and how many passes it takes them and us."""

    name: str
    run: Work
    theirs: float
    ours: float


def prepared(peer: str) -> str:
    """The name of a peer that is given what we have."""
    return f"{peer}, given our network and memory"


@dataclass
class Setting:
    """Networks and images of a benchmark.

    Attributes:
        weights: What :func:`load_vgg16` takes; ``random`` is the full-size VGG16, seeded.
        batch_size: Images in a batch of the rows that are not of fewer by their nature.
        device: Where all is computed.
        peers: Whether the peers run.
        dtype: Of weights and images.
    """

    weights: str
    batch_size: int
    device: torch.device
    peers: bool = True
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
        """The network as the peers' users have it: torchvision's memory format, parameters that may be trained."""
        return _for_peers(self.network).requires_grad_(True).to(memory_format=torch.contiguous_format)

    @cached_property
    def prepared(self) -> Network[VGG16]:
        """The network as ours is, frozen and ``channels_last``, for peers whose user knows about that."""
        return _for_peers(self.network)

    def images(self, n: int) -> Tensor:
        """Images of noise, ``(n, 3, H, W)`` in [0, 1], always the same."""
        generator = torch.Generator().manual_seed(n)
        return torch.rand(n, 3, *[self.network.input_size] * 2, generator=generator).to(self.device, self.dtype)

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

    @torch.no_grad()
    def bare_forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """One forward pass of the bare network."""
        return self.network(images.contiguous(memory_format=torch.channels_last))

    def row(
        self,
        name: str,
        work: str,
        n: int,
        ours: Work,
        bare: Mapping[str, Callable[[Tensor, Tensor], Any]],
        peers: Sequence[Peer] = (),
        check: Callable[[], str] | None = None,
        *,
        at_most: float = LEEWAY,
        units: float = 1.0,
        rounds: int = 1_000,
    ) -> Row:
        """A row of ours, the bare network, and each peer twice: given our network and memory, and as users have it.

        Args:
            name: What ``--rows`` calls it.
            work: What is done, in words.
            n: How many images there are.
            ours: Our way.
            bare: Name -> the least passes that the work needs. The first one has a goal, others are for information.
            peers: The others; none run if the setting has none, and then nothing is checked.
            check: See :class:`Row`.
            at_most: How many times the time of the first of ``bare`` ours may take.
            units: How much of the work one call does.
            rounds: Most turns that each contender has.
        """
        images, target, peers = self.images(n), self.target(n), peers if self.peers else ()

        contenders = [Contender(Goal(OURS), partial(ours, self.network, images, target))]
        for k, (who, run) in enumerate(bare.items()):
            contenders.append(Contender(Goal(who, at_most=None if k else at_most), partial(run, images, target)))
        for peer in peers:
            goal = by_passes(prepared(peer.name), peer.theirs, peer.ours)
            contenders.append(Contender(goal, partial(peer.run, self.prepared, images, target)))
            as_found = partial(peer.run, self.as_found, images, target)
            contenders.append(Contender(Goal(peer.name), as_found, as_found=True))
        return Row(name, work, contenders, check if peers else None, units, rounds)

    def equal(self, ours: Work, theirs: Sequence[Work], tolerance: float, what: str) -> str:
        """That others give what we do of one image, in words."""
        images, target, found = self.images(1), self.target(1), ""
        mine = ours(self.network, images, target)
        for run in theirs:
            others = run(self.prepared, images, target)
            for one, other in zip(mine, others if isinstance(others, tuple) else (others,), strict=True):
                found = assert_close(one, other, tolerance, what)
        return found


def _for_peers(network: Network[VGG16]) -> Network[VGG16]:
    """A copy whose ReLUs are not in place, since Captum's hooks cannot see through those."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network
