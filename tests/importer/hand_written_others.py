"""Modules with shared weights, several inputs or results, containers, signals and volumes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class SharedWeights(nn.Module):
    """A convolution and a head that run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x))
        large, small = self.head(x), self.head(functional.max_pool2d(x, 2))
        return torch.cat([large.mean((2, 3)), small.mean((2, 3))], 1)


class TwoInputs(nn.Module):
    """Two inputs and two results, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(1, 8, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, rgb: Tensor, depth: Tensor) -> dict[str, Tensor]:
        features = torch.cat([self.rgb(rgb), self.depth(depth)], 1).relu()
        return {"features": features, "logits": self.fc(features.mean((2, 3)))}


class Pyramid(nn.Module):
    """Containers whose modules alternate, and a map enlarged to the size of another."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.inner = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps: list[Tensor] = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
            maps.append(x)
        low, middle, high = (conv(x) for conv, x in zip(self.inner, maps, strict=True))
        middle = middle + functional.interpolate(high, size=middle.shape[-2:])
        return low + functional.interpolate(middle, size=low.shape[-2:], mode="bilinear"), middle


class ListsOfModules(nn.Module):
    """Residuals whose modules are in two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + functional.relu(norm(conv(x)))
        return self.fc(x.mean((2, 3)))


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(4, 8, 5, padding=2)
        self.norm = nn.BatchNorm1d(8)
        self.pool = nn.MaxPool1d(2)
        self.conv2 = nn.Conv1d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv1(x)).relu())
        return self.fc((x + self.conv2(x)).mean(-1))


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(8)
        self.pool = nn.AvgPool3d(2)
        self.last = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv(x)).relu())
        return self.fc(self.last(functional.max_pool3d(x, 2)).flatten(1))


class Gates(nn.Module):
    """Gates over channels and positions, a parameter per channel, and parts of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.eca = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        self.gamma = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self.eca(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid()
        x = x * gate.view(x.shape[0], -1, 1, 1).expand_as(x)
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        x = x * functional.relu6(self.spatial(both) + 3) / 6
        first, second = x[:, :3], x[:, 3:]
        x = torch.cat([second, -first], 1) * self.gamma.reshape(1, -1, 1, 1)
        return x.clamp(-0.5, 0.5) - 2 * x.transpose(2, 3)


class Results(NamedTuple):
    logits: Tensor
    aux: Tensor


class SideHead(nn.Module):
    """A side head in training, whose result comes in a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.aux = nn.Sequential(nn.Conv2d(8, 2, 1), nn.Flatten(), nn.Linear(2 * 36, 5))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor | Results:
        x = self.conv(x)
        aux = self.aux(x) if self.training else None
        logits = self.fc(x.mean((2, 3)))
        return logits if aux is None else Results(logits, aux)


class Stores(nn.Module):
    """A part in another mode than the rest, and a weight that is stored when it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3).eval()
        self.weight = nn.Parameter(torch.rand(3, 1, 1))
        self.stored: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.stored is None:
            self.stored = self.weight * 2
        return self.norm(x) * self.stored
