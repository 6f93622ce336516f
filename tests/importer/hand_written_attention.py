"""Modules with attention over positions, which the language has no words for."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of each position to all others."""

    def __init__(self, dim: int, num_heads: int = 2, bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.num_heads, -1)).unbind(1)
        weights = (q.transpose(-2, -1) @ k).softmax(-1)
        return self.proj((v @ weights.transpose(-2, -1)).flatten(1, 2).view(x.shape))


class Wrapped(nn.Module):
    """Attention that gets a second argument, so that the module around it is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attn = Attention(channels, num_heads)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm(x))


class WithAttention(nn.Module):
    """Blocks of attention between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(8, 2), Block(8, 2))
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.last = Block(16, 4)
        self.wrapped = Wrapped(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.down(self.blocks(self.stem(x))))
        return self.fc(self.wrapped(x).mean((2, 3)))


class Forgets(nn.Module):
    """Attention whose constructor's arguments cannot be read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Forgetful(width=8, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x)


class Forgetful(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width // 2, width, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(self.conv(x), 1)[0]
