"""What `compile` returns: an `nn.Module` that also knows its graph, its features and its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import INPUT, Graph, Node
from cnngraph.graph.features import FeatureInfo, feature_info, last_map, select
from cnngraph.graph.step_memory import StepMemory, predict
from cnngraph.lowering.code import LevelCode
from cnngraph.lowering.inference import folded
from cnngraph.lowering.levels import Levels
from cnngraph.lowering.modules import Roots, lower
from cnngraph.nn.level import Code, Sequential
from cnngraph.ops.op import Op
from cnngraph.options import Options, budget_of
from cnngraph.passes import INFERENCE, PassResult, passes_of, run_passes
from cnngraph.spec.loader import Spec


@dataclass(frozen=True)
class Compilation:
    """What a network was compiled from and how: `net.compilation`.

    Attributes:
        graph: the network as elaborated, before the passes.
        optimized: the network after the passes.
        memory_settings: what `memory_tuning` set for the process that compiled it, or None.
    """

    spec: Spec
    params: Mapping[str, Any]
    options: Options
    graph: Graph
    optimized: Graph
    passes: tuple[PassResult, ...]
    memory_settings: str | None = None


class Network(nn.Module):
    """A compiled network: an ordinary `nn.Module` whose modules sit at the spec's paths."""

    compilation: Compilation
    _code: Code

    def forward(self, x: Tensor) -> Any:
        try:
            return self._run(x)
        except ValueError as error:
            _name_layer(self, error)
            raise

    def _run(self, x: Tensor) -> Any:
        return self._code(self, x)

    @property
    def code(self) -> str:
        """The source of the generated `forward`. Every level of the network has one."""
        return self._code.source

    @property
    def feature_info(self) -> FeatureInfo:
        """The values worth reading, from the largest map to the smallest.

        Dicts of `module`, `num_chs`, `reduction` and `shape`. `module` is the name to give to
        `cnngraph.compile(spec, outputs=[...])`. For a network compiled with `outputs`, those.
        """
        return feature_info(self.compilation.graph)

    def step_memory(self, batch_size: int = 16, dtype: str = "float32") -> StepMemory:
        """The predicted memory of a training step with this many images."""
        return predict(self.compilation.optimized, batch_size, dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, before pooling and the classifier: `(batch, channels, height, width)`.

        For a network without maps, the input of its last layer: `(batch, features)`.
        """
        code = self.__dict__.get("_features_code")
        if code is None:
            code = self.__dict__["_features_code"] = self._code_of_features()
        return x if code is _IDENTITY else code.forward(self, x)

    def _code_of_features(self) -> Code | object:
        graph = self.compilation.graph
        if graph.features:
            raise CnngraphError(
                "a network compiled with `outputs` already returns features: call it"
            )
        path = last_map(graph)
        if path == INPUT:
            return _IDENTITY
        options = self.compilation.options
        part = replace(select(graph, [path]), features={})
        levels, whole = Levels(part), Levels(graph)
        cut = [path for path, level in levels.items() if level.nodes != whole[path].nodes
               or (level.inputs, level.outputs) != (whole[path].inputs, whole[path].outputs)]  # fmt: skip
        names = {path: tuple(self.get_submodule(path)._modules) for path in levels}
        optimized = _optimized(part, options)
        code = LevelCode(
            part, levels, names, optimized, lambda graph: _optimized(graph, options), cut
        )
        return code.of(levels[""])

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the layers whose size follows from the spec's param `num_classes` with new ones.

        This includes those of side heads. All other weights stay. The layers get the dtype and device of those they
        replace. Give their parameters to an optimizer that holds the replaced ones.

        Raises:
            CnngraphError: the spec has no such param, or more than single layers depend on it.
            SpecError: the spec is invalid for this number.
        """
        old = self.compilation
        if old.options.outputs or "num_classes" not in old.spec.params:
            why = (
                "it returns features"
                if old.options.outputs
                else f"`{old.spec.name}` has no param `num_classes`"
            )
            raise CnngraphError(f"this network has no classifier to reset: {why}")
        if type(num_classes) is not int or num_classes < 1:
            raise CnngraphError(
                f"a classifier has at least one class, not {num_classes!r}; for features alone call `forward_features`"
            )
        params = {**old.params, "num_classes": num_classes}
        graph = elaborate_or_raise(old.spec, params)
        if graph.by_path.keys() != old.graph.by_path.keys():
            raise CnngraphError(
                f"`{old.spec.name}` has other layers for {num_classes} classes: compile it anew with that param"
            )
        for node in graph.nodes:
            if (
                _identity(graph, node) != _identity(old.graph, old.graph.by_path[node.path])
                and node.op.has_module
            ):
                self._replace(node.path, node.op.module(*graph.input_shapes(node)))
        optimized, _ = run_passes(graph, passes_of(old.options))
        self.compilation = replace(old, params=params, graph=graph, optimized=optimized)

    def _replace(self, path: str, fresh: nn.Module | nn.Parameter) -> None:
        if isinstance(fresh, nn.Parameter):
            parent, _, name = path.rpartition(".")
            held = self.get_parameter(path)
            self.get_submodule(parent).register_parameter(name, nn.Parameter(fresh.to(held)))
            return
        current = next(iter(self.get_submodule(path).parameters()), None)
        if current is not None:
            fresh.to(device=current.device, dtype=current.dtype)
        self.set_submodule(path, fresh.train(self.training))

    def for_inference(self) -> InferenceNetwork:
        """A separate network for evaluation, with this network's weights as they are now.

        Batch norms are folded into the convolutions and linear layers before them, once, and additions and activations
        are taken into the same call where the processor allows. Its weights are constants of its own: later changes of
        this network do not reach it. It follows `.to()`, and can be saved, loaded and exported.

        Raises:
            CnngraphError: the network is in training mode, or a level of it was replaced.
        """
        if self.training:
            raise CnngraphError(
                "this network is in training mode: call `net.eval().for_inference()`"
            )
        graph, modules = folded(self.compilation.graph, self)
        roots = Roots(SequentialInferenceNetwork, InferenceNetwork)
        network = lower(graph, _for_inference(graph), _for_inference, modules, roots)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        network._graph_name = graph.name
        return network.eval()

    def _get_name(self) -> str:
        return self.compilation.graph.name

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_features_code"}


class SequentialNetwork(Network, Sequential):
    """A compiled network whose children form a chain."""

    def _run(self, x: Tensor) -> Any:
        return Sequential.forward(self, x)


class InferenceNetwork(nn.Module):
    """What `net.for_inference()` returns: a network for evaluation alone."""

    _code: Code
    _graph_name: str

    def forward(self, x: Tensor) -> Any:
        return self._code(self, x)

    @property
    def code(self) -> str:
        """The source of the generated `forward`."""
        return self._code.source

    def train(self, mode: bool = True) -> InferenceNetwork:
        """Raises `CnngraphError` for training mode, which the network does not have."""
        if mode:
            raise CnngraphError(
                "a network for inference cannot train: train the network it was made from"
            )
        return super().train(False)

    def _get_name(self) -> str:
        return self._graph_name


class SequentialInferenceNetwork(InferenceNetwork, Sequential):
    """A network for evaluation whose children form a chain."""

    def forward(self, x: Tensor) -> Any:
        return Sequential.forward(self, x)


def network_of(
    compilation: Compilation, modules: Mapping[str, nn.Module | nn.Parameter]
) -> Network:
    """The network of a compilation, with these modules by path."""
    network = lower(
        compilation.graph,
        compilation.optimized,
        lambda graph: _optimized(graph, compilation.options),
        modules,
        Roots(SequentialNetwork, Network),
    )
    network.compilation = compilation
    return network


_IDENTITY = object()


def _optimized(graph: Graph, options: Options) -> Graph:
    """A part of a network after the passes. A budget is for the whole network's step: here it means `lean`."""
    if budget_of(options.memory) is not None:
        options = replace(options, memory="lean")
    return run_passes(graph, passes_of(options))[0]


def _for_inference(graph: Graph) -> Graph:
    return run_passes(graph, INFERENCE)[0]


def _identity(graph: Graph, node: Node) -> tuple[Op, dict[str, tuple[int, ...]]]:
    """What a node's module follows from."""
    return node.op, node.op.parameters(*graph.input_shapes(node))


def _name_layer(network: nn.Module, error: ValueError) -> None:
    """Adds to the error of a batch norm over a single value per channel which layer it is."""
    if not str(error).startswith("Expected more than 1 value per channel"):
        return
    names = {module: name for name, module in network.named_modules()}
    trace, layer = error.__traceback__, None
    while trace is not None:
        found = (
            value for value in trace.tb_frame.f_locals.values() if isinstance(value, _BatchNorm)
        )
        layer = next((names[value] for value in found if value in names), layer)
        trace = trace.tb_next
    if layer is not None:
        error.args = (
            f"{error.args[0]}: the batch norm `{layer}` needs a larger batch or a larger input",
        )
