"""The network that `compile` returns: an `nn.Module` with its graph, features and classifier."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnngraph.allocator import MemorySettings
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph, Node
from cnngraph.graph.features import FeatureInfo, feature_info, last_map, select
from cnngraph.graph.step_memory import StepMemory, predict
from cnngraph.lowering.code import LevelCode
from cnngraph.lowering.inference import folded
from cnngraph.lowering.initial import initialise
from cnngraph.lowering.levels import Levels
from cnngraph.lowering.modules import Roots, lower
from cnngraph.lowering.names import require_free_names
from cnngraph.lowering.signature import class_called, with_inputs
from cnngraph.nn.level import Code, JoinLevel, Sequential
from cnngraph.ops.op import Op
from cnngraph.options import Options, budget_of
from cnngraph.passes import INFERENCE, PassResult, passes_of, run_passes
from cnngraph.spec.spec import Spec


@dataclass(frozen=True)
class Compilation:
    """The sources, options and results of a compilation: `net.compilation`.

    Attributes:
        spec: the spec that was compiled.
        params: the given params; the spec's defaults are not included.
        options: the options of the compiler.
        graph: the elaborated network, before the passes.
        optimized: the network after the passes.
        passes: the passes that ran, with their results.
        memory_settings: what `memory_tuning` set for the process, or None.
    """

    spec: Spec
    params: Mapping[str, Any]
    options: Options
    graph: Graph
    optimized: Graph
    passes: tuple[PassResult, ...]
    memory_settings: MemorySettings | None = None

    def __repr__(self) -> str:
        how = f"backend {self.options.backend}, memory {self.options.memory}"
        return f"<Compilation of {self.graph.name}: {how}>"


class Network(nn.Module):
    """A compiled network: an ordinary `nn.Module` whose modules sit at the spec's paths."""

    compilation: Compilation
    _code: Code

    def forward(self, x: Tensor) -> Any:
        return self._call(x)

    def _call(self, *inputs: Tensor) -> Any:
        try:
            return self._run(*inputs)
        except ValueError as error:
            _name_layer(self, error)
            raise

    def _run(self, *inputs: Tensor) -> Any:
        return self._code(self, *inputs)

    @property
    def code(self) -> str:
        """The source of the generated `forward`. Every level of the network has one."""
        return self._code.source

    def _repr_html_(self) -> str:
        """The drawing, the table by stage and the costs, for notebooks."""
        from cnngraph.report.check import Report

        return Report("", (), self.compilation.spec, self.compilation.graph)._repr_html_()

    @property
    def feature_info(self) -> FeatureInfo:
        """The network's feature maps, from the largest to the smallest.

        Each is a dict with `module`, `num_chs`, `reduction` and `shape`. `module` is a name for
        `cnngraph.compile(spec, outputs=[...])`. A network compiled with `outputs` lists these.
        """
        return feature_info(self.compilation.graph)

    def step_memory(self, batch_size: int = 16, dtype: str = "float32") -> StepMemory:
        """The predicted memory of a training step, in bytes.

        Args:
            batch_size: the number of images.
            dtype: the data type of activations and weights, such as `float32`.
        """
        return predict(self.compilation.optimized, batch_size, dtype)

    def forward_features(self, *inputs: Tensor) -> Tensor:
        """The last feature map, before pooling and the classifier: `(N, C, H, W)`.

        For a network without maps, the input of its last layer: `(N, features)`.

        Raises `CnngraphError` if the network was compiled with `outputs`.
        """
        if "_features_code" not in self.__dict__:
            self.__dict__["_features_code"] = self._code_of_features()
        code: Code | None = self.__dict__["_features_code"]
        return inputs[0] if code is None else code.forward(self, *inputs)

    def _code_of_features(self) -> Code | None:
        """The code of `forward_features`; None if it returns its input."""
        graph = self.compilation.graph
        if graph.features:
            raise CnngraphError(
                "a network compiled with `outputs` already returns features: call it"
            )
        path = last_map(graph)
        if path in graph.inputs:
            return None
        options = self.compilation.options
        part = replace(select(graph, [path]), features={})
        levels, whole = Levels(part), Levels(graph)
        cut = [
            path
            for path, level in levels.items()
            if level.nodes != whole[path].nodes
            or (level.inputs, level.outputs) != (whole[path].inputs, whole[path].outputs)
        ]
        names = {path: tuple(self.get_submodule(path)._modules) for path in levels}
        optimized = _optimized(part, options)
        code = LevelCode(
            part, levels, names, optimized, lambda graph: _optimized(graph, options), cut
        )
        return code.of(levels[""])

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the layers whose size depends on the spec's param `num_classes`.

        This includes layers of side heads. All other weights stay. The new layers get the dtype
        and device of the old layers. An existing optimizer needs their parameters.

        Raises:
            CnngraphError: the spec has no such param, its layers themselves depend on the param,
                or the network was compiled with `outputs`.
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
        try:
            classes = 0 if isinstance(num_classes, bool) else operator.index(num_classes)
        except TypeError:
            classes = 0
        if classes < 1:
            raise CnngraphError(
                f"a classifier has at least one class, not {num_classes!r}; for features alone "
                "call `forward_features`"
            )
        num_classes = classes
        params = {**old.params, "num_classes": num_classes}
        graph = elaborate_or_raise(old.spec, params)
        if graph.by_path.keys() != old.graph.by_path.keys():
            raise CnngraphError(
                f"`{old.spec.name}` has other layers for {num_classes} classes: compile it with "
                "that param"
            )
        for node in graph.nodes:
            if (
                _identity(graph, node) != _identity(old.graph, old.graph.by_path[node.path])
                and node.op.has_module
                and not node.shared
            ):
                module = node.op.module(*graph.input_shapes(node))
                initialise(module, node, old.spec.init)
                self._replace(node.path, module)
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
        """A separate, faster network for evaluation, with a copy of this network's weights.

        Batch norms are folded into the convolutions and linear layers before them, and additions
        and activations run in the same call if the processor supports it. The weights are
        constants: later changes of this network do not affect them. The result supports `.to()`,
        and can be saved, loaded and exported.

        Raises:
            CnngraphError: the network is in training mode, or a level of it was replaced.
        """
        if self.training:
            raise CnngraphError(
                "this network is in training mode: call `net.eval().for_inference()`"
            )
        graph, modules = folded(self.compilation.graph, self)
        names = tuple(graph.inputs)
        roots = Roots(
            with_inputs(SequentialInferenceNetwork, names), with_inputs(InferenceNetwork, names)
        )
        network = lower(graph, _for_inference(graph), _for_inference, modules, roots)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        network._graph_name = graph.name
        return network.eval()

    def _get_name(self) -> str:
        return self.compilation.graph.name

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_features_code"}


class SequentialNetwork(Network, Sequential):  # pyright: ignore
    """A compiled network whose children form a chain."""

    def _run(self, *inputs: Tensor) -> Any:
        return Sequential.forward(self, *inputs)


class InferenceNetwork(nn.Module):
    """The result of `net.for_inference()`: a network for evaluation only."""

    _code: Code
    _graph_name: str

    def forward(self, x: Tensor) -> Any:
        return self._call(x)

    def _call(self, *inputs: Tensor) -> Any:
        return self._code(self, *inputs)

    @property
    def code(self) -> str:
        """The source of the generated `forward`."""
        return self._code.source

    def train(self, mode: bool = True) -> InferenceNetwork:
        """Does nothing, or raises `CnngraphError` if `mode` is True: there is no training mode."""
        if mode:
            raise CnngraphError(
                "a network for inference cannot train: train the network it was made from"
            )
        return super().train(False)

    def _get_name(self) -> str:
        return self._graph_name


class SequentialInferenceNetwork(InferenceNetwork, Sequential):  # pyright: ignore
    """A network for evaluation whose children form a chain."""

    def _call(self, *inputs: Tensor) -> Any:
        return Sequential.forward(self, *inputs)


def network_of(
    compilation: Compilation, modules: Mapping[str, nn.Module | nn.Parameter]
) -> Network:
    """The network of a compilation, with these modules by path."""
    names = tuple(compilation.graph.inputs)
    require_free_names(compilation.graph, SequentialNetwork, JoinLevel)
    network = lower(
        compilation.graph,
        compilation.optimized,
        lambda graph: _optimized(graph, compilation.options),
        modules,
        Roots(with_inputs(SequentialNetwork, names), with_inputs(Network, names)),
    )
    network.compilation = compilation
    return network


def __getattr__(name: str) -> type[nn.Module]:
    """A class of networks with named inputs, which pickle looks up by its name."""
    return class_called(name, globals())


def _optimized(graph: Graph, options: Options) -> Graph:
    """A part of a network after the passes.

    A budget is for a training step of the whole network, so it is replaced by `lean` here.
    """
    if budget_of(options.memory) is not None:
        options = replace(options, memory="lean")
    return run_passes(graph, passes_of(options))[0]


def _for_inference(graph: Graph) -> Graph:
    return run_passes(graph, INFERENCE)[0]


def _identity(graph: Graph, node: Node) -> tuple[Op, dict[str, tuple[int, ...]]]:
    """A key that is equal for nodes with equal modules."""
    return node.op, node.op.parameters(*graph.input_shapes(node))


def _name_layer(network: nn.Module, error: ValueError) -> None:
    """Adds the layer's path to the error of a batch norm with a single value per channel."""
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
