"""FSDP: each process keeps a part of the weights, of their gradients and of the optimizer's state.

Before a block runs, its weights are gathered from all processes; afterwards they are freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnngraph.compiler import compile_graph
from cnngraph.lowering.network import Network


def shard(net: nn.Module, mesh: Any) -> Any:
    """Shards a network in place, block by block.

    Args:
        net: the network, with the same weights in every process.
        mesh: a `DeviceMesh` of all processes.
    """
    from torch.distributed.fsdp import fully_shard

    for block in blocks(net):
        fully_shard(block, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The parts whose weights are gathered together: `layer1.0`, not `layer1` or its convolutions.

    A stage, whose children are numbered blocks, is divided into them.
    """
    for _, child in _containers(net):
        inner = _containers(child)
        if inner and all(name.isdigit() for name, _ in child.named_children()):
            yield from (block for _, block in inner)
        else:
            yield child


def _containers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children with children and parameters."""
    return [
        (name, child)
        for name, child in module.named_children()
        if any(child.children()) and any(True for _ in child.parameters())
    ]


def whole(value: Any) -> Any:
    """Plain data and tensors with every sharded tensor gathered, on the CPU.

    Every process must call it at the same time.
    """
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: whole(item) for key, item in items}
    if isinstance(value, list):
        return [whole(item) for item in cast("list[Any]", value)]
    return value


def share_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's whole `state_dict`, sharded like the parameters that it belongs to."""
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    entries = {
        index: {key: _shared(value, parameters[index]) for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}


def load_whole(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads whole weights into a network, sharded or not. Every process must call it."""
    own = net.state_dict()
    net.load_state_dict({name: _shared(value, own[name]) for name, value in state.items()})


def _shared(value: Any, like: Tensor) -> Any:
    """A tensor, sharded like another one of its shape."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != like.shape:
        return value  # a number, such as the steps of an optimizer
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def gathered(net: Network) -> Network:
    """A plain network with the weights of a sharded one. Every process must call it."""
    made = net.compilation
    plain = compile_graph(made.spec, made.params, made.graph, made.options)
    plain.load_state_dict(whole(net.state_dict()))
    return plain
