"""The rows of the benchmark by their names, in the order in which they stand in the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks import attack_rows, map_rows, repeated_rows, run_rows, synthesis_rows
from benchmarks.memory_row import peak_memory
from benchmarks.reading_rows import reading
from benchmarks.setting import Setting
from benchmarks.timing import Result, Row, measure

TIMED: dict[str, Callable[[Setting], Row]] = {
    "end_to_end": run_rows.attribution_end_to_end,
    "robustness_end_to_end": run_rows.robustness_end_to_end,
    "three_maps": map_rows.three_maps,
    "three_maps_large": partial(map_rows.three_maps, times=4),
    "cam_family": map_rows.cam_family,
    "grad_cam": map_rows.grad_cam,
    "guided_backprop": map_rows.guided_backprop,
    "input_x_gradient": map_rows.input_x_gradient,
    "smooth_grad": repeated_rows.smooth_grad,
    "integrated_gradients": repeated_rows.integrated_gradients,
    "score_cam": repeated_rows.score_cam,
    "occlusion": repeated_rows.occlusion,
    "rise": repeated_rows.rise,
    "fgsm": attack_rows.fgsm,
    "activation_maximization": synthesis_rows.activation_maximization,
}
OTHERS: dict[str, Callable[[Setting, int], list[Result]]] = {
    "reading": reading,
    "peak_memory": lambda setting, rounds: peak_memory(setting),
    "growth": lambda setting, rounds: run_rows.growth(),
}


def run_row(name: str, setting: Setting, rounds: int) -> list[Result]:
    """The lines of one row; none where the device has no use for it."""
    return OTHERS[name](setting, rounds) if name in OTHERS else measure(TIMED[name](setting), rounds)
