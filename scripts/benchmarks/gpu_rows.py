"""On a GPU: SmoothGrad as a fraction of what the device multiplies at most."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.setting import Setting
from benchmarks.timing import Result, seconds
from lightning_modules import ForwardPass, SmoothGrad

FLOPS_PER_SAMPLE = 61.9e9
"""Of VGG16 at 224 px: forward, and backward to the pixels; a multiplication and an addition count as two."""


def smooth_grad_on_gpu(setting: Setting, rounds: int) -> list[Result]:
    """SmoothGrad in bf16 at growing batches, until memory ends, with and without ``torch.compile``."""
    peak = matmul_rate(setting.device, rounds)
    results = []
    for compiled in (False, True):
        network = cast(nn.Module, torch.compile(setting.network, dynamic=False)) if compiled else setting.network
        for batch in (32, 64, 128, 256, 512, 1024):
            try:
                times = _times(setting, _smooth_grad(setting, network, batch), rounds)
            except torch.cuda.OutOfMemoryError:
                break
            share = FLOPS_PER_SAMPLE * batch / statistics.median(times) / peak
            work = f"SmoothGrad, bf16, passes of {batch}{', compiled' * compiled}: share of {peak / 1e12:.0f} TFLOP/s"
            result = Result("gpu", work, "matrix product, same run", times, [FLOPS_PER_SAMPLE * batch / peak])
            result.ratio, result.goal, result.verdict = share, "≥ 0.5", "met" if share >= 0.5 else "missed"
            results.append(result)
        torch.cuda.empty_cache()
    return results


def _smooth_grad(setting: Setting, network: nn.Module, batch: int) -> Callable[[], Tensor]:
    images, target = setting.images(1), setting.target(1)
    method = SmoothGrad(batch, max_batch=batch)
    with setting.bf16():
        forward_pass = ForwardPass(network, images, target, layers=(), input_gradients=False, guided=False)

    def run() -> Tensor:
        with setting.bf16():
            return method(forward_pass)

    return run


def _times(setting: Setting, run: Callable[[], Tensor], rounds: int) -> list[float]:
    for _ in range(2):  # compilation, choice of kernels
        run()
    return [seconds(run) for _ in range(rounds)]


def matmul_rate(device: torch.device, rounds: int, n: int = 8192) -> float:
    """Floating-point operations a second of a large matrix product in bf16: the best of ``rounds``."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    times = [seconds(lambda: [a @ a for _ in range(10)]) for _ in range(rounds + 1)]
    return 10 * 2 * n**3 / min(times)
