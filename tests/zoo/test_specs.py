"""The shipped specs, compared with published networks, torch's meta device, and eager."""

from __future__ import annotations

import gc
import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SPECS, every_target, value_shapes
from torch import nn

import cnngraph
from cnngraph.checker import read_spec
from cnngraph.compiler import compile_graph
from cnngraph.elaborate import elaborate
from cnngraph.graph import INPUT, Graph
from cnngraph.graph.cost import shape_at
from cnngraph.graph.input_sizes import InputSizes
from cnngraph.nn import DropPath
from cnngraph.ops.linear import Linear
from cnngraph.options import Options
from cnngraph.report.check import Report
from cnngraph.shape import ShapeError, TensorShape

NETWORKS = sorted(path for path in SPECS.rglob("*.yaml") if "blocks" not in path.parts)
FACTS = [json.loads(path.read_text()) for path in sorted((ROOT / "tests" / "facts").glob("*.json"))]
"""Facts about the published networks.

`spec` is our spec; with `same_names` its `state_dict` has the published keys.
"""


def name_of(path: Path) -> str:
    return str(path.relative_to(SPECS).with_suffix(""))


RESIZED = {
    "convnext_small", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "shufflenet_v2_x0_5",
}  # fmt: skip
"""Networks that only have more or wider layers than another: running them shows nothing new."""

QUICK = {
    "d2l/lenet", "d2l/lenet_bn", "d2l/mlp", "d2l/resnet18", "densenet121", "googlenet_aux", "lenet",
    "mobilenet_v2", "resnet18", "resnet20_cifar", "resnetv2_18", "squeezenet1_1",
}  # fmt: skip
"""Networks whose steps run with the quick tests; the others run with the slow ones."""

every_network = pytest.mark.parametrize("path", NETWORKS, ids=name_of)
every_structure = [
    pytest.param(path, marks=[pytest.mark.slow] * (name_of(path) not in QUICK))
    for path in NETWORKS
    if name_of(path) not in RESIZED
]
every_published = pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts["spec"])
every_published_with_its_names = pytest.mark.parametrize(
    "facts", [facts for facts in FACTS if facts["same_names"]], ids=lambda facts: facts["spec"]
)


@cache
def checked(path: Path) -> Report:
    return cnngraph.check(path)


def small(path: Path, seed: int = 0, **options: str) -> tuple[nn.Module, torch.Tensor]:
    """A compiled network with few features, and a batch of small inputs."""
    gc.collect()  # networks are cyclic, and some are large
    spec = read_spec(path)
    params = {"num_classes": 10} if "num_classes" in spec.params else {}
    graph, _ = elaborate(spec, params)
    assert graph is not None
    graph = smaller(graph, checked(path).sizes)
    torch.manual_seed(seed)
    network = compile_graph(spec, params, graph, Options(**options))
    return network.double(), torch.randn(3, *graph.input, dtype=torch.float64)


def by_name(outputs: torch.Tensor | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"logits": outputs} if isinstance(outputs, torch.Tensor) else outputs


def smaller(graph: Graph, sizes: InputSizes | None) -> Graph:
    """The same layers for a smaller input, whose last map still has a few pixels.

    A linear layer of 4096 features, as VGG's, gets 64.
    """
    if sizes is None or sizes.stride is None:
        return graph
    channels, declared, _ = graph.input
    for size in range(min(declared, max(2 * sizes.stride, 32)), declared + 1):
        shapes = {INPUT: TensorShape((channels, size, size))}
        nodes = []
        try:
            for node in graph.nodes:
                op = node.op
                if isinstance(op, Linear) and op.out_features == 4096:
                    op = op.model_copy(update={"out_features": 64})
                shapes[node.path] = op.infer(*(shapes[path] for path in node.inputs))
                nodes.append(replace(node, op=op, shape=shapes[node.path]))
        except ShapeError:
            continue
        return replace(graph, inputs={INPUT: shapes[INPUT]}, nodes=tuple(nodes))
    raise AssertionError("the graph is invalid at its own input size")


@every_network
def test_check_finds_no_errors(path: Path) -> None:
    report = checked(path)
    # Batch norms of flat values, and of maps of one pixel.
    expected = (
        {"W402"} if path.stem in ("lenet_bn", "inception_v3_aux", "deeplabv3_resnet50") else set()
    )
    assert {diagnostic.code for diagnostic in report.diagnostics} <= expected
    assert report.summary is not None


@every_published
def test_costs_match_the_published_network(facts: dict) -> None:
    report = checked(SPECS / facts["spec"])
    assert report.graph is not None
    assert report.summary is not None
    assert report.graph.input == tuple(facts["input_shape"][1:])
    assert report.summary.total.params == facts["params"]
    assert report.summary.total.buffers == facts["buffers"]
    assert report.summary.total.macs == facts["macs"]


@every_published_with_its_names
@every_target
def test_the_state_dict_has_the_published_keys_and_shapes(
    facts: dict, target: dict[str, str]
) -> None:
    with torch.device("meta"):
        network = cnngraph.compile(SPECS / facts["spec"], **target)
    found = [[key, list(value.shape)] for key, value in network.state_dict().items()]
    assert found == [[key, shape] for key, shape, _ in facts["state_dict"]]


@every_published_with_its_names
def test_stages_have_the_published_shapes(facts: dict) -> None:
    graph = checked(SPECS / facts["spec"]).graph
    assert graph is not None
    published = {
        path: tuple(shape) for path, kind, (_, *shape) in facts["stages"] if kind != "ReLU"
    }
    assert {path: shape_at(graph, path) for path in published} == published


@pytest.mark.parametrize(
    "facts", [facts for facts in FACTS if not facts["same_names"]], ids=lambda facts: facts["spec"]
)
def test_named_layers_have_the_weights_of_published_numbered_ones(facts: dict) -> None:
    with torch.device("meta"):
        network = cnngraph.compile(SPECS / facts["spec"])
    found = [list(value.shape) for value in network.state_dict().values()]
    assert found == [shape for _, shape, _ in facts["state_dict"]]
    assert not any(key[0].isdigit() for key in network.state_dict())


@every_published
def test_layers_have_the_published_settings(facts: dict) -> None:
    """The number of layers with each eps, momentum, dropout rate, ceil_mode, bias and so on."""
    with torch.device("meta"):
        network = cnngraph.compile(SPECS / facts["spec"], backend="eager")
    ours = Counter(setting for module in network.modules() if (setting := setting_of(module)))
    theirs: Counter[str] = Counter()
    for text, count in facts["module_config"].items():
        theirs[as_ours(text)] += count
    for setting in {*ours, *theirs}:
        kind = setting.partition("(")[0]
        if kind in ("MaxPool2d", "AvgPool2d"):
            # Some published pools are functions, and some compute what another computes.
            needed = theirs[setting] - facts.get("pools_computed_twice", 0)
            assert ours[setting] >= needed, setting
        elif kind in ("Conv2d", "Linear", "BatchNorm2d", "BatchNorm1d", "LayerNorm"):
            assert ours[setting] == theirs[setting], setting
        elif kind == "StochasticDepth":
            assert ours[setting] <= theirs[setting], setting  # some published ones are never called
        elif kind == "Dropout" and "p=0.0," not in setting:
            assert ours[setting] == theirs[setting], setting


def setting_of(module: nn.Module) -> str:
    match module:
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"{type(module).__name__}(eps={module.eps}, momentum={module.momentum})"
        case nn.LayerNorm():
            return f"LayerNorm(eps={module.eps})"
        case nn.Conv2d():
            return f"Conv2d(bias={module.bias is not None})"
        case nn.Linear():
            return f"Linear(bias={module.bias is not None})"
        case nn.Dropout():
            return f"Dropout(p={module.p}, inplace=False)"
        case DropPath() if module.p:
            return f"StochasticDepth(p={round(module.p, 6)})"
        case nn.MaxPool2d():
            size, stride, padding, dilation = map(
                number, (module.kernel_size, module.stride, module.padding, module.dilation)
            )
            return (
                f"MaxPool2d(kernel_size={size}, stride={stride}, padding={padding},"
                f" dilation={dilation}, ceil_mode={module.ceil_mode})"
            )
        case nn.AvgPool2d():
            size, stride, padding = map(number, (module.kernel_size, module.stride, module.padding))
            return (
                f"AvgPool2d(k={size}, s={stride}, p={padding}, ceil_mode={module.ceil_mode},"
                f" count_include_pad={module.count_include_pad})"
            )
    return ""


def number(pair: object) -> object:
    return pair[0] if isinstance(pair, tuple) and len(set(pair)) == 1 else pair


def as_ours(setting: str) -> str:
    """The published setting in the notation of `setting_of`."""
    kind, _, rest = setting.partition("(")
    kind = {"BatchNormAct2d": "BatchNorm2d", "LayerNorm2d": "LayerNorm"}.get(kind, kind)
    return f"{kind}({rest}".replace("inplace=True", "inplace=False")


@pytest.mark.parametrize("path", every_structure, ids=name_of)
def test_shapes_agree_with_torch_layer_by_layer(path: Path) -> None:
    """Runs the eager network on the meta device and compares the value of every node."""
    graph = checked(path).graph
    assert graph is not None
    with torch.device("meta"):
        network = cnngraph.compile(path, backend="eager")
    assert value_shapes(network, graph.input) == [
        tuple(node.shape)
        for node in graph.nodes
        for _ in range(len(node.inputs) - 1 if node.op.kind == "add" else 1)  # each `+` of a sum
        if not node.aux
    ]
    for name, shape in head_shapes(network.train(), graph.input).items():
        assert shape == tuple(graph.shape_of((graph.aux | graph.features)[name]))


def head_shapes(network: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each side head's result, without the batch."""
    results = network(torch.empty(2, *shape, device="meta"))
    if isinstance(results, torch.Tensor):
        return {}
    return {name: tuple(result.shape[1:]) for name, result in results.items() if name != "logits"}


VARIED = [
    "resnet18",
    "resnetv2_18",
    "densenet121",
    "googlenet_aux",
    "mobilenet_v2",
    "shufflenet_v2_x1_0",
]
EVERYWHERE = [
    pytest.param("cpu", *param.values, marks=param.marks, id=f"cpu-{name_of(param.values[0])}")
    for param in every_structure
] + [("cuda", SPECS / f"{name}.yaml") for name in VARIED]


@pytest.mark.parametrize(
    ("device", "path"),
    EVERYWHERE,
    ids=lambda value: value if type(value) is str else name_of(value),
    indirect=["device"],
)
def test_a_step_of_the_fused_network_matches_eager(device: str, path: Path) -> None:
    """Outputs, gradients and running statistics in training, and outputs in evaluation.

    In float64, because a batch norm over a few values amplifies the rounding of float32 too much.
    """
    networks = {}
    for backend in ("fused", "eager"):
        network, batch = small(path, backend=backend)
        batch = batch.to(device)
        if networks:
            network.load_state_dict(networks["fused"].state_dict())
        networks[backend] = network.to(device)
    results = {}
    for backend, network in networks.items():
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout | DropPath):
                module.p = 0.0
        outputs = by_name(network(batch))
        labels = torch.tensor([1, 2, 3], device=device)
        logits = [
            output.flatten(2).mean(2) if output.dim() > 2 else output for output in outputs.values()
        ]
        losses = [nn.functional.cross_entropy(output, labels) for output in logits]
        loss = torch.stack(losses).sum()
        loss.backward()
        results[backend] = {
            "loss": loss.detach(),
            **{f"output {k}": v.detach() for k, v in outputs.items()},
        }
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), name
            results[backend][name] = parameter.grad
        results[backend] |= dict(network.named_buffers())
        torch.optim.SGD(network.parameters(), lr=1e-3).step()
        network.eval()
        for name, output in by_name(network(batch)).items():
            results[backend][f"{name} in evaluation after the step"] = output.detach()
    assert results["fused"].keys() == results["eager"].keys()
    assert results["eager"]["loss"].isfinite()
    for name, expected in results["eager"].items():
        # Rounding errors grow with depth and scale with the largest values.
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            results["fused"][name],
            expected,
            rtol=1e-6,
            atol=max(1e-9, 1e-8 * scale),
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_the_readme_lists_specs_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "specs/googlenet.yaml" in readme


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_input_transform_maps_imagenets_normalization_to_plus_minus_one(name: str) -> None:
    """Pixels normalized with ImageNet's mean and std become (pixel - 0.5) / 0.5."""
    path = SPECS / f"{name}.yaml"
    plain = cnngraph.compile(path, {"num_classes": 5}).eval()
    transformed = cnngraph.compile(path, {"num_classes": 5, "transform_input": True}).eval()
    assert list(transformed.state_dict()) == list(plain.state_dict())
    transformed.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 3, 96, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = (pixels - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(
        transformed(image), plain((pixels - 0.5) / 0.5), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("path", every_structure, ids=name_of)
@torch.inference_mode()
def test_folding_for_inference_does_not_change_results(path: Path) -> None:
    network, batch = small(path)
    eager, _ = small(path, backend="eager")
    for key, value in eager.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    network.load_state_dict(eager.state_dict())
    found = by_name(network.eval().for_inference()(batch))
    for name, expected in by_name(eager.eval()(batch)).items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(found[name], expected, rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("name", VARIED)
def test_a_lean_step_matches_a_fast_step(name: str) -> None:
    results = []
    for memory in ("fast", "lean"):
        network, batch = small(SPECS / f"{name}.yaml", memory=memory)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        outputs = network(batch)
        values = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs.values())
        torch.stack([value.square().sum() for value in values]).sum().backward()
        results.append([p.grad for p in network.parameters()] + list(network.buffers()))
    for lean, fast in zip(*reversed(results), strict=True):
        torch.testing.assert_close(lean, fast, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "key", "std"),
    [
        ("efficientnet_b0", "features.1.0.block.0.0.weight", (2 / (32 * 3 * 3)) ** 0.5),
        ("efficientnet_b0", "classifier.1.weight", (1 / 1000 / 3) ** 0.5),
        ("mobilenet_v3_small", "features.12.0.weight", (2 / 576) ** 0.5),
        ("mobilenet_v3_small", "classifier.3.weight", 0.01),
        ("mnasnet1_0", "classifier.1.weight", (1 / 1000) ** 0.5),
        ("regnet_x_400mf", "trunk_output.block4.block4-0.f.a.0.weight", (2 / 400) ** 0.5),
        ("convnext_tiny", "features.7.0.block.3.weight", 0.02),
    ],
)
def test_weights_are_initialised_as_in_torchvision(name: str, key: str, std: float) -> None:
    torch.manual_seed(0)
    weight = cnngraph.compile(name, backend="eager").state_dict()[key]
    few = 4 * std / (2 * weight.numel()) ** 0.5
    assert weight.std().item() == pytest.approx(std, abs=few)
