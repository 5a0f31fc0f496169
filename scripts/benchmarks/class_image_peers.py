"""Peers that make class images: lucent and Horama, with the settings that their users have by default.

Each gets our network, frozen and in eval mode, which takes pixels in [0, 1] and normalizes by itself.
"""

from __future__ import annotations

import pkgutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as F

from datamodules import Preprocess
from datamodules.batch import pixels_of
from datamodules.photos import PhotoFolder
from lightning_modules import Network
from lightning_modules.errors import InputError, described
from lightning_modules.networks.enabled import gradients_enabled

SPECTRUM_SIZE = 512
"""Pixels a side of the photos that magnitudes are taken of."""

HORAMA_SIZE, HORAMA_CROP = 1280, 352
"""Pixels a side of Horama's images and of its crops, by default: these are a quarter to 0.3 of the image."""


class Peer(NamedTuple):
    """Who makes class images beside us.

    Attributes:
        name: What tables call it.
        package: What pip calls it.
        needs: What has to be there, as :func:`pkgutil.resolve_name` takes it: ``module:name``.
        own_steps: Its steps by default.
        make: A network, a class, a number of steps and magnitudes -> pixels in [0, 1], ``(1, 3, H, W)``.
        takes_spectrum: Whether it needs magnitudes of natural images, see :class:`Spectrum`; given none, it downloads
            some.
    """

    name: str
    package: str
    needs: tuple[str, ...]
    own_steps: int
    make: Callable[[Network, int, int, Tensor | None], Tensor]
    takes_spectrum: bool = False

    def check(self) -> None:
        """Whether it can be used here.

        Raises:
            InputError: If it, or what it needs, is missing.
        """
        for name in self.needs:
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError) as error:
                raise InputError(
                    f"model.peers: {self.name} cannot be had: {described(error)} "
                    "pip install --constraint constraints.txt '.[bench]' installs what fits together."
                ) from error

    def is_there(self) -> bool:
        """Whether it can be used here."""
        with suppress(InputError):
            self.check()
            return True
        return False

    def image(self, network: Network, target: int, steps: int, seed: int, spectrum: Tensor | None) -> Tensor:
        """An image of a class, ``(1, 3, size, size)`` in [0, 1]; what is random about it follows from the seed.

        Raises:
            InputError: If the peer fails.
        """
        size = network.input_size
        try:
            with gradients_enabled(), _seeded(seed):
                made = self.make(network, target, steps, spectrum)
        except Exception as error:
            is_offline = isinstance(error, OSError) and self.takes_spectrum and spectrum is None
            remedy = " Instead of the file that it downloads, it takes photos of yours: model.photos." * is_offline
            raise InputError(
                f"model.peers: {self.name} ({self.package} {version(self.package)}) fails: {described(error)}{remedy}"
            ) from error
        return F.resize(made.detach(), [size, size], antialias=True)


class _ForLucent(nn.Module):
    """The network, and its logits as the output of a layer: lucent knows layers alone."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.logits = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.network(images))


def _lucent(network: Network, target: int, steps: int, spectrum: Tensor | None) -> Tensor:
    from lucent.optvis import objectives, param, render

    model, objective = _ForLucent(network).eval(), objectives.channel("logits", target)
    options = {"preprocess": False, "progress": False, "show_image": False}
    (image,) = render.render_vis(
        model, objective, lambda: param.image(network.input_size), thresholds=(steps,), **options
    )
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def _horama(kind: str, whole: bool, network: Network, target: int, steps: int, spectrum: Tensor | None) -> Tensor:
    """By default, an image of many times the network's size, of which the network sees crops about the middle.

    Args:
        kind: maco or fourier.
        whole: Instead, an image of the network's size, and crops of three quarters to all of it.
        network: Ours.
        target: The class.
        steps: How many.
        spectrum: Magnitudes, for maco; None = those that it downloads.
    """
    import horama
    from horama import fourier_fv, maco_fv

    # Pixels in [0, 1], and noise that is as large a share of them as by default of the range of -2.5 to 2.5.
    options = {"values_range": (0.0, 1.0), "noise": 0.05 / 5, "device": "cpu", "total_steps": steps}
    size = {"image_size": network.input_size, "box_size": (0.5, 0.75)} if whole else {"image_size": HORAMA_SIZE}
    silent = partial(maco_fv.tqdm, disable=True)
    with (
        _spectrum_file(spectrum) as file,
        mock.patch.object(maco_fv, "tqdm", silent),
        mock.patch.object(fourier_fv, "tqdm", silent),
        mock.patch.object(maco_fv, "MACO_SPECTRUM_FILENAME", str(file)),
    ):
        image, _ = getattr(horama, kind)(
            lambda images: network(images)[:, target].mean(), model_input_size=network.input_size, **size, **options
        )
    # What the network saw: of the whole, it knows nothing.
    return image[None] if whole else F.center_crop(image[None], [HORAMA_CROP, HORAMA_CROP])


_HORAMA = ("horama.maco_fv:maco", "einops:rearrange")
PEERS = {
    "lucent": Peer(
        "lucent", "torch-lucent", ("lucent.optvis.render:render_vis", "kornia:get_rotation_matrix2d"), 512, _lucent
    ),
    "horama_maco": Peer("Horama MACO", "horama", _HORAMA, 1000, partial(_horama, "maco", False), True),
    "horama_fourier": Peer("Horama Fourier", "horama", _HORAMA, 1000, partial(_horama, "fourier", False)),
    "horama_maco_whole": Peer("Horama MACO, whole", "horama", _HORAMA, 1000, partial(_horama, "maco", True), True),
    "horama_fourier_whole": Peer("Horama Fourier, whole", "horama", _HORAMA, 1000, partial(_horama, "fourier", True)),
}
"""What the command line calls them."""


class Spectrum(NamedTuple):
    """Mean magnitudes of photos.

    Attributes:
        magnitudes: ``(3, 512, 257)``, see :func:`magnitudes`.
        n_photos: How many photos it is the mean of.
        n_failed: How many could not be read.
    """

    magnitudes: Tensor
    n_photos: int
    n_failed: int


def spectrum_of(photos: str) -> Spectrum:
    """The spectrum of the photos of a folder, flat or of class folders.

    Raises:
        InputError: If none can be read.
    """
    folder = PhotoFolder(photos, "model.photos", Preprocess(SPECTRUM_SIZE, SPECTRUM_SIZE), num_workers=0)
    total, n, n_failed = torch.zeros(3, SPECTRUM_SIZE, SPECTRUM_SIZE // 2 + 1, dtype=torch.float64), 0, 0
    for batch in folder.batches():
        n, n_failed = n + len(batch["image"]), n_failed + len(batch["failed"])
        if len(batch["image"]):
            total += magnitudes(pixels_of(batch["image"])).sum(0)
    if not n:
        raise InputError(f"model.photos: none of the {n_failed} photos in {folder.root} can be read.")
    return Spectrum((total / n).float(), n, n_failed)


def magnitudes(images: Tensor) -> Tensor:
    """Magnitudes of the spectra of images ``(N, 3, H, W)`` in Horama's uncorrelated colours, ``(N, 3, H, W // 2 + 1)``.

    A constant image has none: Horama takes the mean away.
    """
    from horama.common import get_color_correlation_svd_sqrt

    with gradients_enabled():  # Horama keeps the tensor, and uses it again where there are gradients
        to_colors = get_color_correlation_svd_sqrt("cpu").double()
    channels = torch.einsum("nchw,cd->ndhw", images.double(), to_colors.inverse())
    return torch.fft.rfft2(channels - channels.mean((2, 3), keepdim=True)).abs()


@contextmanager
def _spectrum_file(spectrum: Tensor | None) -> Iterator[Path]:
    """Where Horama finds magnitudes; of None, where it keeps those that it downloads."""
    if spectrum is None:
        folder = Path(torch.hub.get_dir()) / "horama"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder / "spectrum_decorrelated.npy"
    else:
        with tempfile.TemporaryDirectory() as temporary:
            np.save(Path(temporary) / "spectrum.npy", spectrum.numpy())
            yield Path(temporary) / "spectrum.npy"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Both sources of the peers' chance, as they were before it afterwards."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)
