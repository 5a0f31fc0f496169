"""The rows of the benchmark by their names, in the order in which they stand in the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.attack_rows import fgsm
from benchmarks.host_rows import host_time
from benchmarks.limit_rows import bare_network, layer_by_layer, smooth_grad_on_gpu
from benchmarks.map_rows import (
    EMULATED,
    cam_family,
    cam_family_large,
    grad_cam,
    guided_backprop,
    input_x_gradient,
    input_x_gradient_large,
    three_maps,
    three_maps_bf16,
    three_maps_large,
)
from benchmarks.million_rows import million
from benchmarks.reading_rows import decoded_shards
from benchmarks.repeated_rows import integrated_gradients, occlusion, rise, score_cam, smooth_grad
from benchmarks.run_rows import bf16_accuracy, end_to_end, peak_memory, sustained
from benchmarks.score_rows import insertion_deletion
from benchmarks.setting import Setting
from benchmarks.synthesis_rows import activation_maximization
from benchmarks.timing import Result, Row, measure
from benchmarks.tried_rows import tried

TIMED: dict[str, Callable[[Setting, bool], Row]] = {
    "end_to_end": end_to_end,  # before the others have left memory that its workers would share
    "three_maps": three_maps,
    "three_maps_large": three_maps_large,
    "three_maps_bf16": three_maps_bf16,
    "cam_family": cam_family,
    "cam_family_large": cam_family_large,
    "grad_cam": grad_cam,
    "guided_backprop": guided_backprop,
    "input_x_gradient": input_x_gradient,
    "input_x_gradient_large": input_x_gradient_large,
    "smooth_grad": smooth_grad,
    "smooth_grad_bf16": partial(smooth_grad, bf16=True),
    "integrated_gradients": integrated_gradients,
    "score_cam": score_cam,
    "occlusion": occlusion,
    "rise": rise,
    "fgsm": fgsm,
    "activation_maximization": activation_maximization,
    "insertion_deletion": insertion_deletion,
}
BEFORE = ("limit", "layers", "tried", "decoded")
ROWS = (*BEFORE, *TIMED, "peak_memory", "sustained", "bf16_accuracy", "host", "million", "gpu")


def run_row(name: str, setting: Setting, rounds: int, peers: bool) -> list[Result]:
    """The lines of one row; none where the device has no use for it."""
    if name == "limit":
        return bare_network(setting, rounds)
    if name == "layers":
        return layer_by_layer(setting, rounds)
    if name == "tried":
        return tried(setting, rounds) if setting.device.type == "cpu" else []
    if name == "decoded":
        return decoded_shards(setting, rounds)
    if name == "gpu":
        return smooth_grad_on_gpu(setting, rounds) if setting.device.type == "cuda" else []
    if name == "host":
        return host_time(rounds)
    if name == "million":
        return million()
    if name == "sustained":
        return sustained()
    if name == "peak_memory":
        return peak_memory(peers)
    if name == "bf16_accuracy":
        return bf16_accuracy(setting)
    emulated = name.endswith("bf16") and not setting.has_fast_bf16()
    row = TIMED[name](setting, peers)
    if emulated and name == "smooth_grad_bf16":
        return [
            Result(name, row.work, goal.against, [], [], verdict="not measured", note=EMULATED) for goal in row.goals
        ]
    return measure(row, 1 if emulated else rounds)
