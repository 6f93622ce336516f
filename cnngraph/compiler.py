"""The compiler: YAML -> spec -> graph -> passes -> module. Start reading here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnngraph.allocator import tune_memory
from cnngraph.checker import InputLike, SpecLike, given_params, read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.graph.features import select
from cnngraph.lowering.modules import modules_of
from cnngraph.lowering.network import Compilation, Network, network_of
from cnngraph.options import Backend, Options
from cnngraph.passes import Observer, passes_of, run_passes
from cnngraph.spec.spec import Spec


def compile(
    spec: SpecLike,
    params: Mapping[str, Any] | None = None,
    *,
    input: InputLike | None = None,
    outputs: Sequence[str] = (),
    backend: Backend = "fused",
    memory: str = "fast",
    batch_size: int = 16,
    disable_passes: Sequence[str] = (),
    observe: Observer = lambda stage, graph: None,
    memory_tuning: bool = False,
    allow_code: bool = False,
) -> Network:
    """Compiles a spec into an ordinary `nn.Module` with newly initialised weights.

    Args:
        spec: path of a YAML file, the name of a network in the zoo (`resnet50`), or the YAML text
            itself (any text with a line break). A file is preferred to a name.
        params: values for the spec's `params`, such as `{"num_classes": 10}`.
        input: a shape such as `(3, 96, 96)` in place of the spec's `input`, or shapes by name in
            place of some of its `inputs`.
        outputs: names of the values to return as a dict, such as `["layer2", "layer4"]`. Layers
            that they do not need are left out. If empty, the network returns its result.
        backend: `fused` uses the fused operators, `eager` plain `torch.nn`. Both have the same
            `state_dict`.
        memory: which activations the fused backend saves for backward. `fast` saves all of them;
            `lean` recomputes activations of batch norms, which takes little time. With a budget
            such as `6GB`, a training step of `batch_size` images, weights included, recomputes just
            enough to fit.
        batch_size: images per training step that a budget assumes.
        disable_passes: names of passes to leave out, such as `["channels_last"]`.
        observe: callback `(stage, graph)`, called after each stage.
        memory_tuning: first calls `allocator.tune_memory`, which makes this process keep freed
            memory in huge pages; `net.compilation.memory_settings` describes what was set.
        allow_code: allows the spec to import Python code, with `module` and `plugins`. Only for
            specs that you trust.

    Returns:
        A module from `(N, *input)` to the last node's value. In training, a network with side heads
        returns a dict of `logits` and each head's result by name.

    Raises:
        SpecError: the spec is invalid; its `diagnostics` list every mistake.
        CnngraphError: a name in `outputs` or `disable_passes` is unknown, the options contradict
            each other, or a step cannot fit into the budget.
    """
    if isinstance(outputs, str):
        raise CnngraphError('`outputs` is a list of names, such as ["layer2", "layer4"]')
    if isinstance(disable_passes, str):
        raise CnngraphError('`disable_passes` is a list of names, such as ["channels_last"]')
    options = Options(tuple(outputs), backend, memory, batch_size, tuple(disable_passes))
    loaded = read_spec(spec, allow_code)
    return compile_spec(loaded, given_params(params, input), options, observe, memory_tuning)


def compile_spec(
    spec: Spec,
    params: Mapping[str, Any],
    options: Options,
    observe: Observer = lambda stage, graph: None,
    memory_tuning: bool = False,
) -> Network:
    """Compiles a spec that is already loaded; see `compile`."""
    passes_of(options)
    graph = elaborate_or_raise(spec, params)
    return compile_graph(spec, params, graph, options, observe, memory_tuning)


def compile_graph(
    spec: Spec,
    params: Mapping[str, Any],
    graph: Graph,
    options: Options,
    observe: Observer = lambda stage, graph: None,
    memory_tuning: bool = False,
) -> Network:
    """Compiles the graph of a spec that is already elaborated with `params`; see `compile`."""
    settings = tune_memory() if memory_tuning else None
    if options.outputs:
        graph = select(graph, options.outputs)
    optimized, passes = run_passes(graph, passes_of(options), observe)
    compilation = Compilation(
        spec, dict(params), options, graph, optimized, tuple(passes), settings
    )
    return network_of(compilation, modules_of(graph, spec.init))
