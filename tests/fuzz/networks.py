"""Valid networks, and what must hold for each: `check` accepts it, and whatever runs it agrees."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from torch import nn

import cnngraph
from cnngraph.lowering.network import Network

from .batches import batch

FUSABLE = [
    "relu", "relu6", "leaky_relu", "elu", "gelu", {"gelu": {"approximate": "tanh"}}, "silu", "mish",
    "sigmoid", "tanh", "hardswish", "hardsigmoid", {"hardtanh": {"min_val": -0.5, "max_val": 0.75}},
    {"leaky_relu": 0.3}, {"elu": {"alpha": 0.5}},
]  # fmt: skip
ACTIVATIONS = st.sampled_from([*FUSABLE, "prelu", "selu", "softplus", "identity"])

NORMS = st.one_of(
    st.just("batch_norm"),
    st.fixed_dictionaries(
        {
            "batch_norm": st.fixed_dictionaries(
                {},
                optional={
                    "eps": st.sampled_from([1e-3, 0.1]),
                    "momentum": st.sampled_from([None, 0.0, 0.5, 1.0]),
                    "affine": st.booleans(),
                    "track_running_stats": st.booleans(),
                },
            )
        }
    ),
)


@st.composite
def convolutions(draw: st.DrawFn, channels: int | None = None, stride: int = 1) -> dict[str, Any]:
    """One that keeps the size of the map (but for its stride), with `channels` or any number."""
    kernel = draw(st.sampled_from([1, 3]))
    arguments = {
        "out_channels": channels or draw(st.integers(1, 5)),
        "kernel_size": kernel,
        "padding": kernel // 2,
        "stride": stride,
        "bias": draw(st.booleans()),
    }
    return {"conv2d": arguments}


KEEPING_POOLS = st.sampled_from(
    [
        {"max_pool2d": {"kernel_size": 3, "stride": 1, "padding": 1}},
        {"avg_pool2d": {"kernel_size": 3, "stride": 1, "padding": 1}},
    ]
)


def units(channels: int | None = None) -> st.SearchStrategy[list]:
    """Runs of nodes that keep the size; with `channels`, they end with that many."""
    first = st.one_of(NORMS, ACTIVATIONS, KEEPING_POOLS, convolutions())
    runs = st.lists(st.one_of(first, st.tuples(NORMS, ACTIVATIONS).map(list)), max_size=3)
    ends = st.lists(st.one_of(NORMS, ACTIVATIONS), max_size=2)
    if channels is None:
        return st.tuples(runs, ends).map(lambda parts: [*parts[0], *parts[1]] or ["relu"])
    return st.tuples(runs, convolutions(channels), ends).map(lambda p: [*p[0], p[1], *p[2]])


DEPTH = 2
"""How deep composites may lie in each other."""


@st.composite
def composites(draw: st.DrawFn, depth: int) -> Any:
    kind = draw(
        st.sampled_from(
            ["list", "sequential", "concat", "add", "gate", "residual", "project", "dense", "repeat"]
        )
    )  # fmt: skip
    inner = bodies(depth - 1)
    if kind == "list":
        return draw(inner)
    if kind == "sequential":
        return {"sequential": draw(inner)}
    if kind == "concat":
        branches = draw(st.lists(inner, min_size=1, max_size=3))
        if draw(st.booleans()):
            return {"parallel": {f"b{index}": body for index, body in enumerate(branches)}}
        return {"parallel": branches}
    if kind == "add":
        channels = draw(st.integers(1, 4))
        branches = draw(st.lists(units(channels), min_size=2, max_size=3))
        return {"parallel": {"merge": "add", "branches": branches}}
    if kind == "gate":
        gate = [
            "global_avg_pool2d",
            {"conv2d": {"out_channels": "${in_channels}", "kernel_size": 1}},
            "sigmoid",
        ]
        return {"parallel": {"merge": "multiply", "branches": ["identity", gate]}}
    if kind == "residual":
        keep = convolutions().map(
            lambda c: {"conv2d": {**c["conv2d"], "out_channels": "${in_channels}"}}
        )
        body = draw(st.lists(st.one_of(NORMS, ACTIVATIONS, keep), min_size=1, max_size=4))
        scale = draw(st.sampled_from([1.0, 0.5]))
        return {"residual": {"body": body, "scale": scale}}
    if kind == "project":
        channels = draw(st.integers(1, 4))
        strides = [1, 2] if depth == DEPTH else [1]  # branches must keep the size of the map
        body = [
            draw(convolutions(channels, stride=draw(st.sampled_from(strides)))),
            *draw(units(channels)),
        ]
        return {"residual": {"body": body, "shortcut": "project"}}
    if kind == "dense":
        return {
            "dense": {
                "layers": draw(st.integers(1, 3)),
                "body": draw(units(draw(st.integers(1, 3)))),
            }
        }
    return {"repeat": {"times": draw(st.integers(0, 3)), "body": draw(inner)}}


def bodies(depth: int) -> st.SearchStrategy[list]:
    if depth == 0:
        return units()
    return st.lists(st.one_of(units(), composites(depth)), min_size=1, max_size=3)


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A valid network of small maps, which stay at least 5x5 before the strides of projections."""
    graph = list(draw(bodies(DEPTH)))
    if draw(st.booleans()):
        graph.insert(
            draw(st.integers(0, len(graph))),
            {"aux": {"name": "side", "body": [*draw(units()), "global_avg_pool2d", "flatten"]}},
        )
    head = [[], ["global_avg_pool2d", "flatten", {"linear": 3}], ["global_max_pool2d"]]
    graph += draw(st.sampled_from(head))
    size = [draw(st.integers(1, 3)), draw(st.integers(5, 7)), draw(st.integers(5, 7))]
    document = {"cnngraph": 1, "name": "net", "input": size, "graph": graph}
    return yaml.safe_dump(document, sort_keys=False)


def one_step(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    results = network(x)
    if isinstance(results, torch.Tensor):
        results = {"logits": results}
    weights = (
        torch.linspace(0.5, 1.5, r.numel(), dtype=r.dtype).view_as(r) for r in results.values()
    )
    loss = torch.stack(
        [(r * w).sum() for r, w in zip(results.values(), weights, strict=True)]
    ).sum()
    loss.backward()
    assert x.grad is not None or not x.requires_grad
    found = {f"result {name}": value.detach() for name, value in results.items()}
    found["gradient of the input"] = x.grad if x.grad is not None else torch.zeros_like(x)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
    return found | dict(network.named_buffers())


# --- what must hold -------------------------------------------------------------------------------


def randomized(network: nn.Module) -> nn.Module:
    """With other weights and statistics: a batch norm of ones and zeros would hide mistakes."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5) if name.endswith("_var") else value.add_(
                    torch.rand_like(value) / 2
                )
    return network


def require_equal(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], what: str
) -> None:
    assert found.keys() == expected.keys(), what
    for name, value in expected.items():
        # Rounding, as magnified by batch norms over a map of little variance.
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        torch.testing.assert_close(
            found[name], value, rtol=1e-6, atol=1e-7 * scale, equal_nan=True,
            msg=lambda m, n=name: f"{what}: {n}: {m}",
        )  # fmt: skip


def results_of(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        results = network(x)
    return results if isinstance(results, dict) else {"logits": results}


def check_network(text: str, number: int = 0) -> None:
    """All ways to run a valid network agree in float64, and it survives copies and files."""
    report = cnngraph.check(text)
    assert report.graph is not None, "\n\n".join([text, *map(str, report.diagnostics)])
    torch.manual_seed(number)
    eager = randomized(cnngraph.compile(text, backend="eager")).double()
    x = torch.randn(6, *report.graph.input, dtype=torch.float64)
    state = copy.deepcopy(eager.state_dict())
    for training in (True, False):
        eager.load_state_dict(state)
        eager.zero_grad(set_to_none=True)
        expected = one_step(eager.train(training), x)
        for memory in ("fast", "lean", "100KB"):
            try:
                network = cnngraph.compile(text, memory=memory).double()
            except cnngraph.CnngraphError as error:
                assert memory == "100KB" and "does not fit" in str(error), error  # noqa: PT018
                continue
            assert list(network.state_dict()) == list(state)
            network.load_state_dict(state)
            require_equal(one_step(network.train(training), x), expected, f"memory={memory}")
    fused = cnngraph.compile(text).double()
    fused.load_state_dict(state)
    expected = results_of(fused.eval(), x)
    require_equal(
        results_of(fused.for_inference(), x), results_of(eager_of(text, state), x), "inference"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        cnngraph.save_compiled(fused, path)
        copies = {
            "deepcopy": copy.deepcopy(fused),
            "pickle": pickle.loads(pickle.dumps(fused)),
            "artifact": cnngraph.load_compiled(path).eval(),
        }
        for suffix in (".safetensors", ".pt"):
            cnngraph.save_weights(fused, path.with_suffix(suffix))
            copies[suffix] = cnngraph.compile(text).double().eval()
            cnngraph.load_weights(copies[suffix], path.with_suffix(suffix))
    for name, network in copies.items():
        for key, value in results_of(network, x).items():
            torch.testing.assert_close(
                value, expected[key], rtol=0, atol=0, equal_nan=True, msg=name
            )


def eager_of(text: str, state: dict[str, torch.Tensor]) -> nn.Module:
    eager = cnngraph.compile(text, backend="eager").double().eval()
    eager.load_state_dict(state)
    return eager


OTHER_NAMES = [
    "weight",
    "bias",
    "class",
    "def",
    "self",
    "input",
    "x",
    "torch",
    "None",
    "len",
    "T",
    "0",
    "a.b",
]
NAMES = st.sampled_from(
    [*sorted({*dir(nn.Module()), *dir(nn.Sequential()), *dir(Network)}), *OTHER_NAMES]
)
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 7, 8, 16, -1, 0.5, 1e9, True, None, "same", [1, 2], "relu"]
)


@st.composite
def odd_specs(draw: st.DrawFn) -> str:
    """A network with a few changed values and names, which may or may not be valid."""
    document = yaml.safe_load(draw(specs()))
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(item, dict | list):
                visit(item)

    visit(document["graph"])
    visit(document["input"])
    for _ in range(draw(st.integers(1, 2))):
        holder, key = draw(st.sampled_from(places))
        item = holder[key]
        if isinstance(item, dict | str) and draw(st.booleans()):
            kind = item if isinstance(item, str) else next(iter(item))
            arguments = {} if isinstance(item, str) else item[kind]
            if isinstance(arguments, dict):
                holder[key] = {kind: {**arguments, "name": draw(NAMES)}}
        elif not isinstance(item, dict | list):
            holder[key] = draw(NUMBERS)
    return yaml.safe_dump(document, sort_keys=False)


def check_odd_network(text: str) -> None:
    """`check` accepts exactly what compiles and runs, on both backends and for inference."""
    report = cnngraph.check(text)
    if not report.ok:
        for backend in ("eager", "fused"):
            try:
                cnngraph.compile(text, backend=backend)
            except cnngraph.SpecError:
                continue
            raise AssertionError(f"{backend} compiles what check refuses")
        return
    graph = report.graph
    assert graph is not None
    if graph_is_large(graph):
        return
    x = torch.randn(3, *graph.input)
    shapes: list[dict[str, tuple[int, ...]]] = []
    for backend in ("eager", "fused"):
        network = cnngraph.compile(text, backend=backend)
        for training in (True, False):
            shapes.append(
                {k: tuple(v.shape) for k, v in results_of(network.train(training), x).items()}
            )
        results_of(network.eval().for_inference(), x)
    assert shapes[:2] == shapes[2:]
    assert shapes[1]["logits"] == (3, *graph.shape_of(graph.output))


def graph_is_large(graph: Any) -> bool:
    """Whether running the network takes more than a moment."""
    total = 0
    for node in graph.nodes:
        size = 1
        for extent in node.shape:
            size *= extent
        total += size
    return total > 10**7


def run(number: int) -> Counter[str]:
    if number % 2:
        return batch(check_odd_network, odd_specs(), number, 40)
    return batch(lambda text: check_network(text, number), specs(), number, 10)
