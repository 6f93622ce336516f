"""Names that the classes of a network use are refused, by `check` or when it is compiled."""

from __future__ import annotations

import pytest
from torch import nn

import cnngraph
from cnngraph.elaborate.naming import TAKEN_BY_TORCH
from cnngraph.errors import SpecError
from cnngraph.lowering.names import public_names
from cnngraph.lowering.network import InferenceNetwork, SequentialNetwork
from cnngraph.nn.level import JoinLevel

SPEC = """
cnngraph: 1
name: net
input: [3, 8, 8]
graph:
  - sequential:
      name: block
      body:
        - conv2d: {name: NAME, out_channels: 4, kernel_size: 1}
"""


def test_a_check_refuses_every_name_that_this_torch_and_our_classes_use() -> None:
    classes = (nn.Module, nn.Sequential, SequentialNetwork, JoinLevel, InferenceNetwork)
    assert not public_names(*classes) - TAKEN_BY_TORCH
    assert {"training", "forward", "step_memory"} <= public_names(SequentialNetwork)


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_a_name_of_a_later_torch_is_refused_when_compiled(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.replace("NAME", "quantize_later")
    cnngraph.compile(spec, backend=backend)
    monkeypatch.setattr(nn.Module, "quantize_later", lambda self: None, raising=False)
    with pytest.raises(SpecError, match="`quantize_later` already has a meaning") as caught:
        cnngraph.compile(spec, backend=backend)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.path) == ("E116", "block.quantize_later")
    assert diagnostic.position is not None


@pytest.mark.parametrize("merge", ["add", "multiply", "concat"])
@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_a_join_of_one_branch_is_that_branch(merge: str, backend: str) -> None:
    import torch

    node = f"parallel: {{merge: {merge}, branches: [relu]}}"
    net = cnngraph.compile(
        f"cnngraph: 1\nname: net\ninput: [3, 8, 8]\ngraph:\n  - {node}\n", backend=backend
    )
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(net(x), x.relu())
    torch.testing.assert_close(net.eval().for_inference()(x), x.relu())
