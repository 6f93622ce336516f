"""A traced graph -> steps: each call of torch becomes an op of the language."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, fx, nn

from cnngraph.errors import CnngraphError
from cnngraph.importer import arrange, layers, pointwise, reductions
from cnngraph.importer.kept import kept_step
from cnngraph.importer.modules import is_leaf, module_step
from cnngraph.importer.rules import RULES
from cnngraph.importer.steps import Steps
from cnngraph.importer.values import Recorder, Value, Weight
from cnngraph.shape import ShapeError, TensorShape

_RULES_IN = (arrange, layers, pointwise, reductions)
"""The modules with the rules, which their import registers."""


def convert(
    graph: fx.Graph,
    root: nn.Module,
    inputs: Mapping[str, TensorShape],
    kept: Collection[nn.Module] = (),
) -> Steps:
    """The steps of a traced module, up to its results; submodules in `kept` stay modules.

    Raises:
        UnsupportedError: the language cannot say a call; the message names its place.
    """
    record = Recorder(root, lambda module: module in kept or is_leaf(module))
    known = record.known
    needed = _needed(graph)
    weights = _weights(root)
    names = iter(inputs)
    for node in graph.nodes:
        record.node = node
        if node.op == "placeholder":
            if node.meta.get("value") is not None:
                known[node] = Value(next(names), tuple(node.meta["value"].shape))
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            tensor = getattr(root.get_submodule(owner), name)
            known[node] = weights.get(id(tensor)) or Weight(owner, name, tensor)
        elif node.op != "output" and node in needed:
            try:
                known[node] = _checked(record, _call(record, node, known, kept))
            except ShapeError as error:
                raise record.unsupported(f"this call: {error}") from error
    return _with_results(graph, known, record, inputs)


def _weights(root: nn.Module) -> dict[int, Weight]:
    named = [*root.named_parameters(), *root.named_buffers()]
    return {
        id(tensor): Weight(path.rpartition(".")[0], path.rpartition(".")[2], tensor)
        for path, tensor in named
    }


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    needed: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return needed


def _call(
    record: Recorder, node: fx.Node, known: dict[fx.Node, Any], kept: Collection[nn.Module]
) -> Any:
    args: Any = fx.map_arg(node.args, known.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, known.__getitem__)
    if node.op == "call_module":
        path = str(node.target)
        module = record.root.get_submodule(path)
        step = kept_step if module in kept else module_step
        return step(record, module, path, *args, **kwargs)
    rule: Callable[..., Any] | None = RULES.get(node.target)
    if rule is None:
        name = node.target if isinstance(node.target, str) else _name(node.target)
        raise record.unsupported(f"`{name}`")
    try:
        return rule(record, *args, **kwargs)
    except TypeError as error:
        raise record.unsupported(f"`{_name(node.target)}` with these arguments") from error
    except AttributeError as error:  # a rule got something else than a value
        raise record.unsupported(f"`{_name(node.target)}` of a constant") from error


def _name(function: Any) -> str:
    return getattr(function, "__name__", str(function))


def _checked(record: Recorder, result: Any) -> Any:
    """The result of a rule, whose shape must be that of the call's tensor."""
    tensor = record.node.meta.get("value")
    name = _name(record.node.target)
    if not isinstance(result, Value) or not isinstance(tensor, Tensor) or "expand" in name:
        return result
    if result.shape != tuple(tensor.shape):
        raise record.unsupported(f"`{name}` of this shape")
    return result


def _with_results(
    graph: fx.Graph,
    known: dict[fx.Node, Any],
    record: Recorder,
    inputs: Mapping[str, TensorShape],
) -> Steps:
    """The steps with the results of the module, by name."""
    node = next(node for node in graph.nodes if node.op == "output")
    returned = fx.map_arg(node.args[0], known.__getitem__)
    fields = getattr(returned, "_fields", None)
    if fields is not None:  # a named tuple
        found: dict[str, Any] = dict(zip(fields, returned, strict=True))
    elif isinstance(returned, dict):
        found = {str(name): value for name, value in returned.items()}
    else:
        items = returned if isinstance(returned, tuple | list) else [returned]
        found = {str(index): value for index, value in enumerate(items)}
    if not found or not all(isinstance(value, Value) for value in found.values()):
        raise CnngraphError("the module returns something other than tensors of the network")
    record.node = node
    outputs = {name: record.plain(value).name for name, value in found.items()}
    main = next(iter(outputs.values()))
    several = outputs if len(outputs) > 1 or isinstance(returned, dict) else {}
    return Steps(inputs, tuple(record.steps), main, several, shapes=record.shapes)
