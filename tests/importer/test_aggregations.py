"""Results of several blocks that are joined, and blocks that are skipped in training."""

from __future__ import annotations

import hand_written_aggregations as written
import pytest
import torch
from table import with_statistics
from torch import nn

from cnngraph.importer import from_module
from cnngraph.importer.modules import is_leaf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", [written.Aggregation, written.OneShots, written.StochasticDepth])
def test_joined_results_are_the_same(kind: type[nn.Module]) -> None:
    module = with_statistics(kind())
    network = from_module(module, (3, 16, 16)).compile(backend="eager").eval()
    assert list(network.state_dict()) == list(module.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(x), module(x))


def test_tree_is_a_block_whose_root_joins_its_branches() -> None:
    spec = from_module(written.Aggregation(), (3, 16, 16)).spec
    assert spec.count("- tree: ") == 2
    assert '- root: {name: root, out_channels: "${in_channels // 2}"}' in spec
    assert "with:" not in spec


def test_chain_with_one_join_is_a_block_of_parallels() -> None:
    spec = from_module(written.OneShots(), (3, 16, 16)).spec
    assert spec.count("- one_shot") == 2
    assert spec.count("- parallel:") == 3
    assert '- conv_norm: {name: convs.2, out_channels: "${in_channels}"}' in spec


def test_stochastic_depth_is_an_op_with_its_probability() -> None:
    module = written.StochasticDepth()
    assert is_leaf(module.blocks[0].get_submodule("drop_path"))
    spec = from_module(module, (3, 16, 16)).spec
    assert "- drop_path: ${p}" in spec
    assert 'p: "${0.1 * i}"' in spec


def test_stochastic_depth_without_scale_stays_a_module() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), written.DropPath(0.2, scale_by_keep=False))
    spec = from_module(module, (3, 16, 16), allow_code=True).spec
    assert "class: hand_written_aggregations.DropPath" in spec
    assert "args: {drop_prob: 0.2, scale_by_keep: false}" in spec
