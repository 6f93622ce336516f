"""What a distributed step exchanges, against torch's modules and the formula by hand."""

from __future__ import annotations

import pytest
from torch import nn

import cnngraph
from cnngraph.graph.exchange import Exchange, exchange


@pytest.mark.parametrize("spec", ["resnet18", "googlenet", "vgg11"])
def test_bytes_are_those_of_the_modules(spec: str) -> None:
    net = cnngraph.compile(spec)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    forward = sum(8 * (2 * norm.num_features + 1) for norm in norms)
    backward = sum(4 * 2 * norm.num_features for norm in norms)
    parameters = sum(value.numel() for value in net.parameters())
    found = exchange(net.compilation.graph)
    assert found == Exchange(4 * parameters, forward + backward, len(norms))


def test_times_are_those_of_a_ring() -> None:
    found = Exchange(gradients=8_000, statistics=400, batch_norms=3)
    gradients, statistics = found.seconds(4, bandwidth=1000.0, latency=0.5)
    assert gradients == pytest.approx(2 * 3 / 4 * 8 + 2 * 3 * 0.5)
    assert statistics == pytest.approx(2 * 3 / 4 * 0.4 + 6 * 2 * 3 * 0.5)
    assert found.seconds(1, 1000.0, 0.5) == (0, 0)
    low, high = found.efficiency(15.0, 4, 1000.0, 0.5)
    assert low == pytest.approx(15 / (15 + 15 + 18.6))
    assert high == pytest.approx(15 / (15 + 5 + 18.6))
