"""How near the device's own limit: as a share of the rate at which it multiplies large matrices."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.setting import Setting
from benchmarks.timing import Result, seconds
from lightning_modules import Network, SmoothGrad, explain


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

        peak, flops = matmul_rate(setting.device, rounds, dtype), setting.flops * len(images)
        times = _times(run, rounds)
        work = f"bare forward + backward, {name}, batch {len(images)}: share of {peak / 1e9:.0f} GFLOP/s"
        result = Result("limit", work, "matrix product, same run", times, [flops / peak])
        result.ratio = flops / statistics.median(times) / peak
        results.append(result)
    return results


def smooth_grad_on_gpu(setting: Setting, rounds: int) -> list[Result]:
    """SmoothGrad in bf16 at growing batches, until memory ends, with and without ``torch.compile``."""
    peak = matmul_rate(setting.device, rounds, torch.bfloat16)
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
            share = setting.flops * batch / statistics.median(times) / peak
            work = f"SmoothGrad, bf16, passes of {batch}{', compiled' * compiled}: share of {peak / 1e12:.0f} TFLOP/s"
            result = Result("gpu", work, "matrix product, same run", times, [setting.flops * batch / peak])
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


def matmul_rate(device: torch.device, rounds: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product: the best of ``rounds`` and one."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    times = [seconds(lambda: [a @ a for _ in range(10)]) for _ in range(rounds + 1)]
    return 10 * 2 * n**3 / min(times)
