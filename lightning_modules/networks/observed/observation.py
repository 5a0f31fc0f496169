"""What a network shows when it runs: the outputs of its layers, and whether it is a function of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, RLock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError, described
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.observed.facts import Call, Facts
from lightning_modules.networks.observed.layouts import CHANNELS_FIRST, Layout, observed_layout, probe_images
from lightning_modules.networks.observed.nonlinearities import REENTRANT, Nonlinearities, nonlinearities_of
from lightning_modules.networks.outputs import check_shape, last_activation, tensor_of

Look = Callable[[str, Any], Any]
"""(name of a layer, its output) -> what the layers after it get in its place; None leaves it."""

_pass: ContextVar[object] = ContextVar("_pass", default=None)
"""Whose pass runs: that of the innermost ``hooked_outputs``. Each thread has its own."""

_hooking = Lock()
"""PyTorch numbers hooks without a lock: two threads at once may get one number, and one hook would take the other's
place."""

_observing = RLock()


@contextmanager
def hooked_outputs(layers: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """While it lasts, ``look`` is called with the name and the output of each of ``layers`` as it ends.

    The only place that hooks layers. The hooks are gone afterwards, also after an exception. They stand in layers that
    other threads may be running too, and a pass within this one: ``look`` sees the calls of its own pass alone.
    """
    own = object()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda module, args, output: look(name, output) if _pass.get() is own else None

    handles = []
    outer = _pass.set(own)
    try:
        for name, layer in layers.items():
            if isinstance(layer, torch.jit.ScriptModule):
                continue  # TorchScript takes no hooks, nor runs them
            with _hooking:
                handles.append(layer.register_forward_hook(hook(name)))
        yield
    finally:
        _pass.reset(outer)
        for handle in handles:
            handle.remove()


@contextmanager
def visible_torchscript() -> Iterator[None]:
    """TorchScript that runs inside stays as it was written. After a few runs it is optimized, and its graph hidden."""
    with torch.jit.optimized_execution(False):
        yield


class Observation(NamedTuple):
    """What came out of looking at a module.

    Attributes:
        outputs: What it gives for five images, ``(5, n)``.
        ends_in: What makes probabilities of its output, in words; None = nothing that is known to.
        facts: The rest.
    """

    outputs: Tensor
    ends_in: str | None
    facts: Facts


def observe(
    module: nn.Module, layers: Mapping[str, nn.Module], normalized: Callable[[Tensor], Tensor], size: int, name: str
) -> Observation:
    """Looks at a module once: it runs on five images at once, and twice on the first of them alone.

    It runs in eval mode, and stays as it was; so do the random numbers.

    Args:
        module: Maps images ``(N, 3, H, W)`` to anything.
        layers: Its layers, by name.
        normalized: Pixels in [0, 1] -> what the module takes, a tensor of its own.
        size: Height and width of the images in pixels.
        name: What messages call the module.

    Raises:
        InputError: If it does not map images to logits, or an image's logits do not depend on that image alone.
    """
    like = next(module.parameters(), torch.empty(0, dtype=torch.float32))
    images = probe_images(size).to(like.device, like.dtype)
    with _in_eval_mode(module), torch.random.fork_rng(devices=[]), visible_torchscript():
        random = torch.get_rng_state()
        calls = _Calls(layers)
        with hooked_outputs(layers, calls.look), torch.no_grad():
            together = check_shape(_output(module, normalized(images), name), name, len(images))
        with gradients_enabled():
            seen = _alone(module, normalized(images[:1]), calls, name)
        with torch.no_grad():
            again = _output(module, normalized(images[:1]), name)
        draws = not torch.equal(torch.get_rng_state(), random)
    oddities = _oddities(module, together[:1], seen.output.detach(), again, name)
    if draws:
        oddities += ["it draws random numbers, though its logits for an image were the same each time"]
    found = {
        at: tuple(call._replace(is_read=(at, number) not in seen.unread) for number, call in enumerate(each))
        for at, each in calls.found.items()
    }
    facts = Facts(found, tuple(oddities), seen.nonlinearities, seen.has_gradient, calls.quantized)
    return Observation(together.detach(), last_activation(seen.output), facts)


class _Calls:
    """Notes the calls of layers, for :func:`probe_images`."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = layers
        self.found: dict[str, list[Call]] = {}
        self.last_by_kind: Layout | None = None
        self.quantized = ""

    def look(self, name: str, output: Any) -> None:
        layer = self.layers[name]
        if isinstance(output, Tensor) and output.is_quantized:
            self.quantized, output = self.quantized or name, output.dequantize()
        shape = layout = None
        # Windows of an image, or tokens before the batch, are no entries of an image.
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == 5:
            shape, layout = tuple(output.shape[1:]), observed_layout(layer, output, self.last_by_kind)
            self.last_by_kind = layout if isinstance(layer, CHANNELS_FIRST) else self.last_by_kind
        # Those that end last stand last.
        self.found[name] = [*self.found.pop(name, []), Call(shape, layout)]

    def with_positions(self) -> dict[tuple[str, int], Layout]:
        """Layouts of calls that have positions, by the layer and the number of the call."""
        calls = ((name, k, call.layout) for name, each in self.found.items() for k, call in enumerate(each))
        return {(name, k): layout for name, k, layout in calls if layout is not None and layout.has_positions}


def _output(module: nn.Module, images: Tensor, name: str) -> Any:
    """What the module gives.

    Raises:
        InputError: Whatever the module raises.
    """
    try:
        return tensor_of(module(images))
    except Exception as error:  # a stranger's code raises anything
        size = images.shape[-1]
        raise InputError(
            f"model.network: {name} fails on an image (3, {size}, {size}): {described(error)} If that is not its size, "
            "set model.input_size."
        ) from error


class _Alone(NamedTuple):
    """What a module shows of a single image.

    Attributes:
        output: What it gives, with its graph.
        nonlinearities: The activations in it.
        has_gradient: Whether there is a gradient of the pixels.
        unread: Calls of layers, by name and number, of whose positions nothing reaches the output: those in the last
            block of a ViT, of which only the class token goes on. A map of them would be black.
    """

    output: Tensor
    nonlinearities: Nonlinearities
    has_gradient: bool
    unread: Set[tuple[str, int]]


def _alone(module: nn.Module, image: Tensor, calls: _Calls, name: str) -> _Alone:
    outputs: dict[tuple[str, int], Tensor] = {}
    layouts, counts = calls.with_positions(), Counter[str]()

    def keep(at: str, output: Any) -> Tensor | None:
        key = at, counts[at]
        counts[at] += 1
        if key not in layouts or not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        if output.requires_grad:
            outputs[key] = output
            return None
        # As in a pass, the graph begins here where it has not begun.
        outputs[key] = output.detach().requires_grad_()
        return outputs[key].clone()

    leaf = image.detach().clone().requires_grad_()
    with hooked_outputs({at: calls.layers[at] for at, _ in layouts}, keep):
        # Not the leaf itself, which a module must not write to.
        output: Tensor = check_shape(_output(module, leaf.clone(), name), name, 1)
    nonlinearities = nonlinearities_of(output, leaf)
    if not output.requires_grad or REENTRANT in nonlinearities.unknown:
        return _Alone(output, nonlinearities, output.requires_grad, set())
    # Not the sum of the outputs, which is the same for all images where they are probabilities.
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(output)
    try:
        pixel_gradient, *gradients = torch.autograd.grad(
            output, [leaf, *outputs.values()], weights, retain_graph=True, allow_unused=True
        )
    except RuntimeError:  # a layer's output is worked upon in place, which a pass that keeps it lets nobody do
        return _Alone(output, nonlinearities, True, set())
    read = {key for key, grad in zip(outputs, gradients) if grad is not None and layouts[key].maps(grad).any()}
    # Where none is read, an image of noise shows nothing of them.
    return _Alone(output, nonlinearities, pixel_gradient is not None, outputs.keys() - read if read else set())


def _oddities(module: nn.Module, batch: Tensor, alone: Tensor, again: Tensor, name: str) -> list[str]:
    """What a person should know of the logits of one image: in a batch, alone, and alone again, each ``(1, n)``.

    Raises:
        InputError: If they differ by more than rounding.
    """
    if not (batch.isfinite().all() and alone.isfinite().all()):
        return ["its logits are NaN or infinite for an image of noise"]
    exact = alone.dtype in (torch.float32, torch.float64) and alone.device.type == "cpu"
    scale = float(alone.abs().max()) * (1e-4 if exact else 2e-2)
    what = f"model.network: {name} is no function of an image"
    if (difference := float((alone - again).abs().max())) > scale:
        raise InputError(
            f"{what}: the same image gave logits that differ by up to {difference:.3g} from one run to the next. "
            "Does it call dropout with training=True, or draw random numbers otherwise?"
        )
    if (difference := float((alone - batch).abs().max())) > scale:
        norms = [at for at, part in module.named_modules() if getattr(part, "track_running_stats", None) is False]
        hint = f" {norms[0]} keeps no running statistics." if norms else ""
        raise InputError(
            f"{what}: alone and in a batch of five the same image gave logits that differ by up to {difference:.3g}. "
            f"Does it normalize by the batch, or read the batch's other images?{hint}"
        )
    return []


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Looking at a network in training mode would change its running statistics.

    One thread at a time: another one would take what this one set for the module's own mode.
    """
    with _observing:
        training = [part for part in module.modules() if part.training]
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True
