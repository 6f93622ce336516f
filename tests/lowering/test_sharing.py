"""Copies of networks, their classes, and the code that equal levels share."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from conftest import SPECS, every_target
from test_lowering import VARIED, batch, compiled

import cnngraph
from cnngraph.nn.level import JoinLevel, Level, Sequential

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("backend", ["fused", "eager"])
def test_a_shallow_copy_shares_the_parameters(backend: str) -> None:
    network = compiled(VARIED, backend).eval()
    other = copy.copy(network)
    assert other.compilation is network.compilation
    assert all(map(lambda a, b: a is b, other.parameters(), network.parameters()))
    assert torch.equal(other(batch()), network(batch()))


@pytest.mark.parametrize("backend", ["fused", "eager"])
def test_a_pickled_level_computes_the_same(backend: str) -> None:
    network = compiled(VARIED, backend).eval()
    network.forward_features(batch())
    other = pickle.loads(pickle.dumps(network))
    assert torch.equal(other(batch()), network(batch()))
    assert torch.equal(other.forward_features(batch()), network.forward_features(batch()))
    fast = network.for_inference()
    assert torch.equal(pickle.loads(pickle.dumps(fast))(batch()), fast(batch()))


@every_target
def test_networks_of_a_spec_have_one_class(target: dict) -> None:
    first, second = (cnngraph.compile(SPECS / "resnet20_cifar.yaml", **target) for _ in range(2))
    assert type(first) is type(second)
    assert type(first.layer1[0]) is type(second.layer1[0])


@every_target
def test_the_blocks_of_resnet1202_share_code(target: dict) -> None:
    """200 blocks a stage; the first of a stage has another stride or shortcut."""
    with torch.device("meta"):
        network = cnngraph.compile(SPECS / "resnet1202_cifar.yaml", **target)
    levels = [m for m in network.modules() if type(m) in (Level, JoinLevel, Sequential)]
    assert len(levels) > 600
    assert len({id(level._code) for level in levels}) < 30
