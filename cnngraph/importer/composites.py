"""Branches that meet -> a `residual` or a `parallel`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from cnngraph.importer.nodes import NO_LEVEL, SpecNode
from cnngraph.shape import TensorShape


def composite(merge: str, branches: list[list[SpecNode]], shape: TensorShape) -> SpecNode:
    """The composite of branches that all read a value of this shape.

    Args:
        merge: `add`, `concat` or `multiply`.
        branches: the nodes of each branch.
        shape: that of the value.
    """
    if merge == "add":
        branches = [part for branch in branches for part in _summands(branch)]
    if merge == "add" and len(branches) == 2:
        body, shortcut = branches
        if not body or (shortcut and _weight(shortcut) > _weight(body)):
            body, shortcut = shortcut, body
        return _residual(body, shortcut, shape)
    parts = {str(index): branch for index, branch in enumerate(branches)}
    args = {} if merge == "concat" else {"merge": merge}
    return SpecNode("parallel", args, parts, NO_LEVEL, shape)


def _summands(branch: list[SpecNode]) -> list[list[SpecNode]]:
    """The branches of a sum that is itself a branch of a sum."""
    if len(branch) == 1 and branch[0].kind == "residual" and not branch[0].args:
        parts = branch[0].parts
        if branch[0].name == NO_LEVEL and "shortcut" in parts:
            return [parts["body"], parts["shortcut"]]
    return [branch]


def _residual(body: list[SpecNode], shortcut: list[SpecNode], shape: TensorShape) -> SpecNode:
    args: dict[str, Any] = {}
    if len(body) > 1 and body[-1].kind == "scale":
        args["scale"] = body.pop().args["factor"]
    if _is_projection(shortcut):
        args["shortcut"] = "project"
        shortcut = []
    parts = {"body": body} | ({"shortcut": shortcut} if shortcut else {})
    return SpecNode("residual", args, parts, NO_LEVEL, shape)


def _is_projection(nodes: Sequence[SpecNode]) -> bool:
    """Whether nodes are those that `shortcut: project` stands for."""
    if len(nodes) != 1 or nodes[0].kind != "sequential" or nodes[0].name != "downsample":
        return False
    parts = nodes[0].parts["body"]
    if [(part.kind, part.name) for part in parts] != [("conv2d", "0"), ("batch_norm", "1")]:
        return False
    conv, norm = parts
    stride, channels = conv.args.get("stride", 1), conv.args["out_channels"]
    if stride == 1 and channels == conv.input.channels:
        return False
    usual = conv.args["kernel_size"] == 1 and conv.args.get("bias") is False
    named = conv.args.keys() <= {"out_channels", "kernel_size", "stride", "bias"}
    return usual and named and not norm.args


def _weight(nodes: Collection[SpecNode]) -> int:
    return sum(node.ops for node in nodes)
