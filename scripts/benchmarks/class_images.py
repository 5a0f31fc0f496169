"""Class images of ours beside the peers': the same classes, network, judges and processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.class_image_peers import PEERS, Peer, spectrum_of
from benchmarks.timing import OURS
from lightning_modules import ActivationMaximizationModule
from lightning_modules.errors import InputError
from lightning_modules.options import seed_from
from lightning_modules.synthesis import Objective, Progress

N_TRIED = 8
"""Steps by which a peer's pace is taken before its first image."""


class ClassImageComparison(ActivationMaximizationModule):
    """Makes an image of each class as we do, then as each peer does, in the processor time that ours took.

    Args:
        peers: Who else makes images: lucent, horama_maco, horama_fourier; or horama_maco_whole, horama_fourier_whole,
            whose crops are three quarters of the image or more.
        photos: Folder of photos, flat or of class folders, whose mean magnitudes Horama's MACO takes. null = those of
            ImageNet, which Horama downloads.
        own_steps: Whether each peer makes a second image of each class, in as many steps as it takes by default.
        options: What :class:`ActivationMaximizationModule` takes; without ``ablation``, and with one image a pass.
    """

    figure_of_variants = "comparison"

    def __init__(
        self,
        peers: Sequence[str] = ("lucent", "horama_maco", "horama_fourier"),
        photos: str | None = None,
        own_steps: bool = False,
        **options: Any,
    ) -> None:
        if unknown := [name for name in peers if name not in PEERS]:
            raise InputError(f"model.peers: no peer is called {unknown[0]!r}; there are {', '.join(PEERS)}.")
        for name, wanted in (("ablation", False), ("images_per_pass", 1)):
            if options.get(name, wanted) != wanted:
                raise InputError(f"model.{name} must be {str(wanted).lower()} where peers are compared.")
        super().__init__(**options)
        if not self.judges:
            raise InputError("model.judges: name at least one network that is to say who makes the better images.")
        self.recipes = {OURS: next(iter(self.recipes.values()))}
        self.peers = [PEERS[name] for name in dict.fromkeys(peers)]
        for peer in self.peers:
            peer.check()
        self.own_steps = own_steps
        wants_photos = photos is not None and any(peer.takes_spectrum for peer in self.peers)
        self.spectrum = spectrum_of(str(photos)) if wants_photos else None
        self.paces: dict[str, Pace] = {}
        self.budget = 0.0

    @property
    def variants(self) -> Sequence[str]:
        own = [_with_own_steps(peer) for peer in self.peers] if self.own_steps else []
        return (OURS, *(peer.name for peer in self.peers), *own)

    @property
    def whole(self) -> str:
        return OURS

    @property
    def legend(self) -> str:
        more = ", and then as many steps as it takes by default" if self.own_steps else ""
        return f"Each peer had the processor time that {OURS} took for the same class{more}."

    def check_data(self, data: Any) -> None:
        super().check_data(data)
        units = [unit for unit, _ in getattr(data, "items", [])]
        if channels := [unit.name for unit in units if unit.layer is not None]:
            raise InputError(f"data.classes: peers are compared on classes; {channels[0]} is a channel of a layer.")

    def on_test_start(self) -> None:
        super().on_test_start()
        if self.device.type != "cpu" or torch.cuda.is_available():
            raise InputError(
                "Processor time is what is compared, and lucent takes a GPU that it finds. Hide it and use the "
                "processor: CUDA_VISIBLE_DEVICES= and --trainer.accelerator cpu."
            )
        for peer in self.peers:
            self._made(peer, 0, 2, "warm up")
            self.paces[peer.name] = Pace()
            self._made(peer, 0, N_TRIED, "pace")

    def make(
        self,
        variant: str,
        objective: Objective,
        target: Tensor,
        keys: Sequence[str],
        on_step: Callable[[Progress], None],
    ) -> tuple[Tensor, int]:
        """Ours, whose processor time is noted, or a peer's, which gets as much."""
        if variant == OURS:
            start = time.process_time()
            made = super().make(variant, objective, target, keys, on_step)
            self.budget = time.process_time() - start
            return made
        for peer in self.peers:
            if variant in (peer.name, _with_own_steps(peer)):
                steps = self.paces[peer.name].steps_in(self.budget) if variant == peer.name else peer.own_steps
                return self._made(peer, int(target[0]), steps, keys[0]), steps
        raise KeyError(variant)

    def _made(self, peer: Peer, target: int, steps: int, key: str) -> Tensor:
        """An image by a peer, whose pace is noted."""
        spectrum = self.spectrum.magnitudes if self.spectrum and peer.takes_spectrum else None
        start = time.process_time()
        image = peer.image(self.network, target, steps, seed_from(key, peer.name), spectrum)
        if peer.name in self.paces:
            self.paces[peer.name].note(steps, time.process_time() - start)
        return image

    def facts(self, run: Path) -> dict[str, Any]:
        peers = {peer.package: version(peer.package) for peer in self.peers}
        facts: dict[str, Any] = {**super().facts(run), "peers": peers}
        if self.spectrum is not None:
            facts["spectrum"] = {"n_photos": self.spectrum.n_photos, "n_failed": self.spectrum.n_failed}
        return facts


class Pace:
    """How many steps a peer makes in a second, by all that it has made."""

    def __init__(self) -> None:
        self.steps, self.seconds = 0, 0.0

    def note(self, steps: int, seconds: float) -> None:
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds

    def steps_in(self, seconds: float) -> int:
        """How many it makes in so many seconds, at least 1.

        Example:
            >>> pace = Pace()
            >>> pace.note(10, 2.0)
            >>> pace.note(20, 4.0)
            >>> pace.steps_in(3.1)
            16
        """
        return max(1, round(seconds * self.steps / self.seconds))


def _with_own_steps(peer: Peer) -> str:
    return f"{peer.name}, {peer.own_steps} steps"
