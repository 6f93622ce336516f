"""A small network with blocks, in every form that other tools meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import cnngraph

SPEC = """
cnngraph: 1
name: small
input: [3, 16, 16]
graph:
  - sequential:
      name: stem
      body:
        - conv2d: {name: conv, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
        - batch_norm: {name: bn}
        - relu: {name: act}
        - max_pool2d: {name: pool, kernel_size: 2}
  - repeat:
      name: layer
      times: 2
      body:
        sequential:
          - residual:
              name: ~
              body:
                - conv2d: {name: conv1, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
                - batch_norm: {name: bn1}
                - relu: {name: act1}
                - conv2d: {name: conv2, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
                - batch_norm: {name: bn2}
          - relu: {name: act2}
  - dense:
      name: dense
      layers: 2
      body:
        sequential:
          name: "layer${i}"
          body:
            - batch_norm: {name: norm}
            - relu: {name: act}
            - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1, bias: false}
  - global_avg_pool2d: {name: pool}
  - flatten: {name: flat}
  - linear: {name: fc, out_features: 4}
"""
BACKENDS = ("fused", "eager")
FORMS = (*BACKENDS, "inference")
"""How a network runs: on a backend, or as the fused network's `for_inference()`."""


def small(form: str = "fused", dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network with weights and statistics that are the same in every form.

    It is in training mode, except for `inference`.
    """
    torch.manual_seed(0)
    network = cnngraph.compile(SPEC, backend="eager" if form == "eager" else "fused").to(dtype)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.running_var):
                    value.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
                module.bias.normal_(0, 0.1)
    return network.eval().for_inference() if form == "inference" else network


def images(
    count: int = 4, size: int | tuple[int, int] = 16, dtype: torch.dtype = torch.float32
) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, height, width, dtype=dtype, generator=generator)


def close(found: object, expected: object) -> None:
    """Asserts that results are equal up to the rounding of their dtype."""
    first = found
    while not isinstance(first, Tensor):
        first = next(iter(first.values() if isinstance(first, dict) else first))  # pyright: ignore
    tight = first.dtype is torch.float64
    torch.testing.assert_close(
        found, expected, rtol=1e-8 if tight else 1e-4, atol=1e-9 if tight else 2e-5
    )


def without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A state with a wrapper's prefix taken out of its keys."""
    return {name.replace(prefix, ""): value for name, value in state.items()}
