"""A compiled network gives the maps and rows of the same network as it is, whatever runs compiled of it.

The code is made by ``aot_eager``: all of what ``torch.compile`` does, graphs, guards and gradients, but the making of
C++ or Triton, which takes half a minute a graph.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lightning_modules import (
    FGSM,
    PGD,
    RISE,
    SPSA,
    Attack,
    AttributionModule,
    ForwardPass,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputError,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Needs,
    Network,
    Occlusion,
    RobustnessModule,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    VarGrad,
    XGradCAM,
    explain,
    load_network,
)
from lightning_modules.metrics import AverageDrop, InsertionDeletion, SensitivityMax
from lightning_modules.networks import compiling
from lightning_modules.networks.compiling import OPTIONS
from tests.lightning_modules.fragile import NAMES, batch_of, dim_images
from tests.references import relative_error

pytestmark = pytest.mark.slow

METHODS = [
    *(GradCAM(), GradCAMPlusPlus(), XGradCAM(), HiResCAM(), LayerCAM(["body.0", "body.2"])),
    *(GuidedBackprop(), GuidedGradCAM(), Saliency(), InputXGradient()),
    *(SmoothGrad(5, max_batch=4), SmoothGrad(3, method=GuidedBackprop()), VarGrad(3)),
    *(IntegratedGradients(3), ScoreCAM("body.2"), Occlusion(8), RISE(3)),
]


@pytest.fixture(autouse=True)
def _compiled_by_aot_eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": "aot_eager"})
    torch._dynamo.reset()
    counters.clear()
    with torch._functorch.config.patch(donated_buffer=True):  # as a process begins
        yield
    torch._dynamo.reset()


def n_graphs() -> int:
    """How many were compiled. None is left as it is: that would be a graph that PyTorch could not make."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


class Small(nn.Module):
    """Of a convolution, a batch norm and a ReLU."""

    class_names = NAMES
    input_size = 32
    target_layer = "body.2"
    mean = (0.5, 0.5, 0.5)  # what it subtracts itself

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(16, len(NAMES))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.body(pixels - 0.5), 2).flatten(1))


NETWORK = f"{__name__}.Small"


@pytest.fixture
def pair() -> tuple[Network, Network]:
    """A network as it is, and the same compiled."""
    plain, compiled = (load_network(NETWORK, "random", compile=compile) for compile in (False, True))
    return plain, compiled


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_every_method_gives_its_maps(pair: tuple[Network, Network]) -> None:
    """Together and alone, the passes of one, of a batch and of another batch: by four graphs in all."""
    for n in (3, 2, 1):
        ours, theirs = (explain(network, images(n), METHODS, 1, keys=list("abc")[:n]) for network in pair)
        assert {name: relative_error(ours[name], theirs[name]) for name in ours if ours[name].any()} == {
            name: pytest.approx(0, abs=1e-5) for name in ours if ours[name].any()
        }
        assert n == 1 or all(ours[name].any() for name in ours)
    assert 2 <= n_graphs() <= 4


@pytest.mark.parametrize("method", [Saliency(), GuidedBackprop(), GradCAM()], ids=repr)
def test_each_method_alone(pair: tuple[Network, Network], method: Any) -> None:
    """The guided gradient is guided: it is not the true one, and the graph hides no rectifier."""
    (theirs,), (ours,) = (explain(network, images(3), [method], 1).values() for network in pair)
    assert relative_error(ours, theirs) < 1e-5
    assert n_graphs() == isinstance(method, Saliency)
    if isinstance(method, GuidedBackprop):
        assert relative_error(explain(pair[1], images(3), [Saliency()], 1)["Saliency"], ours) > 0.01


def test_what_is_known_of_it_stays(pair: tuple[Network, Network]) -> None:
    plain, compiled = pair
    compiled(images(2))
    assert list(compiled.layers) == list(plain.layers)
    assert compiled.description() == plain.description()
    assert compiled.facts.by_label == plain.facts.by_label
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert (plain.is_compiled, compiled.is_compiled, copy.deepcopy(compiled).is_compiled) == (False, True, False)


def test_a_graph_serves_several_gradients(pair: tuple[Network, Network]) -> None:
    """That of the target's logit and that of a loss, twice, as an attack and a saliency map of one pass ask for."""
    needs = Needs(input_gradient=True, loss_gradient=True)

    def gradients(network: Network) -> list[Tensor]:
        seen = ForwardPass(network, images(2), 0, needs=needs)
        losses = [seen.loss_gradient(lambda logits: logits.square().sum()) for _ in range(2)]
        return [seen.input_gradient(), *losses]

    for ours, theirs in zip(gradients(pair[1]), gradients(pair[0])):
        assert relative_error(ours, theirs) < 1e-5
    assert n_graphs() == 1


def test_in_bfloat16(pair: tuple[Network, Network]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        (theirs,), (ours,) = (explain(network, images(3), [Saliency()], 1).values() for network in pair)
    assert relative_error(ours, theirs) < 2e-2
    assert n_graphs() == 1


def rows_of(make: Callable[..., Any], compile: bool, batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    module = make(weights="random", network=NETWORK, n_figures=0, compile=compile)
    assert module.network.is_compiled == compile
    return [row for batch in batches for row in module.eval().test_step(batch, 0)["rows"]]


def attribution(**options: Any) -> AttributionModule:
    methods = [GradCAM(), GuidedBackprop(), Saliency(), SmoothGrad(2)]
    metrics = [AverageDrop(), InsertionDeletion(step=256), SensitivityMax(n_samples=1)]
    return AttributionModule(methods=methods, metrics=metrics, **options)


def robustness(attack: Attack) -> Callable[..., RobustnessModule]:
    return lambda **options: RobustnessModule(eps=["2/255", 0.1], attack=attack, methods=[Saliency()], **options)


@pytest.mark.parametrize(
    "make",
    [attribution, robustness(FGSM()), robustness(PGD(n_steps=2, random_start=True)), robustness(SPSA(n_steps=1))],
    ids=["attribution", "FGSM", "PGD", "SPSA"],
)
def test_rows(make: Callable[..., Any]) -> None:
    # The last one is smaller.
    batches = [batch_of(dim_images(n), [0, 1, 2][:n]) | {"original": [None] * n} for n in (3, 2)]
    theirs, ours = (rows_of(make, compile, batches) for compile in (False, True))
    assert len(ours) == len(theirs) > 5
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert _is_close(value, other[name]), (name, value, other[name])
    assert n_graphs() >= 1


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    return bool(one == other)


@pytest.mark.slow
def test_without_a_compiler_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "OPTIONS", OPTIONS)
    network = load_network(NETWORK, "random", compile=True)
    message = r"model\.compile: torch\.compile fails on Small: .*No working C\+\+ compiler.*the network runs as it is"
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(InputError, match=message),
    ):
        explain(network, dim_images(2), [Saliency()])
