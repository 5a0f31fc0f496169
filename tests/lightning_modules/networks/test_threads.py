"""Two threads with one network, made to meet inside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, local

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import ForwardPass, GradCAM, InputError, Needs, as_network, explain
from lightning_modules.networks.observed.observation import hooked_outputs


class Meeting(nn.Module):
    """Waits, where a thread of the test runs it, until the other one is here too."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier, self.of_thread = Barrier(2, timeout=250), local()

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self.of_thread, "meets", False):
            self.barrier.wait()
        return x


class Net(nn.Module):
    """Both threads have their hooks in the layers before either of them runs one, and until both have run all."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = Meeting(), Meeting()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=generator)
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.b(self.a(x).relu()).relu()).mean((2, 3))


@pytest.mark.parametrize("layers", [("a", "a"), ("a", "b"), ("b", "b")])
def test_two_threads_do_not_see_each_others_passes(layers: tuple[str, str]) -> None:
    net = Net()
    network = as_network(net, input_size=8)
    images = torch.rand(2, 5, 1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def maps(thread: int, meets: bool) -> list[Tensor]:
        net.before.of_thread.meets = net.after.of_thread.meets = meets
        method = GradCAM(layers[thread])
        return [explain(network, image, [method], 1)[repr(method)] for image in images[thread]]

    expected = [maps(thread, meets=False) for thread in (0, 1)]
    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(maps, thread, meets=True) for thread in (0, 1)]
        for result, reference in zip(results, expected, strict=True):
            for ours, alone in zip(result.result(), reference, strict=True):
                assert alone.count_nonzero()
                assert torch.equal(ours, alone)
    assert not any(layer._forward_hooks for layer in net.modules())


def test_a_pass_within_a_pass_is_not_recorded() -> None:
    layer, seen = nn.Identity(), []
    with hooked_outputs({"layer": layer}, lambda name, output: seen.append(("outer", output))):
        layer(1)
        with hooked_outputs({"layer": layer}, lambda name, output: seen.append(("inner", output))):
            layer(2)
        layer(3)
    layer(4)
    assert seen == [("outer", 1), ("inner", 2), ("outer", 3)]


def test_a_layer_that_does_not_run_is_refused() -> None:
    class Idle(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).mean((2, 3))

    with pytest.raises(InputError, match="has the layer 'b', but does not run it"):
        ForwardPass(as_network(Idle(), input_size=8), torch.rand(1, 3, 8, 8).double(), needs=Needs(activations={"b"}))
