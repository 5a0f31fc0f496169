"""Networks as strangers bring them, right and wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Small(nn.Module):
    """A small network of everything that is usual; the others differ from it in one point."""

    def __init__(self, n_outputs: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(6, n_outputs)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.body(images).mean((2, 3)))


class EndsInSoftmax(Small):
    def __init__(self, n_outputs: int = 4) -> None:
        super().__init__(n_outputs)
        self.end = nn.Softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.end(super().forward(images))


class EndsInFunction(Small):
    def forward(self, images: Tensor) -> Tensor:
        return F.softmax(super().forward(images), 1)


class ReadsASoftmax(Small):
    """Probabilities whose softmax stands where no graph shows it."""

    def forward(self, images: Tensor) -> Tensor:
        exponentials = super().forward(images).exp()
        return exponentials / exponentials.sum(1, keepdim=True)


class EndsInSigmoid(Small):
    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(images))


class OneOf(Small):
    """Gives the logits in another wrapping.

    Args:
        wrapping: Which.
    """

    def __init__(self, wrapping: str) -> None:
        super().__init__()
        self.wrapping = wrapping

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return {
            "dict": {"out": logits, "aux": logits},
            "tuple": (logits, images),
            "list": [logits],
            "none": None,
            "row": logits[:, 0],
            "dense": self.body(images),
            "classes": logits.argmax(1),
            "one for all": logits[:1],
        }[self.wrapping]


class TakesTwo(Small):
    def forward(self, images: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images) * scale


class Raises(Small):
    """Raises an error of a kind.

    Args:
        kind: Name of the kind.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        errors: dict[str, Exception] = {
            "KeyError": KeyError("pixel_values"),
            "AssertionError": AssertionError(),
            "AttributeError": AttributeError("'Tensor' object has no attribute 'tensors'"),
            "NotImplementedError": NotImplementedError("forward"),
        }
        raise errors[self.kind]


class NormalizesByTheBatch(Small):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.body[0], nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU())


class DropsAlways(Small):
    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.dropout(self.body(images), 0.5, training=True).mean((2, 3)))


class DrawsInVain(Small):
    def forward(self, images: Tensor) -> Tensor:
        torch.rand(1)
        return super().forward(images)


class WritesToItsInput(Small):
    """Normalizes in place."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(0.5).div_(0.25))


class SaysSizesAsLists(Small):
    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.resize_size = [3, 32, 32], [40]


class RunsTwice(nn.Module):
    """A layer that runs twice, with other channels each time, as ResNet's ReLUs do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.relu, self.idle = nn.ReLU(), nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.second(self.relu(self.first(images))))
        return self.head(x.mean((2, 3)))


class _Block(nn.Module):
    """A block of a ViT whose one dropout runs twice, as Hugging Face's do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.before(tokens)
        shares = (self.query(x) @ x.transpose(1, 2)).softmax(2)
        tokens = tokens + self.drop(shares @ self.value(x))
        return tokens + self.drop(self.mlp(self.after(tokens)))


class ReadsTheClassToken(nn.Module):
    """A ViT of which the class token alone reaches the logits."""

    class_names = ("ape", "bee", "cat")
    input_size = 32

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.Sequential(_Block(width), _Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([self.token.expand(len(images), -1, -1), tokens], 1))
        return self.head(self.norm(tokens)[:, 0])


class HasIdleBranches(Small):
    """Two branches that reach nothing: one is thrown away, one is multiplied by 0; and one that PyTorch loses."""

    def __init__(self) -> None:
        super().__init__()
        self.thrown, self.muted, self.lost = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(images)
        self.thrown(x)
        with torch.no_grad():
            lost = self.lost(x)
        return self.head((x + 0 * self.muted(x) + lost).mean((2, 3)))
