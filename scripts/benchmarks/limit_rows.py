"""How near the device's own limit: as a share of the best rate that anything reaches on it in the same run."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.layer_rows import WHOLE, LayerTime, layer_times
from benchmarks.setting import Setting
from benchmarks.timing import Result, seconds
from lightning_modules import Network, SmoothGrad, explain

PRODUCTS = [(1024, 1024, 1024), (2048, 2048, 2048), (25088, 2304, 256)]
"""Sides of matrix products: square ones, and that of a convolution of 256 channels at 56 × 56 in a batch of 8."""
LEAST = 20e9
"""Floating-point operations by which the rate of a product is taken, at least."""


class Limit(NamedTuple):
    """The best rate that was seen.

    Attributes:
        flops: Floating-point operations a second.
        of: What reached it.
        tried: All that was tried, with its rates, in words.
    """

    flops: float
    of: str
    tried: str


def bare_network(setting: Setting, rounds: int) -> list[Result]:
    """The bare forward and backward pass, which all other rows are held against."""
    images, target = setting.images(setting.batch_size), setting.target(setting.batch_size)
    results = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype == torch.bfloat16 and not setting.has_fast_bf16():
            continue

        def run(is_bf16: bool = dtype == torch.bfloat16) -> Tensor:
            with setting.bf16(is_bf16):
                return setting.bare_gradient(images, target)

        times = _times(run, rounds)
        limit = device_limit(setting, rounds, dtype)
        flops = setting.flops * len(images)
        work = f"bare forward + backward, {name}, batch {len(images)}: share of {limit.flops / 1e9:.0f} GFLOP/s"
        result = Result("limit", work, f"the best rate, of {limit.of}", times, [flops / limit.flops], flops=flops)
        result.ratio = flops / statistics.median(times) / limit.flops
        result.note = f"{name}: {limit.tried}"
        results.append(result)
    return results


def layer_by_layer(setting: Setting, rounds: int) -> list[Result]:
    """Each layer of the bare pass alone, forward and backward: where the time is, and its share of the limit."""
    layers, whole = layer_times(setting, rounds)
    limit = _best(layers, setting, rounds)
    results = []
    for layer in layers:
        for direction, times in (("forward", layer.forward), ("backward", layer.backward)):
            at_limit = [layer.flops / limit.flops] if layer.flops else []
            result = Result("layers", layer.name, direction, times, at_limit, flops=layer.flops)
            result.ratio = at_limit[0] / statistics.median(times) if at_limit else None
            results.append(result)
    flops = setting.flops * setting.batch_size
    line = Result("layers", WHOLE, "", whole, [flops / limit.flops], flops=flops)
    line.ratio = line.theirs[0] / statistics.median(whole)
    line.note = f"The limit is {limit.flops / 1e9:.0f} GFLOP/s, of {limit.of}; {limit.tried}"
    return [*results, line]


def smooth_grad_on_gpu(setting: Setting, rounds: int) -> list[Result]:
    """SmoothGrad in bf16 at growing batches, until memory ends, with and without ``torch.compile``."""
    limit = device_limit(setting, rounds, torch.bfloat16)
    results = []
    for compiled in (False, True):
        network = copy.deepcopy(setting.network)
        if compiled:
            network.compile(dynamic=False)
        for batch in (32, 64, 128, 256, 512, 1024):
            try:
                times = _times(_smooth_grad(setting, network, batch), rounds)
            except torch.cuda.OutOfMemoryError:
                break
            flops = setting.flops * batch
            share = flops / statistics.median(times) / limit.flops
            rate = f"{limit.flops / 1e12:.0f} TFLOP/s"
            work = f"SmoothGrad, bf16, passes of {batch}{', compiled' * compiled}: share of {rate}"
            result = Result("gpu", work, f"the best rate, of {limit.of}", times, [flops / limit.flops], flops=flops)
            result.ratio, result.goal, result.verdict = share, "≥ 0.5", "met" if share >= 0.5 else "missed"
            results.append(result)
        torch.cuda.empty_cache()
    return results


def _smooth_grad(setting: Setting, network: Network, batch: int) -> Callable[[], Tensor]:
    images, target = setting.images(1), setting.target(1)

    def run() -> Tensor:
        with setting.bf16():
            (map_,) = explain(network, images, [SmoothGrad(batch, max_batch=batch)], target).values()
            return map_

    return run


def _times(run: Callable[[], Tensor], rounds: int) -> list[float]:
    for _ in range(2):  # compilation, choice of kernels
        run()
    return [seconds(run) for _ in range(rounds)]


def device_limit(setting: Setting, rounds: int, dtype: torch.dtype) -> Limit:
    """The best rate of matrix products and of the network's layers one by one."""
    in_dtype = setting if dtype == setting.dtype else replace(setting, dtype=dtype)
    layers, _ = layer_times(in_dtype, rounds)
    return _best(layers, in_dtype, rounds)


def _best(layers: list[LayerTime], setting: Setting, rounds: int) -> Limit:
    rates = {}
    for layer in layers:
        if layer.flops:
            rates[f"{layer.name} forward"] = layer.flops / min(layer.forward)
            rates[f"{layer.name} backward"] = layer.flops / min(layer.backward)
    products = matrix_products(setting.device, rounds, setting.dtype)
    convolutions = [rate for name, rate in rates.items() if "Conv" in name]
    low, high = min(convolutions), max(convolutions)
    in_words = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in products.items())
    tried = f"GFLOP/s of matrix products: {in_words}; of convolutions alone: {low / 1e9:.0f} to {high / 1e9:.0f}"
    rates |= {f"the matrix product {name}": rate for name, rate in products.items()}
    best = max(rates, key=rates.__getitem__)
    return Limit(rates[best], best, tried)


def matrix_products(device: torch.device, rounds: int, dtype: torch.dtype) -> dict[str, float]:
    """Floating-point operations a second of matrix products, each the best of ``rounds`` and one.

    On a GPU their sides are four times as long.
    """
    k = 4 if device.type == "cuda" else 1
    rates = {}
    for shape in PRODUCTS:
        m, inner, n = (k * side for side in shape)
        a, b = torch.randn(m, inner, device=device).to(dtype), torch.randn(inner, n, device=device).to(dtype)
        flops = 2.0 * m * inner * n
        repeats = max(1, int(LEAST * k**3 / flops))
        for of, right in (("", b), ("ᵀ", b.T.contiguous().T)):
            times = [seconds(partial(_product, a, right, repeats)) for _ in range(rounds + 1)]
            rates[f"{m} × {inner} × {n}{of}"] = repeats * flops / min(times)
    return rates


def _product(a: Tensor, b: Tensor, repeats: int) -> None:
    for _ in range(repeats):
        a @ b
