"""A network that forgets what it has learnt, layer by layer from the output down."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.network import Network

SMALL = 0.02
"""Standard deviation of what is neither a weight nor a bias: timm's for tokens and position embeddings."""


def weighted_layers(network: Network) -> list[str]:
    """Names of the layers that have learnt something, from the output down: the order of the cascade.

    A layer is a module that holds parameters itself. They follow each other as they ran, the last first; what a module
    with layers inside holds beside them (tokens, position embeddings, layer scales) comes after these, and what the
    network itself holds comes last, under the network's name. So at the end the output depends on nothing that was
    learnt. A layer that did not run, such as a head for training, is left out, unless the logits depend on it: then the
    module around it reads its parameters, and they belong to that one (``out_proj`` of attention).
    """
    return list(_parts(network))


def cascade(network: Network, layers: Sequence[str], seed: int = 0) -> Iterator[tuple[str, Network]]:
    """Randomizes one layer after the other, keeping what was randomized, and yields the layer's name and the network.

    It is one copy of ``network`` that changes from step to step; ``network`` itself is left alone. All is drawn in
    float32 on the CPU, each layer's from ``seed`` and its name's place in ``layers`` alone, so that every device and
    precision gets the same network:

    - weights of at least two dimensions as He et al. (ICCV 2015) do; biases are 0;
    - a norm begins again: scales 1, offsets 0, running mean 0 and variance 1;
    - all else (tokens, embeddings, tables of positions, layer scales) from a normal distribution of deviation 0.02.

    What several layers share is drawn once.
    """
    # What is made under inference mode, as in Lightning's test loop, has no gradients.
    with torch.inference_mode(False):
        random = copy.deepcopy(network)
    parts, modules = _parts(network), {"": random.original, **random.layers}
    drawn: set[int] = set()
    for number, name in enumerate(layers):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        for part in parts[name]:
            _randomize(modules[part], generator, drawn)
        yield name, random


def _parts(network: Network) -> dict[str, list[str]]:
    """For each layer of the cascade, in order, the modules whose parameters are its own; "" is the network itself.

    To find out may take several runs of a copy of the network, so it is done once for each.
    """
    if network not in _known:
        _known[network] = _looked_up(network)
    return _known[network]


_known: WeakKeyDictionary[Network, dict[str, list[str]]] = WeakKeyDictionary()
"""What :func:`_parts` has found, as long as the network lives."""


def _looked_up(network: Network) -> dict[str, list[str]]:
    ran = network.facts.calls
    # Of a module around others, the place of the first that ran inside.
    place: dict[str, int] = {}
    for number, name in enumerate(ran):
        while name:
            place.setdefault(name, number)
            name = name.rpartition(".")[0]
    holding = [name for name, module in {"": network.original, **network.layers}.items() if any(_own(module))]
    used = _used(network) if any(name not in ran for name in holding) else set()
    parts: dict[str, list[str]] = {}
    for name in holding:
        if name in ran or name in used:
            owner = name
            while owner and owner not in ran:
                owner = owner.rpartition(".")[0]
            parts.setdefault(owner, []).append(name)
    order = sorted(parts, key=lambda name: (place.get(name, -1), len(name)), reverse=True)
    return {owner or _name_of_root(network): parts[owner] for owner in order}


def _name_of_root(network: Network) -> str:
    """The network's name; that of a class may be a layer's as well."""
    name = network.name
    while name in network.layers:
        name = f"{name} itself"
    return name


def _used(network: Network) -> set[str]:
    """Names of the modules on whose own parameters the logits depend."""
    with gradients_enabled():
        module = copy.deepcopy(network)
        like = network.mean
        image = torch.full((1, 3, network.input_size, network.input_size), 0.5, dtype=like.dtype, device=like.device)
        parameters = module.original.named_parameters(remove_duplicate=False)
        named = {name: parameter for name, parameter in parameters if _is_learnt(parameter)}
        for parameter in named.values():
            parameter.requires_grad_()
        logits = module.uncompiled_logits(image)
        if not logits.requires_grad:
            return set()
        gradients = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    rest = {name: parameter for (name, parameter), of in zip(named.items(), gradients) if of is None}
    read = {name for name in named if name not in rest} | _read_without_gradient(module, image, rest)
    return {name.rpartition(".")[0] for name in read}


@torch.no_grad()
def _read_without_gradient(module: Network, image: Tensor, named: Mapping[str, Tensor]) -> set[str]:
    """Names of the parameters that are detached where they are read: moved, they change the logits."""

    def moved(parameters: Iterable[Tensor]) -> bool:
        """Whether the logits change; the parameters stay moved."""
        before = module.uncompiled_logits(image)
        for parameter in parameters:
            parameter.add_(torch.linspace(0.5, 1, parameter.numel()).view(parameter.shape).to(parameter))
        return not torch.equal(module.uncompiled_logits(image), before)

    # Most networks have none: all at once.
    if not named or not moved(named.values()):
        return set()
    return {name for name, parameter in named.items() if moved([parameter])}


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a module itself has learnt: its parameters and, of a norm, the statistics and what stands for parameters."""
    named: dict[str, Tensor] = {**dict(module.named_parameters(recurse=False))}
    if "running_mean" in module._buffers:
        named |= module.named_buffers(recurse=False)
    yield from ((name, tensor) for name, tensor in named.items() if _is_learnt(tensor))


def _is_learnt(tensor: Tensor) -> bool:
    """Whether it can be: counters and quantized weights cannot."""
    return tensor.is_floating_point() or tensor.is_complex()


@torch.inference_mode(False)
@torch.no_grad()
def _randomize(module: nn.Module, generator: torch.Generator, drawn: set[int]) -> None:
    """Makes a module forget its own parameters, but those in ``drawn`` already, by their ids."""
    for name, parameter in _own(module):
        if id(parameter) not in drawn:
            parameter.copy_(_initial(module, name, parameter.shape, generator))
            drawn.add(id(parameter))


def _initial(module: nn.Module, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """What a parameter begins from, float32 on the CPU."""
    values = torch.zeros(shape, dtype=torch.float32)
    # Parametrized weights, such as weight_norm's, are called original0, ...
    is_weight = ("weight" in name or name.startswith("original")) and not isinstance(module, nn.Embedding)
    if name == "running_mean" or ("bias" in name and len(shape) == 1):
        return values
    if name == "running_var" or (is_weight and len(shape) == 1):
        return values.fill_(0.25 if isinstance(module, nn.PReLU) else 1.0)
    if is_weight and len(shape) > 1:
        return nn.init.kaiming_normal_(values, generator=generator)
    return values.normal_(0, SMALL, generator=generator)
