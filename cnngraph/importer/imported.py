"""`from_module`: the flow from an `nn.Module` to a spec with its weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.compiler import compile
from cnngraph.errors import CnngraphError, first_line
from cnngraph.importer.blocks import snake_case
from cnngraph.importer.compose import compose
from cnngraph.importer.concats import normalize_concats
from cnngraph.importer.convert import convert
from cnngraph.importer.inputs import Input, input_names, input_shapes
from cnngraph.importer.kept import keep
from cnngraph.importer.modules import is_leaf
from cnngraph.importer.shares import share_calls
from cnngraph.importer.source import Source
from cnngraph.importer.steps import Steps, UnsupportedError, ancestors
from cnngraph.importer.trace import trace
from cnngraph.importer.tree import tree_of
from cnngraph.importer.verify import require_equal, require_keys
from cnngraph.importer.write import spec_text
from cnngraph.lowering.network import Network
from cnngraph.ops.module import Module
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Imported:
    """A module as a spec.

    Attributes:
        spec: the text of the spec.
        state_dict: the module's weights, under the keys of the spec's network, and with its shapes.
        kept: the names of the classes of its `module:` nodes, if there are any.
    """

    spec: str
    state_dict: Mapping[str, Tensor]
    kept: tuple[str, ...] = ()

    def compile(self, **options: Any) -> Network:
        """The network with the module's weights; `options` are those of `cnngraph.compile`."""
        options.setdefault("allow_code", bool(self.kept))
        network = compile(self.spec, **options)
        network.load_state_dict(dict(self.state_dict))
        return network


def from_module(
    module: nn.Module,
    input: Input | Sequence[Input] | Mapping[str, Input],
    *,
    name: str | None = None,
    allow_code: bool = False,
) -> Imported:
    """Writes the spec of an existing module.

    The module runs once without values, and its calls of torch are recorded. Submodules of the
    same structure become blocks, and siblings of the same structure a `repeat`. The names of
    modules stay, so that the weights fit.

    Args:
        module: a convolutional network.
        input: its input `(N, C, H, W)`, or the shape of one image without the batch; for several
            inputs, a list of these in the order of its `forward`, or a dict by the names there.
        name: the name of the network; by default that of the module's class.
        allow_code: keep a submodule that the language has no words for as a `module:` node, with
            its class and the arguments of its constructor, so that its spec needs `allow_code` too.

    Raises:
        CnngraphError: the module cannot be traced, or computes something that the language cannot
            say; the message names the line of the module's source.
    """
    _require_own_weights(module)
    given = input_shapes(module, input)
    name = name or snake_case(type(module).__name__)
    kept: set[str] = set()
    first = None
    while True:
        try:
            return _imported(module, given, name, kept)
        except UnsupportedError as error:
            if not allow_code:
                raise _with_help(error) from error.__cause__
            if first is None or error.level not in kept:
                first = error
            if not keep(kept, module, error.level):
                why = "" if first is error else f"\n  help: {error}"
                raise UnsupportedError(f"{first}{why}", first.level) from error


def _with_help(error: UnsupportedError) -> UnsupportedError:
    """The error with the way out."""
    way_out = "`--allow-code`, or `allow_code=True`, leaves such a submodule as a `module:` node"
    if not error.level:
        way_out = f"make a submodule of this part: {way_out}"
    return UnsupportedError(f"{error}\n  help: {way_out}", error.level)


def _require_own_weights(module: nn.Module) -> None:
    """Raises `CnngraphError` if a parameter has two names, for the spec would have two of it."""
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        if first != name:
            raise CnngraphError(
                f"`{name}` is the same tensor as `{first}`: a spec shares whole modules, which are"
                " one module that is called twice"
            )


def _imported(
    module: nn.Module, given: Mapping[str, TensorShape], name: str, kept: Collection[str]
) -> Imported:
    """The module as a spec; the submodules at the paths `kept` stay modules."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    examples = {name: torch.zeros(2, *shape, device=device) for name, shape in given.items()}
    shapes = dict(zip(input_names(module, list(given)), given.values(), strict=True))
    steps = _steps_of(module, shapes, examples, kept)
    shared = share_calls(normalize_concats(steps))
    weights = {
        key: tensor.reshape(steps.shapes.get(key, tensor.shape))
        for key, tensor in module.state_dict().items()
    }
    source = Source(module)

    def written(*, variants: bool) -> str:
        nodes, outputs = compose(tree_of(shared), shared)
        text, graph = spec_text(
            name, shapes, nodes, outputs, source, variants=variants, allow_code=bool(kept)
        )
        require_equal(graph, steps)
        require_keys(graph, weights)
        return text

    try:
        text = written(variants=True)
    except CnngraphError:  # blocks with optional nodes do not say what this module does
        text = written(variants=False)
    classes = [step.op.class_name for step in steps.steps if isinstance(step.op, Module)]
    return Imported(text, weights, tuple(dict.fromkeys(classes)))


def _steps_of(
    module: nn.Module,
    shapes: Mapping[str, TensorShape],
    examples: Mapping[str, Tensor],
    kept: Collection[str],
) -> Steps:
    """The steps of a module; those of training if it has side heads, which only run then."""
    own = _copy(module)
    steps = _traced(own.eval(), shapes, examples, kept)
    if _unused(module, steps):
        several = len(steps.outputs)
        steps = _traced(own.train(), shapes, examples, kept)
        values = list(steps.outputs.items())
        heads = tuple(value for _, value in values[max(1, several) :])
        steps = replace(steps, outputs=dict(values[:several]), heads=heads)
    if unused := _unused(module, steps):
        raise CnngraphError(f"`{unused[0]}` is part of the module, but its result does not need it")
    return steps


def _copy(module: nn.Module) -> nn.Module:
    """A copy with the same parameters, which may store what it computes while it is traced."""
    try:
        return copy.deepcopy(module, {id(each): each for each in module.parameters()})
    except Exception as error:
        raise CnngraphError(
            f"the module cannot be copied to be traced: {first_line(error)}"
        ) from error


def _traced(
    module: nn.Module,
    shapes: Mapping[str, TensorShape],
    examples: Mapping[str, Tensor],
    kept: Collection[str],
) -> Steps:
    """The steps of a module in its own mode."""
    modules = {module.get_submodule(path) for path in kept}
    graph = trace(module, examples, lambda each: each in modules or is_leaf(each))
    return convert(graph, module, shapes, modules)


def _unused(module: nn.Module, steps: Steps) -> list[str]:
    """The parameters of a module that no step uses."""
    used = {step.module for step in steps.steps if step.weighted}
    names = [name for name, _ in module.named_parameters()]
    return [name for name in names if not used.intersection(ancestors(name))]
