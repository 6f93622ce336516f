"""A small network for the benchmarks' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY = """\
cnngraph: 1
name: tiny
input: [3, 32, 32]
params: {width: 8}
graph:
  - conv2d: {name: conv1, out_channels: "${width}", kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: bn1}
  - relu
  - aux: {name: side, body: [global_avg_pool2d, flatten, {linear: {name: fc, out_features: 5}}]}
  - repeat:
      times: 2
      body:
        - conv2d: {name: "more${i}", out_channels: "${width}", kernel_size: 3, padding: 1}
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 5}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.yaml"
    path.write_text(TINY)
    return path
