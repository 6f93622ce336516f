"""A traced graph -> steps: each call of torch becomes an op of the language."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from torch import fx, nn

from cnngraph.errors import CnngraphError
from cnngraph.importer import functions
from cnngraph.importer.functions import RULES
from cnngraph.importer.steps import INPUT, Step, Steps, new_op
from cnngraph.importer.values import Recorder, Value, Weight
from cnngraph.nn import layer_norm2d
from cnngraph.ops import OPS, Op
from cnngraph.shape import ShapeError, TensorShape

_PADS = {
    nn.ZeroPad2d: "constant",
    nn.ConstantPad2d: "constant",
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}
_NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)
_DROP_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""Modules of stochastic depth in timm and torchvision, and their attribute of the probability."""


@cache
def _classes() -> dict[type[nn.Module], type[Op]]:
    """The ops by the class of their module."""
    found: dict[type[nn.Module], type[Op]] = {}
    for op in OPS.values():
        if op.module_class is not None and not op.kind.startswith("global"):
            package, _, name = op.module_class.rpartition(".")
            found[getattr(import_module(package), name)] = op
    return found


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one op."""
    kind = type(module)
    return (
        kind in _classes()
        or kind in _PADS
        or kind in _NORMS
        or kind in (nn.LayerNorm, layer_norm2d.LayerNorm2d)
        or kind.__name__ in _DROP_PATHS
        or (kind.__module__.startswith("torch.nn") and not any(module.children()))
    )


def convert(graph: fx.Graph, root: nn.Module, input: TensorShape) -> Steps:
    """The steps of a traced module, up to its result.

    Raises:
        UnsupportedError: the language cannot say a call; the message names its place.
    """
    record = Recorder(root)
    known: dict[fx.Node, Any] = {}
    needed = _needed(graph)
    weights = _weights(root)
    for node in graph.nodes:
        if node not in needed:
            continue
        record.node = node
        if node.op == "placeholder":
            if node.meta.get("value") is not None:
                batch = tuple(node.meta["value"].shape)
                known[node] = Value(INPUT, batch, "map" if len(batch) == 4 else "flat")
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            tensor = getattr(root.get_submodule(owner), name)
            known[node] = weights.get(id(tensor)) or Weight(owner, name, tensor)
        elif node.op == "output":
            pass
        else:
            try:
                known[node] = _call(record, node, known)
            except ShapeError as error:
                raise record.unsupported(f"this call: {error}") from error
    return _with_results(graph, known, record.steps, input)


def _weights(root: nn.Module) -> dict[int, Weight]:
    named = [*root.named_parameters(), *root.named_buffers()]
    return {
        id(tensor): Weight(path.rpartition(".")[0], path.rpartition(".")[2], tensor)
        for path, tensor in named
    }


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    needed: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op in ("output", "placeholder")]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return needed


def _call(record: Recorder, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    args: Any = fx.map_arg(node.args, known.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, known.__getitem__)
    if node.op == "call_module":
        return _module(record, str(node.target), *args, **kwargs)
    if hasattr(node.target, "_fields"):  # a named tuple of results
        return args
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


def _module(record: Recorder, path: str, input: Any, *args: Any, **kwargs: Any) -> Value:
    """The op of a leaf module."""
    module: Any = record.root.get_submodule(path)
    kind = type(module)
    if kind is nn.Identity:
        return input
    if args or kwargs or not isinstance(input, Value):
        raise record.unsupported(f"a {kind.__name__} with several inputs")
    if kind is nn.Linear:
        bias = module.bias is not None
        return functions.apply_linear(record, input, module.out_features, bias, path)
    if kind in (nn.LayerNorm, layer_norm2d.LayerNorm2d):
        if kind is nn.LayerNorm:
            shape, affine = module.normalized_shape, module.elementwise_affine
            bias = module.bias is not None or not affine
            return functions.apply_layer_norm(record, input, shape, module.eps, affine, bias, path)
        return record.step(_op(OPS["layer_norm"], module), input, module=path, weighted=True)
    if input.layout not in ("map", "last", "flat"):
        raise record.unsupported(f"a {kind.__name__} of a tensor of {input.shape}")
    weighted = bool(module.state_dict())
    if input.layout == "last" and (weighted or kind.__name__.startswith(("Softmax", "GLU"))):
        raise record.unsupported(f"a {kind.__name__} of a map with the channels last")
    if kind in _NORMS:
        op: Op = _op(OPS["batch_norm"], module)
    elif kind in _PADS:
        mode: Any = _PADS[kind]
        value = float(getattr(module, "value", 0.0))
        sides = module.padding if isinstance(module.padding, tuple) else (module.padding,) * 4
        if not any(sides):
            return input
        op = new_op("pad", padding=sides, mode=mode, value=value)
    elif kind is nn.AdaptiveAvgPool2d:
        return functions.adaptive_avg_pool2d(record, input, module.output_size, path)
    elif kind is nn.AdaptiveMaxPool2d:
        return functions.adaptive_max_pool2d(record, input, module.output_size, path)
    elif kind is nn.Flatten:
        return functions.reshape(record, input)
    elif kind in (nn.Softmax, nn.LogSoftmax) and module.dim not in (1, 1 - len(input.shape)):
        raise record.unsupported(f"a {kind.__name__} over dimension {module.dim}")
    elif kind in _classes():
        op = _op(_classes()[kind], module)
    elif kind.__name__ in _DROP_PATHS:
        p = getattr(module, _DROP_PATHS[kind.__name__]) or 0.0
        if getattr(module, "mode", "row") != "row" or not getattr(module, "scale_by_keep", True):
            raise record.unsupported(f"this {kind.__name__}")
        op = new_op("drop_path", p=float(p))
    else:
        raise record.unsupported(f"the module {kind.__name__} (`{path}`)")
    return record.step(op, input, module=path, weighted=weighted)


def _op(op: type[Op], module: Any) -> Op:
    """The op of a module: its fields are the module's attributes of these names."""
    given: dict[str, Any] = {}
    for name, field in op.model_fields.items():
        if name == "bias":
            given[name] = module.bias is not None or not getattr(module, "elementwise_affine", True)
        elif name == "init" or not hasattr(module, name):
            continue
        else:
            value = getattr(module, name)
            if value is None and not field.is_required():
                continue
            if isinstance(value, list):
                value = tuple(value)
            given[name] = value
    if op.kind == "normalize":
        mean, std = module._constants
        given = {"mean": tuple(mean), "std": tuple(std)}
    return op(**given)


def _with_results(
    graph: fx.Graph, known: dict[fx.Node, Any], steps: list[Step], input: TensorShape
) -> Steps:
    """The steps with the main result first; other results are those of side heads."""
    (returned,) = next(node for node in graph.nodes if node.op == "output").args
    returned = fx.map_arg(returned, known.__getitem__)
    items = list(returned.values()) if isinstance(returned, dict) else returned
    items = list(items) if isinstance(items, tuple | list) else [items]
    found = [value for value in items if isinstance(value, Value)]
    if not found or len(found) < len(items):
        raise CnngraphError("the module returns something other than tensors of the network")
    if found[0].layout not in ("map", "flat"):
        raise CnngraphError(f"the module returns a tensor of {found[0].shape}, with channels last")
    names = [value.name for value in found]
    return Steps(input, tuple(steps), names[0], tuple(names[1:]))
