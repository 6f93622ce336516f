"""What `compile` returns: an `fx.GraphModule` that also knows what it was compiled from, its features and classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import reduce_graph_module

from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import INPUT, Graph, Node
from cnngraph.graph.features import FeatureInfo, feature_info, last_map, select
from cnngraph.graph.step_memory import StepMemory, predict
from cnngraph.lowering.modules import network_of, straight_line
from cnngraph.ops.fused import ChannelsLast
from cnngraph.ops.op import Op
from cnngraph.options import Options, budget_of
from cnngraph.passes import PassResult, passes_of, run_passes
from cnngraph.spec.loader import Spec


@dataclass(frozen=True)
class Compilation:
    """What a network was compiled from and how; at `net.meta["cnngraph"]` of every compiled network.

    Attributes:
        graph: the network as elaborated, before the passes.
        memory_settings: what `memory_tuning` set for the process that compiled it; None where that was not asked for.
    """

    spec: Spec
    params: Mapping[str, Any]
    options: Options
    graph: Graph
    passes: tuple[PassResult, ...]
    memory_settings: str | None = None


class Network(fx.GraphModule):
    """A compiled network: an ordinary `nn.Module`, whose `code` can be read and whose modules sit at the spec's paths."""

    @classmethod
    def build(cls, compilation: Compilation, graph: Graph, root: nn.Module) -> Network:
        """Calls the modules of `root` as the optimized `graph` says."""
        network = network_of(graph, root, cls)
        if any(isinstance(node.op, ChannelsLast) for node in graph.nodes):
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        network.meta["cnngraph"] = compilation
        return network

    @property
    def compilation(self) -> Compilation:
        return self.meta["cnngraph"]

    @property
    def feature_info(self) -> FeatureInfo:
        """The values worth reading, from the largest map to the smallest: dicts of `module`, `num_chs`, `reduction`, `shape`.

        `module` is the name to give to `cnngraph.compile(spec, outputs=[...])`. For a network compiled that way, its
        own outputs.
        """
        return feature_info(self.compilation.graph)

    def step_memory(self, batch_size: int = 16, dtype: str = "float32") -> StepMemory:
        """The memory that a training step of so many images needs, predicted: `cnngraph.graph.step_memory.predict`."""
        optimized, _ = run_passes(self.compilation.graph, passes_of(self.compilation.options))
        return predict(optimized, batch_size, dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, before pooling and the classifier: `(batch, channels, height, width)`.

        For a network without maps, what its last layer reads: `(batch, features)`.
        """
        run = self.__dict__.get("_forward_features")
        if run is None:
            run = self.__dict__["_forward_features"] = self._trace_features()
        return run(self, x)

    def _trace_features(self) -> Callable[[Network, Tensor], Tensor]:
        graph = self.compilation.graph
        if graph.features:
            raise CnngraphError("a network compiled with `outputs` returns features already: call it")
        path = last_map(graph)
        if path == INPUT:
            return lambda network, x: x
        options = self.compilation.options
        if budget_of(options.memory) is not None:  # it is for the whole network's step
            options = replace(options, memory="lean")
        optimized, _ = run_passes(select(graph, [path]), passes_of(options))
        code = straight_line(optimized, path).python_code(root_module="self")
        namespace = dict(code.globals)
        exec(code.src, namespace)
        return namespace["forward"]

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the layers whose size follows from the spec's param `num_classes`, side heads' too, by new ones.

        All other weights stay. The new layers are newly initialised, of the old ones' dtype and device; give an
        optimizer that holds the old ones the new parameters.

        Raises:
            CnngraphError: the spec has no such param, or more than single layers depend on it; `SpecError` where the
                spec does not hold with this number.
        """
        old = self.compilation
        if old.options.outputs or "num_classes" not in old.spec.params:
            why = "it returns features" if old.options.outputs else f"`{old.spec.name}` has no param `num_classes`"
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
            if _identity(graph, node) != _identity(old.graph, old.graph.by_path[node.path]) and node.op.has_module:
                fresh = node.op.module(*graph.input_shapes(node))
                if isinstance(fresh, nn.Parameter):
                    parent, _, name = node.path.rpartition(".")
                    held = self.get_parameter(node.path)
                    self.get_submodule(parent).register_parameter(name, nn.Parameter(fresh.to(held)))
                    continue
                current = next(iter(self.get_submodule(node.path).parameters()), None)
                if current is not None:
                    fresh.to(device=current.device, dtype=current.dtype)
                self.set_submodule(node.path, fresh.train(self.training))
        self.meta["cnngraph"] = replace(old, params=params, graph=graph)

    def __reduce__(self) -> tuple[Any, ...]:
        _, (body, imports) = super().__reduce__()
        body.pop("_forward_features", None)
        return _unpickle, (body, imports)


def _identity(graph: Graph, node: Node) -> tuple[Op, dict[str, tuple[int, ...]]]:
    """What a node's module follows from."""
    return node.op, node.op.parameters(*graph.input_shapes(node))


def _unpickle(body: dict[str, Any], imports: str) -> Network:
    module = reduce_graph_module(body, imports)
    network = Network.__new__(Network)
    network.__dict__.update(module.__dict__)
    network.meta = body["meta"]
    network.graph = module.graph  # generates `forward`  # pyright: ignore[reportAttributeAccessIssue]
    network.__class__.__name__ = type(module).__name__
    return network
