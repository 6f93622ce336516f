"""Compiled networks: where their modules sit, and that every tool of PyTorch works on them.

What `eager` gives is the meaning; the fused network must give the same, whatever is done to both.
"""

from __future__ import annotations

import ast
import copy
import io
import operator
import pickle
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import pytest
import torch
from conftest import TARGETS, every_target
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

import cnngraph
from cnngraph.lowering.network import Network
from cnngraph.options import Options

pytestmark = pytest.mark.usefixtures("one_thread", "convolutions_of_any_size")


BODIES = {
    "repeat": """
        - conv2d: {name: stem, out_channels: 4, kernel_size: 3, padding: 1}
        - repeat:
            name: layer
            times: 3
            body:
              - conv2d: {name: "conv${i}", out_channels: 4, kernel_size: 3, padding: 1, bias: false}
              - batch_norm: {name: "bn${i}"}
              - relu
    """,
    "dense": """
        - dense:
            name: block
            layers: 3
            body:
              sequential:
                name: "layer${i}"
                body:
                  - batch_norm: {name: norm}
                  - silu
                  - conv2d: {name: conv, out_channels: 3, kernel_size: 3, padding: 1}
    """,
    "parallel": """
        - conv2d: {name: stem, out_channels: 8, kernel_size: 1}
        - parallel:
            name: mixed
            branches:
              wide: [conv2d: {out_channels: 3, kernel_size: 1}, batch_norm, relu6]
              deep:
                - conv2d: {name: a, out_channels: 4, kernel_size: 1}
                - batch_norm: {name: b}
                - hardswish
                - conv2d: {name: c, out_channels: 5, kernel_size: 3, padding: 1}
              pooled: {max_pool2d: {kernel_size: 3, stride: 1, padding: 1}}
        - parallel:
            name: gate
            merge: multiply
            branches: [identity, [global_avg_pool2d, conv2d: {out_channels: 16, kernel_size: 1}, sigmoid]]
    """,
    "residual": """
        - repeat:
            name: layer
            times: 2
            body:
              sequential:
                - residual:
                    name: ~
                    body:
                      - conv2d: {name: conv1, out_channels: 6, kernel_size: 3, stride: "${2 - i}", padding: 1}
                      - batch_norm: {name: bn1}
                      - gelu
                      - conv2d: {name: conv2, out_channels: 6, kernel_size: 3, padding: 1}
                      - batch_norm: {name: bn2}
                    shortcut: project
                - relu
    """,
    "aux": """
        - conv2d: {name: stem, out_channels: 4, kernel_size: 3}
        - batch_norm: {name: bn}
        - tanh: {name: act}
        - aux:
            name: side
            body:
              - conv2d: {name: conv, out_channels: 3, kernel_size: 1, bias: false}
              - batch_norm: {name: bn}
              - leaky_relu
              - concat: {with: stem}
              - global_avg_pool2d
              - flatten
              - linear: {name: fc, out_features: 2}
        - aux: {name: other, body: [flatten, linear: {name: fc, out_features: 2}]}
        - flatten
        - linear: {name: fc, out_features: 3}
    """,
    "joins": """
        - conv2d: {name: down, out_channels: 4, kernel_size: 3, padding: 1}
        - batch_norm: {name: norm}
        - elu
        - max_pool2d: 2
        - conv2d: {name: middle, out_channels: 8, kernel_size: 1}
        - batch_norm
        - mish
        - conv_transpose2d: {name: up, out_channels: 4, kernel_size: 2, stride: 2}
        - concat: {name: skip, with: [down, norm]}
        - multiply: skip
    """,
}  # fmt: skip

every_body = pytest.mark.parametrize("name", BODIES)


def spec(body: str, input: str = "[3, 8, 8]") -> str:
    nodes = textwrap.indent(textwrap.dedent(body).strip(), "  ")
    return f"cnngraph: 1\nname: net\ninput: {input}\ngraph:\n{nodes}\n"


def compiled(
    body: str, backend: str = "fused", dtype: torch.dtype = torch.float64, seed: int = 0
) -> Network:
    """The network with weights and running statistics that are the same for every backend."""
    network = cnngraph.compile(spec(body), backend=backend)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            low, high = (0.5, 1.5) if name.endswith(("running_var", "bn.weight")) else (-0.5, 0.5)
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return network.to(dtype)


def both(body: str, dtype: torch.dtype = torch.float64) -> tuple[Network, Network]:
    return compiled(body, "fused", dtype), compiled(body, "eager", dtype)


def batch(dtype: torch.dtype = torch.float64, size: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def logits(result: Tensor | dict[str, Tensor]) -> Tensor:
    return result if isinstance(result, Tensor) else result["logits"]


def total(result: Tensor | dict[str, Tensor]) -> Tensor:
    """One number that depends on every value of every result, each in another way."""
    values = [result] if isinstance(result, Tensor) else list(result.values())
    weighted = [
        (v.flatten() * torch.linspace(-1, 1, v.numel(), dtype=v.dtype, device=v.device)).sum()
        for v in values
    ]
    return torch.stack(weighted).sum()


def step(
    network: nn.Module, x: Tensor, run: Callable[..., object] | None = None
) -> dict[str, Tensor]:
    """Forward and backward: results, gradients of everything that has one, and buffers."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    network.zero_grad(set_to_none=True)
    result = (network if run is None else run)(x)
    total(result).backward()
    assert x.grad is not None
    named = {"logits": result} if isinstance(result, Tensor) else result
    found = {f"result {name}": value.detach() for name, value in named.items()}
    found["gradient of the input"] = x.grad
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
    return found | {name: buffer.clone() for name, buffer in network.named_buffers()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal up to the rounding of float64 over a few layers."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def fused_calls(network: nn.Module) -> list[ast.Call]:
    """The calls of the fused functions in the code of all levels, outer ones first."""
    return [
        call
        for module in network.modules()
        if isinstance(code := getattr(module, "code", None), str)
        for call in ast.walk(ast.parse(code).body[0] if code else ast.Module([], []))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        and call.func.id in ("batch_norm_act", "dense_block", "cat_batch_norm_act")
    ]  # fmt: skip


# --- the module tree ----------------------------------------------------------------------------


@every_target
def test_modules_sit_at_the_specs_paths(target: dict[str, str]) -> None:
    network = compiled(BODIES["residual"], **target)
    modules = {path: type(module) for path, module in network.named_modules()}
    assert modules.pop("") is type(network)
    assert {path: kind.__name__ for path, kind in modules.items()} == {
        "layer": "Sequential",
        "layer.0": "Level",
        "layer.0.conv1": "Conv2d",
        "layer.0.bn1": "BatchNorm2d",
        "layer.0.2": "GELU",
        "layer.0.conv2": "Conv2d",
        "layer.0.bn2": "BatchNorm2d",
        "layer.0.downsample": "Sequential",
        "layer.0.downsample.0": "Conv2d",
        "layer.0.downsample.1": "BatchNorm2d",
        "layer.0.6": "ReLU",
        "layer.1": "Level",
        "layer.1.conv1": "Conv2d",
        "layer.1.bn1": "BatchNorm2d",
        "layer.1.2": "GELU",
        "layer.1.conv2": "Conv2d",
        "layer.1.bn2": "BatchNorm2d",
        "layer.1.5": "ReLU",
    }


@every_body
def test_both_backends_have_one_state_dict(name: str) -> None:
    fused, eager = both(BODIES[name])
    assert fused_calls(fused)
    assert not fused_calls(eager)
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (fused, eager)]
    assert list(shapes[0].items()) == list(shapes[1].items())
    graph = fused.compilation.graph
    held = {
        f"{node.path}.{kind}": shape
        for node in graph.nodes
        for kind, shape in {
            **node.op.parameters(*graph.input_shapes(node)),
            **node.op.buffers(*graph.input_shapes(node)),
        }.items()
    }
    assert shapes[0] == held


@every_body
def test_weights_go_from_one_backend_to_the_other(name: str) -> None:
    fused = compiled(BODIES[name], "fused", seed=1)
    eager = compiled(BODIES[name], "eager", seed=2)
    x = batch()
    before = logits(eager.eval()(x))
    eager.load_state_dict(fused.state_dict(), strict=True)
    after = logits(eager(x))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, logits(fused.eval()(x)), rtol=1e-9, atol=1e-10)


@every_target
@every_body
def test_each_level_has_code_that_computes_what_it_returns(
    name: str, target: dict[str, str]
) -> None:
    """Every variable that the code assigns is read, and what it reads was assigned before."""
    for level in compiled(BODIES[name], **target).modules():
        if not isinstance(code := getattr(level, "code", None), str):
            continue
        for function in ast.parse(code).body:
            assert isinstance(function, ast.FunctionDef)
            names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
            read = {node.id for node in names if isinstance(node.ctx, ast.Load)}
            assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            assert assigned <= read
            assert isinstance(function.body[-1], ast.Return)


def test_the_code_of_a_small_network() -> None:
    network = compiled(
        "- conv2d: {name: conv, out_channels: 2, kernel_size: 1}\n- batch_norm\n- relu\n- flatten",
        "fused",
    )
    assert network.code == textwrap.dedent("""\
        def forward(self, x):
            x = channels_last(x)
            x = conv2d(self.conv, x)
            x = batch_norm_act(getattr(self, "1"), getattr(self, "2"), x)
            x = getattr(self, "3")(x)
            return x
        """)


def test_the_code_of_a_residual_block() -> None:
    network = compiled(
        "- residual: {name: block, body: [batch_norm: {name: bn}]}\n- relu: {name: act}", "fused"
    )
    assert network.code == textwrap.dedent("""\
        def forward(self, x):
            x = batch_norm_act(self.block.bn, self.act, x, x)
            return x


        def forward_by_level(self, x):
            x = self.block(x)
            x = self.act(x)
            return x
        """)
    assert network.block.code == textwrap.dedent("""\
        def forward(self, x):
            x = batch_norm_act(self.bn, None, x, x)
            return x
        """)


def test_code_of_branches_skips_their_calls_unless_they_have_hooks() -> None:
    body = """
        - parallel:
            name: mixed
            branches:
              a: [conv2d: {name: conv, out_channels: 2, kernel_size: 1}, batch_norm: {name: bn}, relu: {name: act}]
              b: {max_pool2d: {kernel_size: 3, stride: 1, padding: 1}}
    """
    assert compiled(body, "fused").mixed.code == textwrap.dedent("""\
        def forward(self, x):
            conv = conv2d(self.a.conv, x)
            x = max_pool2d(None, self.b, x)
            x = cat_batch_norm_act((self.a.bn, self.a.act, conv), (None, None, x))
            return x


        def forward_by_level(self, x):
            a = self.a(x)
            x = max_pool2d(None, self.b, x)
            x = torch.cat([a, x], 1)
            return x
        """)


def test_the_additions_of_residuals_are_fused() -> None:
    for name, expected in {"residual": [3, 4, 3, 3, 4], "repeat": [3, 3, 3]}.items():
        assert [len(call.args) for call in fused_calls(compiled(BODIES[name], "fused"))] == expected


def test_networks_print_under_the_names_of_the_spec() -> None:
    text = spec(BODIES["residual"]).replace("name: net", "name: my-net.v2")
    assert repr(cnngraph.compile(text)).splitlines()[:3] == [
        "my-net.v2(",
        "  (layer): Sequential(",
        "    (0): sequential(",
    ]


def test_two_compilations_have_one_class() -> None:
    for body in BODIES.values():
        assert type(cnngraph.compile(spec(body))) is type(cnngraph.compile(spec(body)))


# --- side heads ---------------------------------------------------------------------------------


@every_target
def test_side_heads_return_results_only_in_training(target: dict[str, str]) -> None:
    network = compiled(BODIES["aux"], **target)
    result = network.train()(batch())
    assert isinstance(result, dict)
    assert {name: tuple(v.shape) for name, v in result.items()} == {
        "logits": (4, 3), "side": (4, 2), "other": (4, 2),
    }  # fmt: skip
    assert list(result) == ["logits", "side", "other"]
    assert isinstance(network.eval()(batch()), Tensor)


@every_target
def test_the_gradient_of_a_side_head_reaches_it_and_what_it_reads(target: dict[str, str]) -> None:
    network = compiled(BODIES["aux"], **target)
    network(batch())["side"].square().sum().backward()
    reached = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached == {
        "stem.weight", "stem.bias", "bn.weight", "bn.bias",
        "side.conv.weight", "side.bn.weight", "side.bn.bias",
        "side.fc.weight", "side.fc.bias",
    }  # fmt: skip


@every_target
def test_side_heads_are_not_computed_in_evaluation(target: dict[str, str]) -> None:
    network = compiled(BODIES["aux"], **target).eval()
    calls = []
    network.side.register_forward_hook(lambda *_: calls.append("side"))
    network(batch())
    assert calls == []
    network.train()(batch())
    assert calls == ["side"]


def test_single_head_may_train() -> None:
    network = compiled(BODIES["aux"], "fused").eval()
    network.other.train()
    assert list(network(batch())) == ["logits", "other"]


# --- fused is eager -----------------------------------------------------------------------------


@every_body
def test_several_training_steps_equal_eager(name: str) -> None:
    """Results, gradients and running statistics of each step, and evaluation with the latter."""
    fused, eager = both(BODIES[name])
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.01) for n in (fused, eager)]
    for index in range(3):
        x = batch() * (index + 1)
        assert_same(step(fused, x), step(eager, x))
        for optimizer in optimizers:
            optimizer.step()
    counts = [v for k, v in fused.named_buffers() if k.endswith("num_batches_tracked")]
    assert all(count == 3 for count in counts)
    assert_same(step(fused.eval(), batch()), step(eager.eval(), batch()))


# No bias before a batch norm: its gradient is zero, so that only rounding would be compared.
VARIED = """
    - conv2d: {name: stem, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
    - batch_norm: {name: bn0}
    - relu
    - residual:
        name: block
        body:
          - conv2d: {name: conv, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
          - batch_norm: {name: bn}
          - silu
    - parallel:
        name: mixed
        branches:
          a:
            - conv2d: {name: conv, out_channels: 4, kernel_size: 1, bias: false}
            - batch_norm: {name: bn}
            - hardswish
          b: [max_pool2d: {kernel_size: 3, stride: 1, padding: 1}, batch_norm: {name: bn}, {leaky_relu: 0.1}]
    - dense:
        name: dense
        layers: 2
        body:
          - batch_norm: {name: "bn${i}"}
          - gelu
          - conv2d: {name: "conv${i}", out_channels: 4, kernel_size: 1, bias: false}
    - global_avg_pool2d
    - flatten
    - linear: {name: fc, out_features: 6, bias: false}
    - batch_norm: {name: bn1d}
    - sigmoid
    - linear: {name: out, out_features: 3}
"""
ADDED = """
    - conv2d: {name: stem, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
    - batch_norm: {name: bn0}
    - silu
    - residual:
        name: basic
        body:
          - conv2d: {name: conv, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
          - batch_norm: {name: bn}
    - silu
    - residual:
        name: wide
        body:
          - conv2d: {name: conv, out_channels: 12, kernel_size: 3, stride: 2, padding: 1, bias: false}
          - batch_norm: {name: bn}
        shortcut: [conv2d: {out_channels: 12, kernel_size: 1, stride: 2, bias: false}]
    - tanh
    - global_avg_pool2d
    - flatten
    - linear: {name: out, out_features: 3}
"""
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

every_format = pytest.mark.parametrize("memory_format", FORMATS)
both_networks = pytest.mark.parametrize("body", [VARIED, ADDED], ids=["varied", "added"])
in_both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@in_both_modes
@every_format
@both_networks
def test_float64_in_every_memory_format(body: str, memory_format: str, training: bool) -> None:
    layout = FORMATS[memory_format]
    fused, eager = (n.train(training).to(memory_format=layout) for n in both(body))
    x = batch().to(memory_format=layout)
    assert_same(step(fused, x), step(eager, x))


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """How far each value is from the exact one: root of the mean square, relative to the
    largest."""
    return {
        name: ((found[name].double() - value).square().mean().sqrt() / value.abs().max().clamp(min=1e-3)).item()
        for name, value in exact.items()
        if value.is_floating_point()
    }  # fmt: skip


@in_both_modes
@every_format
@pytest.mark.parametrize("setting", ["float32", "bfloat16", "autocast"])
def test_errors_in_lower_precision_are_no_larger_than_eager(
    setting: str, memory_format: str, training: bool, device: str
) -> None:
    assert not worse_than_eagers(VARIED, setting, FORMATS[memory_format], training, device)


@in_both_modes
@pytest.mark.parametrize("setting", ["float32", "bfloat16", "autocast"])
def test_errors_of_additions_in_lower_precision_are_no_larger_than_eager(
    setting: str, training: bool
) -> None:
    """In one layout: torch's convolutions are less exact in channels last, which the fused network
    always has."""
    assert not worse_than_eagers(ADDED, setting, torch.channels_last, training)


def worse_than_eagers(
    body: str, setting: str, layout: torch.memory_format, training: bool, device: str = "cpu"
) -> dict[str, tuple[float, float]]:
    """Values whose error, compared with float64, is larger in the fused network than in eager.

    The fused network rounds once where eager rounds twice, so its errors should not be larger. In a
    single batch some are, by chance. The medians of several batches may differ by a factor of 1.5
    and a few roundings of the type. In float32 the batch norms before a dense block differ most,
    since their sums have another order.
    """
    dtype = torch.bfloat16 if setting == "bfloat16" else torch.float32
    slack = (
        8 * torch.finfo(torch.float32).eps
        if setting == "float32"
        else 2 * torch.finfo(torch.bfloat16).eps
    )
    networks = [n.train(training).to(device, memory_format=layout) for n in both(body, dtype)]
    reference = copy.deepcopy(networks[1]).double()
    batches: list[list[dict[str, float]]] = [[], []]
    for seed in range(5):
        x = batch(dtype, size=16, seed=seed).to(device, memory_format=layout)
        exact = step(reference, x.double())
        for network, found in zip(networks, batches, strict=True):
            found.append(errors(autocast_step(network, x, setting == "autocast"), exact))
    fused, eager = ({k: median(some[k] for some in found) for k in found[0]} for found in batches)
    assert fused.keys() == eager.keys()
    return {k: (fused[k], eager[k]) for k in fused if fused[k] > 1.5 * eager[k] + slack}


def autocast_step(network: nn.Module, x: Tensor, autocast: bool) -> dict[str, Tensor]:
    def run(x: Tensor) -> object:
        with torch.autocast(x.device.type, torch.bfloat16) if autocast else nullcontext():
            return network(x)

    return step(network, x, run)


@every_target
def test_result_types_equal_eager(target: dict[str, str]) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert compiled(VARIED, **target).to(dtype)(batch(dtype)).dtype is dtype
    network = compiled(VARIED, dtype=torch.float32, **target)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(batch(torch.float32)).dtype is torch.bfloat16


def test_channels_last_stays_channels_last() -> None:
    body = "- conv2d: {out_channels: 4, kernel_size: 3}\n- batch_norm\n- relu"
    network = compiled(body, "fused").to(memory_format=torch.channels_last)
    result = network(batch().to(memory_format=torch.channels_last))
    assert result.is_contiguous(memory_format=torch.channels_last)


# --- what users do to networks ------------------------------------------------------------------


def through_torch_save(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "torch.save": through_torch_save,
}


@pytest.mark.parametrize("how", COPIES)
@every_body
def test_copies_are_independent_and_equal(name: str, how: str) -> None:
    network = compiled(BODIES[name], "fused")
    expected = step(copy.deepcopy(network), batch())
    untouched = {key: value.clone() for key, value in network.state_dict().items()}
    twin = COPIES[how](network)
    assert fused_calls(twin)
    assert_same(step(twin, batch()), expected)
    assert_same(dict(network.state_dict()), untouched)
    assert_same(step(network, batch()), expected)
    assert_same(step(twin.eval(), batch()), step(network.eval(), batch()))
    assert_same(step(COPIES[how](twin).train(), batch()), step(network.train(), batch()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_to_another_type_and_back(dtype: torch.dtype) -> None:
    network = compiled(BODIES["residual"], "fused").to(dtype)
    assert {v.dtype for v in network.state_dict().values() if v.is_floating_point()} == {dtype}
    assert network.eval()(batch(dtype)).dtype is dtype
    network.to(torch.float64)
    assert network(batch()).dtype is torch.float64


@in_both_modes
@pytest.mark.parametrize("name", ["residual", "parallel", "aux"])
def test_torch_compile_in_one_graph(name: str, training: bool) -> None:
    torch.compiler.reset()
    network = compiled(BODIES[name], "fused").train(training)
    expected = step(copy.deepcopy(network), batch())
    faster = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert_same(step(network, batch(), faster), expected)


@pytest.mark.parametrize("name", ["residual", "dense", "parallel", "aux", "joins"])
def test_torch_export_in_evaluation(name: str) -> None:
    network = compiled(BODIES[name], "fused").eval()
    size = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(network, (batch(),), dynamic_shapes={"x": {0: size}})
    x = batch(size=3)
    torch.testing.assert_close(program.module()(x), network(x), rtol=1e-9, atol=1e-10)


@every_target
@pytest.mark.parametrize("path", ["layer.0.bn1", "layer.0.2", "layer.1.conv1"])
def test_hooks_fire_and_change_nothing(path: str, target: dict[str, str]) -> None:
    network = compiled(BODIES["residual"], **target)
    expected = step(copy.deepcopy(network), batch())
    seen: list[str] = []
    module = network.get_submodule(path)
    handles = [
        module.register_forward_pre_hook(lambda m, args: seen.append("before")),
        module.register_forward_hook(lambda m, args, result: seen.append("after")),
        module.register_full_backward_hook(lambda m, g, grads: seen.append("backward")),
    ]
    assert_same(step(network, batch()), expected)
    assert seen == ["before", "after", "backward"]
    for handle in handles:
        handle.remove()
    step(network, batch())
    assert seen == ["before", "after", "backward"]


@pytest.mark.parametrize("path", ["layer.0.bn1", "layer.0.2"])
def test_what_a_hook_returns_replaces_the_value(path: str) -> None:
    results = []
    for network in both(BODIES["residual"]):
        network.get_submodule(path).register_forward_hook(lambda m, args, result: result * 2)
        results.append(step(network, batch()))
    assert_same(*results)
    unhooked = step(compiled(BODIES["residual"], "fused"), batch())
    assert not torch.allclose(results[0]["result logits"], unhooked["result logits"])


FROZEN = [
    ["layer.0.bn1.weight"],
    ["layer.0.bn1.bias"],
    ["layer.0.bn1.weight", "layer.0.bn1.bias"],
    ["layer.0.conv1.weight"],
    ["layer.0.conv1.weight", "layer.0.conv1.bias"],
    ["layer.1.bn1.weight", "layer.1.conv2.weight", "layer.0.downsample.1.bias"],
]


@in_both_modes
@pytest.mark.parametrize("names", FROZEN, ids=lambda names: "+".join(names))
def test_frozen_parameters_leave_the_other_gradients(names: list[str], training: bool) -> None:
    results = []
    for network in both(BODIES["residual"]):
        for name in names:
            network.get_parameter(name).requires_grad_(False)
        results.append(step(network.train(training), batch()))
    assert_same(*results)
    gradients = {k.removeprefix("gradient of ") for k in results[0] if k.startswith("gradient of ")}
    trained = {k for k, _ in network.named_parameters()} - set(names)
    assert gradients == trained | {"the input"}


def test_all_batch_norms_frozen_and_in_evaluation_while_the_rest_trains() -> None:
    results = []
    for network in both(BODIES["residual"]):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        results.append(step(network, batch()))
    assert_same(*results)
    assert results[0]["layer.0.bn1.num_batches_tracked"] == 0


def test_an_activation_replaced_by_hand_is_used() -> None:
    results = []
    for network in both(BODIES["residual"]):
        network.set_submodule("layer.0.2", nn.Hardtanh(-0.1, 0.2))
        network.set_submodule("layer.1.2", nn.Softsign())
        results.append(step(network, batch()))
    assert_same(*results)
    before = step(compiled(BODIES["residual"], "fused"), batch())
    assert not torch.allclose(results[0]["result logits"], before["result logits"])


def test_a_batch_norm_replaced_by_hand_is_used() -> None:
    results = []
    for network in both(BODIES["residual"]):
        network.set_submodule("layer.0.bn1", nn.InstanceNorm2d(6, dtype=torch.float64))
        network.set_submodule("layer.1.bn1", nn.Identity())
        results.append(step(network, batch()))
    assert_same(*results)


@every_body
def test_sync_batch_norm_keeps_results(name: str) -> None:
    network = compiled(BODIES[name], "fused").eval()
    norms = [path for path, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    keys, expected = list(network.state_dict()), step(network, batch())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert norms
    assert all(type(converted.get_submodule(path)) is nn.SyncBatchNorm for path in norms)
    assert list(converted.state_dict()) == keys
    assert_same(step(converted.eval(), batch()), expected)


@every_target
def test_checkpointing_a_submodule_and_the_whole(target: dict[str, str]) -> None:
    network = compiled(BODIES["aux"], **target)
    expected = step(copy.deepcopy(network), batch())
    head = network.side
    plain = head.forward
    head.forward = lambda *inputs: checkpoint(plain, *inputs, use_reentrant=False)
    assert_same(but_statistics(step(network, batch())), but_statistics(expected))
    del head.forward

    twin = compiled(BODIES["residual"], **target)
    expected = step(copy.deepcopy(twin), batch())
    found = step(twin, batch(), lambda x: checkpoint(twin, x, use_reentrant=False))
    assert_same(but_statistics(found), but_statistics(expected))


def but_statistics(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Recomputing updates running statistics a second time, in every PyTorch network."""
    return {k: v for k, v in found.items() if k.startswith(("result", "gradient"))}


def test_checkpointing_updates_statistics_like_eager() -> None:
    results = [
        step(network, batch(), lambda x, n=network: checkpoint(n, x, use_reentrant=False))
        for network in both(BODIES["residual"])
    ]
    assert_same(*results)


@every_target
def test_torch_fx_traces_into_plain_modules(target: dict[str, str]) -> None:
    network = compiled(BODIES["residual"], **target).eval()
    traced = fx.symbolic_trace(network)
    fx.passes.shape_prop.ShapeProp(traced).propagate(batch())
    shapes = {
        n.target: tuple(n.meta["tensor_meta"].shape)
        for n in traced.graph.nodes
        if n.op == "call_module"
    }
    assert shapes["layer.0.conv1"] == (4, 6, 4, 4)
    assert {n.target for n in traced.graph.nodes if n.op == "call_function"} == {operator.add}
    torch.testing.assert_close(traced(batch()), network(batch()), rtol=1e-9, atol=1e-10)


@every_target
def test_network_knows_its_spec_and_params(target: dict[str, str]) -> None:
    text = spec(BODIES["aux"])
    compilation = cnngraph.compile(text, **target).compilation
    assert compilation.options == Options(**target)
    assert compilation.graph.nodes == cnngraph.check(text).graph.nodes
    assert copy.deepcopy(cnngraph.compile(text)).compilation.spec.name == "net"


def test_mistakes_are_raised_together() -> None:
    with pytest.raises(cnngraph.SpecError) as caught:
        cnngraph.compile(spec("- conv2d: {out_channels: 0, kernel_size: 1}\n- rleu\n- linear: 2"))
    assert [d.code for d in caught.value.diagnostics] == ["E103", "E104"]
    with pytest.raises(cnngraph.CnngraphError, match="there is no backend `jit`"):
        cnngraph.compile(spec("- relu"), backend="jit")


ORDERED = """
cnngraph: 1
name: net
input: [3, 8, 8]
blocks:
  unit:
    params: {width: ~}
    order: [downsample, conv2]
    body:
      - residual:
          name: ~
          body:
            - conv2d: {name: conv1, out_channels: "${width}", kernel_size: 1, bias: false}
            - batch_norm: {name: bn}
            - relu
            - conv2d: {name: conv2, out_channels: "${width}", kernel_size: 1, bias: false}
          shortcut: project
graph:
  - unit: {name: a, width: 4}
  - unit: {name: b, width: 4}
"""


@every_target
def test_order_of_a_block_is_the_order_of_its_weights(target: dict[str, str]) -> None:
    network = cnngraph.compile(ORDERED, **target)
    children = [
        list(dict.fromkeys(key.split(".")[1] for key in network.state_dict() if key[0] == at))
        for at in "ab"
    ]
    assert children == [["downsample", "conv2", "conv1", "bn"], ["conv2", "conv1", "bn"]]
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert list(other.state_dict()) == list(network.state_dict())


def spec_of(body: str) -> str:
    return f"cnngraph: 1\nname: net\ninput: [3, 8, 8]\ngraph:\n{textwrap.dedent(body)}"


@every_target
@pytest.mark.parametrize("body", ["[scale: 2]", "[relu, add: a]"])
def test_side_head_may_have_no_module(body: str, target: dict[str, str]) -> None:
    network = cnngraph.compile(
        spec_of(f"- relu: {{name: a}}\n- aux: {{name: side, body: {body}}}"), **target
    )
    assert set(network(torch.randn(2, 3, 8, 8))) == {"logits", "side"}


def test_weights_keep_the_order_of_the_spec_after_the_passes() -> None:
    text = spec_of("""
        - conv2d: {name: stem, out_channels: 4, kernel_size: 1}
        - batch_norm: {name: bn}
        - aux: {name: side, from: stem, body: [flatten, linear: {name: fc, out_features: 2}]}
        - sequential: {name: blk, body: [relu, conv2d: {name: conv, out_channels: 4, kernel_size: 1}]}
    """)
    keys = [list(cnngraph.compile(text, **target).state_dict()) for target in TARGETS]
    assert keys[0] == keys[1]
    assert keys[0].index("side.fc.weight") < keys[0].index("blk.conv.weight")


@pytest.mark.parametrize(
    "name", ["self_", "x", "torch_", "getattr", "dict", "result", "batch_norm_act", "fx", "device"]
)
def test_a_node_may_be_called_like_anything_in_the_code(name: str) -> None:
    text = spec_of(f"""
        - conv2d: {{name: {name}, out_channels: 4, kernel_size: 1}}
        - batch_norm: {{name: {name}_1}}
        - relu
    """)
    assert cnngraph.compile(text)(torch.randn(2, 3, 8, 8)).shape == (2, 4, 8, 8)
