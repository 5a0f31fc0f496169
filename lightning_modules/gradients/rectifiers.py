"""The gradient that ReLUs give, chosen at the time of the backward pass: the true one or the guided one."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ReLURule:
    """Which gradient the ReLUs of a pass give: the true one or, inside ``guided()``, the guided one.

    Attributes:
        n_true: While the model runs: so many images, from the first on, that keep the true gradient in any case.
    """

    def __init__(self) -> None:
        self.is_guided = False
        self.n_true = 0
        _fewest_holders()  # not for the first time inside a backward pass

    @contextmanager
    def guided(self) -> Iterator[None]:
        self.is_guided = True
        try:
            yield
        finally:
            self.is_guided = False


class RuledReLU(torch.autograd.Function):
    """ReLU whose gradient follows a rule that may change between two backward passes of the same graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: ReLURule, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        output = x.relu_() if inplace else x.relu()
        ctx.save_for_backward(output)
        ctx.rule, ctx.n_true = rule, rule.n_true
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        # In place where nobody else can see it, which saves a pass over memory; the early layers are bound by those.
        if not torch.is_grad_enabled() and _holders(gradients) == _fewest_holders():
            gradient = gradients[0]
            torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
        else:
            gradient = torch.ops.aten.threshold_backward(gradients[0], output, 0)
        if ctx.rule.is_guided:
            gradient[ctx.n_true :].clamp_min_(0)
        return gradient, None, None


def _holders(gradients: tuple[Tensor, ...]) -> tuple[int, int]:
    """How many references there are to the first tensor, by Python and through it by C++, and to its memory."""
    storage = gradients[0].untyped_storage()
    return sys.getrefcount(gradients[0]), torch._C._storage_Use_Count(storage._cdata)


@functools.cache
def _fewest_holders() -> tuple[int, int]:
    """What :func:`_holders` counts in a backward function if the gradient goes there alone and nothing else keeps it.

    Counted once instead of written down, as it depends on the versions of Python and PyTorch.
    """
    found: list[tuple[int, int]] = []

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            found.append(_holders(gradients))
            return gradients[0]

    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(1, requires_grad=True)
        torch.autograd.grad(Count.apply(x) * 2, x)
    return found[0]


class RuleOnReLU(TorchFunctionMode):
    """Puts every ReLU that runs inside under ``rule``, be it a module or a function, in place or not."""

    _INPLACE = frozenset((torch.relu_, Tensor.relu_))
    _FUNCTIONS = frozenset((F.relu, torch.relu, Tensor.relu)) | _INPLACE

    def __init__(self, rule: ReLURule) -> None:
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._FUNCTIONS:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        inplace = func in self._INPLACE or kwargs.get("inplace", args[1] if len(args) > 1 else False)
        return RuledReLU.apply(x, self.rule, inplace)
