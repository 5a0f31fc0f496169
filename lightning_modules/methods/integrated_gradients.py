"""Integrated Gradients: the gradient along the way from a baseline to the image."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_modules.errors import check_at_least_one, check_is_one_of
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs, check_gradient
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.baselines import COMPLETENESS, Baseline, baseline_images, completeness
from lightning_modules.methods.variants import at_variants, shared_batches
from lightning_modules.networks.network import Network

Rule = Literal["right", "middle", "gauss_legendre"]


class IntegratedGradients(AttributionMethod):
    r"""Integrated Gradients, ``(N, 3, H, W)``, signed.

    .. math:: L = (x - x') \odot \int_0^1 \nabla y\big(x' + \alpha (x - x')\big) \, d\alpha
        \approx (x - x') \odot \frac{1}{m} \sum_{k=1}^{m} \nabla y\Big(x' + \frac{k}{m} (x - x')\Big)

    The integral adds up to the difference of the target's logits at the image and at the baseline ``x'``. How far the
    sum is from it stands in the rows: ``completeness_error`` in logits, ``relative_completeness_error`` as a share of
    that difference. The paper wants at most 0.05 of it, and takes more steps otherwise.

    It costs ``n_steps`` forward and backward passes, and a forward pass for the error. The paper's rule is ``right``;
    Captum's, unless told otherwise, is Gauss's and Legendre's. Peers take 0 after normalization for the baseline, which
    is ``mean`` here.

    Args:
        n_steps: Points of the path, at least 1.
        baseline: Where the path begins: black, the mean that the network subtracts, the image blurred, or noise.
        rule: Where the points lie: at the right end of each step, in the middle, or where Gauss and Legendre have them.
        max_batch: Most points in one pass, which bounds the memory. null = as many as the batch has, at least 32.
        seed: Seed of a baseline of noise.

    Raises:
        InputError: If an option is out of its range.

    Reference: Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.
    """

    meaning = "What each pixel adds to the score, from an image without information to this one."
    column_meanings = COMPLETENESS
    columns = tuple(COMPLETENESS)
    lower_is_better = columns
    sign = "signed"

    def __init__(
        self,
        n_steps: int = 50,
        baseline: Baseline = "black",
        rule: Rule = "right",
        max_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        check_at_least_one(n_steps=n_steps, max_batch=max_batch)
        check_is_one_of(Baseline, baseline=baseline)
        check_is_one_of(Rule, rule=rule)
        self.n_steps = n_steps
        self.baseline: Baseline = baseline
        self.rule: Rule = rule
        self.max_batch = max_batch
        self.seed = seed

    def needs(self, network: Network) -> Needs:
        check_gradient(network)
        return Needs()  # it makes passes of its own, along the path

    def n_passes(self, network: Network) -> int:
        return self.n_steps + 1  # the baseline, for the error

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images, baseline = forward_pass.images.detach(), baseline_images(forward_pass, self.baseline, self.seed)
        points, weights = path_points(self.n_steps, self.rule)
        mean = torch.zeros_like(images)
        for part, steps in shared_batches(len(images), self.n_steps, self.max_batch):
            start, way = baseline[part], images[part] - baseline[part]
            path = torch.stack([start + point * way for point in points[steps]])
            gradient = at_variants(forward_pass, path, part, Needs(input_gradient=True)).input_gradient()
            for weight, of_step in zip(weights[steps], gradient.unflatten(0, path.shape[:2]), strict=True):
                mean[part] += weight * of_step
        return mean * (images - baseline)

    def extra_columns(self, attribution: Tensor, forward_pass: ForwardPass) -> dict[str, Tensor]:
        return completeness(attribution, forward_pass, baseline_images(forward_pass, self.baseline, self.seed))


def path_points(n: int, rule: Rule) -> tuple[list[float], list[float]]:
    """Where on the way from 0 to 1 an integral is looked at, and what each point counts there.

    Example:
        >>> path_points(2, "right"), path_points(2, "middle")
        (([0.5, 1.0], [0.5, 0.5]), ([0.25, 0.75], [0.5, 0.5]))
    """
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(n)
        return ((1 + points) / 2).tolist(), (weights / 2).tolist()
    before = 0.5 if rule == "middle" else 0.0
    return [(k - before) / n for k in range(1, n + 1)], [1 / n] * n
