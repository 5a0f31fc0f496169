"""The gradient that ReLUs give, chosen at the time of the backward pass: the true one or the guided one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ReLURule:
    """Which gradient the ReLUs of a pass give: the true one or, inside ``guided()``, the guided one."""

    def __init__(self) -> None:
        self.is_guided = False

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
        ctx.rule = rule
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        # A tensor of its own, as PyTorch's ReLU gives: the one that comes in may be somebody else's too.
        gradient = torch.ops.aten.threshold_backward(gradients[0], output, 0)
        return gradient.clamp_min_(0) if ctx.rule.is_guided else gradient, None, None


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
