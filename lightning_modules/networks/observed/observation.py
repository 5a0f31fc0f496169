"""What a network shows when it runs: the outputs of its layers, and whether it is a function of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from lightning_modules.networks.observed.nonlinearities import Nonlinearities, nonlinearities_of
from lightning_modules.networks.outputs import check_shape, last_activation

Look = Callable[[str, Any], Any]
"""(name of a layer, its output) -> what the layers after it get in its place; None leaves it."""

_pass: ContextVar[object] = ContextVar("_pass", default=None)
"""Whose pass runs: that of the innermost ``looked_at``. Each thread has its own."""

_hooking = Lock()
"""PyTorch numbers hooks without a lock: two threads at once may get one number, and one hook would take the other's
place."""

_observing = RLock()


@contextmanager
def looked_at(layers: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
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
        given, calls = normalized(images), _Calls(layers)
        version = given._version
        with looked_at(layers, calls.look), torch.no_grad():
            together = check_shape(_output(module, given, name), name, len(images))
        with gradients_enabled():
            alone, nonlinearities, unread = _alone(
                module, normalized(images[:1]), calls.with_extra_tokens(), layers, name
            )
            ends_in = _end(alone, together, calls.probabilities)
        with torch.no_grad():
            again = _output(module, normalized(images[:1]), name)
        draws = not torch.equal(torch.get_rng_state(), random)
    oddities = _oddities(module, together[:1], alone.detach(), again, name)
    if draws:
        oddities += ["it draws random numbers, though its logits for an image were the same each time"]
    found = {at: tuple(call._replace(is_read=at not in unread) for call in each) for at, each in calls.found.items()}
    facts = Facts(together.shape[1], found, given._version != version, tuple(oddities), nonlinearities)
    return Observation(together.detach(), ends_in, facts)


class _Calls:
    """Notes the calls of layers, for :func:`probe_images`."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = layers
        self.found: dict[str, list[Call]] = {}
        self.probabilities: dict[str, Tensor] = {}
        self.last_by_kind: Layout | None = None

    def look(self, name: str, output: Any) -> None:
        layer = self.layers[name]
        shape = layout = None
        # Windows of an image, or tokens before the batch, are no entries of an image.
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == 5:
            shape, layout = tuple(output.shape[1:]), observed_layout(layer, output, self.last_by_kind)
            self.last_by_kind = layout if isinstance(layer, CHANNELS_FIRST) else self.last_by_kind
        if isinstance(layer, nn.Softmax | nn.Sigmoid) and isinstance(output, Tensor):
            self.probabilities[name] = output
        # Those that end last stand last.
        self.found[name] = [*self.found.pop(name, []), Call(shape, layout)]

    def with_extra_tokens(self) -> list[str]:
        """Layers that run once and give tokens of which some stand for no position."""
        layouts = {name: calls[0].layout for name, calls in self.found.items() if len(calls) == 1}
        return [name for name, layout in layouts.items() if layout is not None and layout.extra]


def _output(module: nn.Module, images: Tensor, name: str) -> Any:
    """What the module gives.

    Raises:
        InputError: Whatever the module raises.
    """
    try:
        return module(images)
    except Exception as error:  # a stranger's code raises anything
        size = images.shape[-1]
        raise InputError(
            f"model.network: {name} fails on an image (3, {size}, {size}): {described(error)} If that is not its size, "
            "say model.input_size."
        ) from error


def _alone(
    module: nn.Module, image: Tensor, with_extra_tokens: Sequence[str], layers: Mapping[str, nn.Module], name: str
) -> tuple[Tensor, Nonlinearities, set[str]]:
    """The output for one image, with its graph; the activations in it; the layers whose extra tokens alone are read.

    So the last block of a ViT: only its class token goes on, and a map of its positions would be black.
    """
    tokens: dict[str, Tensor] = {}

    def keep(at: str, output: Any) -> None:
        tokens[at] = output

    leaf = image.detach().clone().requires_grad_()
    with looked_at({at: layers[at] for at in with_extra_tokens}, keep):
        # Not the leaf itself, which a module must not write to.
        output: Tensor = check_shape(_output(module, leaf.clone(), name), name, 1)
    nonlinearities = nonlinearities_of(output, leaf)
    if not tokens or not output.requires_grad:
        return output, nonlinearities, set()
    gradients = torch.autograd.grad(output.sum(), list(tokens.values()), retain_graph=True, allow_unused=True)
    unread = {at for at, gradient in zip(tokens, gradients) if gradient is not None and _is_of_few(gradient)}
    return output, nonlinearities, unread


def _is_of_few(gradient: Tensor) -> bool:
    """Whether most tokens, ``(1, T, C)``, get no gradient, while some do."""
    reached = (gradient[0] != 0).any(1)
    return bool(reached.any()) and int(reached.sum()) * 2 < len(reached)


def _end(alone: Tensor, together: Tensor, probabilities: Mapping[str, Tensor]) -> str | None:
    kind = last_activation(alone)
    if kind is None:
        return None
    layers = [name for name, output in probabilities.items() if output.numel() == together.numel()]
    own = [name for name in layers if torch.equal(probabilities[name].reshape_as(together), together)]
    return f"a {kind}" + (f" (its layer {own[-1]})" if own else "")


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
