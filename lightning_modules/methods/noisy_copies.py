"""What SmoothGrad and VarGrad share: the maps of a method at noisy copies of an image."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from torch import Tensor

from lightning_modules.errors import InputError, check_at_least_one, check_object
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.gradient import Saliency
from lightning_modules.methods.variants import at_variants, noise, random_numbers, shared_batches
from lightning_modules.networks.network import Network


class NoisyCopies(AttributionMethod):
    """Makes one map of many, each of a noisy copy of the image. A subclass says how.

    The noise of an image follows from the seed and the image's key alone, so its map is the same in any batch. The
    target is that of the clean image.

    Args:
        n_samples: Noisy copies of each image, at least 1.
        noise_level: Standard deviation of the noise as a fraction of the image's own range, at least 0.
        clip: Whether the noisy pixels are clipped to [0, 1]. The paper does not clip.
        max_batch: Most noisy images in one pass, which bounds the memory. null = as many as the batch has, at least 32.
        seed: Seed of the noise.
        method: Whose maps of the copies are taken, such as GuidedBackprop or GradCAM. null = Saliency, the gradient.

    Raises:
        InputError: If ``n_samples``, ``noise_level`` or ``max_batch`` is out of its range.
    """

    def __init__(
        self,
        n_samples: int = 25,
        noise_level: float = 0.15,
        clip: bool = False,
        max_batch: int | None = None,
        seed: int = 0,
        method: AttributionMethod | None = None,
    ) -> None:
        check_at_least_one(n_samples=n_samples, max_batch=max_batch)
        if not noise_level >= 0:
            raise InputError(f"noise_level must be at least 0, got {noise_level}.")
        if method is not None:
            check_object(AttributionMethod, "method", method)
        self.n_samples = n_samples
        self.noise_level = noise_level
        self.clip = clip
        self.max_batch = max_batch
        self.seed = seed
        self.method = method
        self.sign = (method or Saliency()).sign

    def needs(self, network: Network) -> Needs:
        (self.method or Saliency()).needs(network)  # refuses what cannot be, before the first batch
        return Needs()  # it makes passes of its own, at the noisy images

    def n_passes(self, network: Network) -> int:
        return self.n_samples * (1 + (self.method or Saliency()).n_passes(network))

    def samples(self, forward_pass: ForwardPass) -> Iterator[Iterator[Tensor]]:
        """Of the images of a pass, some n after some, the maps of their noisy copies: ``(K, n, C, H, W)`` at a time."""
        images, method = forward_pass.images.detach(), self.method or Saliency()
        sigma = self.noise_level * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        numbers, needs = random_numbers(forward_pass, self.seed), method.needs(forward_pass.network)

        def maps_of(part: slice, copies: slice) -> Tensor:
            noisy = images[part] + sigma[part] * noise(numbers[part], copies, images[part])
            noisy = noisy.clamp(0, 1) if self.clip else noisy
            return method(at_variants(forward_pass, noisy, part, needs)).unflatten(0, noisy.shape[:2])

        if not len(images):  # of which the maps have a shape all the same
            yield iter([method(forward_pass.at(images, forward_pass.target, needs))[None]])
        for _, batches in groupby(shared_batches(len(images), self.n_samples, self.max_batch), itemgetter(0)):
            yield (maps_of(*batch) for batch in batches)
