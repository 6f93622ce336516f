"""Modules that use Python freely: types, arguments, shapes, hooks and changes in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 4)

    def last(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class AsksForTypes(_Net):
    def forward(self, x: Any) -> Tensor:
        if isinstance(x, Tensor):
            x = [x]
        if not torch.is_tensor(x[0]) or x[0].is_complex() or x[0].requires_grad:
            raise TypeError("not an image")
        return self.last(self.norm(self.conv(torch.cat(x, 1))))


class BranchesOnShapes(_Net):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 4
        if x.shape[1] > 3:
            x = x[:, :3]
        parts = [x[:, index : index + 1] for index in range(x.size(1))]
        x = self.norm(self.conv(torch.cat(parts[::-1], dim=1)))
        size = int(x.size(-1) ** 0.5)
        return self.last(functional.adaptive_avg_pool2d(x, (size, size)))


class TakesAnything(_Net):
    def forward(self, *images: Tensor, **options: Any) -> Tensor:
        x = sum(self.conv(image) for image in images[1:]) + self.conv(images[0])
        return self.last(x if options.get("plain") else self.norm(x))


class ChangesInPlace(_Net):
    """The second activation changes `x`, and the last sum `z`."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        w = functional.hardswish(self.relu(self.norm(x)))
        x = x + w
        y = functional.hardswish(self.relu(x))
        z = y
        y += x
        return self.last(z * 2 + x)


class ChangesAView(_Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        self.relu(x.flatten(1))
        return self.last(x)


class ChangesAPart(_Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x[:, 0] = 0
        return self.last(x)


class ChangesItsWeight(_Net):
    def forward(self, x: Tensor) -> Tensor:
        self.conv.weight.data = self.conv.weight.data.clamp(max=1)
        return self.last(self.norm(self.conv(x)))


class TiesWeights(_Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 8, 3, padding=1)
        self.other.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x) + self.other(x)))


class CountsCalls(_Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.last(self.norm(self.conv(x)))


class UsesAnothersWeight(_Net):
    def __init__(self) -> None:
        super().__init__()
        self.others = [nn.Conv2d(8, 8, 1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.others[0](self.norm(self.conv(x))))


class Recomputes(_Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.part, x, use_reentrant=False))

    def part(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.conv(x.float()))


def _doubled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output * 2


def hooked() -> nn.Module:
    """A hook doubles what the convolution returns."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    net[0].register_forward_hook(_doubled)
    return net
