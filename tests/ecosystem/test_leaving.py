"""Exported, traced, quantized and compiled networks compute what eager does."""

from __future__ import annotations

import copy
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import BACKENDS, FORMS, close, images, small
from torch import Tensor, fx, nn
from torch.export import Dim

pytestmark = [
    pytest.mark.usefixtures("one_thread", "convolutions_of_any_size"),
    pytest.mark.filterwarnings("ignore"),
]
every_form = pytest.mark.parametrize("form", FORMS)
SIZES = [(1, 16), (3, (20, 26))]
DYNAMIC = ({0: Dim("batch", max=64), 2: Dim("height", min=8, max=512), 3: Dim("width", min=8, max=512)},)  # fmt: skip


def expected(x: Tensor) -> Tensor:
    return small("eager").eval()(x)


def assert_standard(graph: fx.Graph) -> None:
    """Asserts that a graph holds operators of torch only."""
    targets = [node.target for node in graph.nodes if node.op == "call_function"]
    assert targets
    assert not [t for t in targets if not str(t).startswith(("aten.", "<built-in", "quantized_decomposed."))]  # fmt: skip


@every_form
def test_export_with_dynamic_sizes(form: str) -> None:
    program = torch.export.export(
        small(form).eval(), (images(2),), dynamic_shapes=DYNAMIC, strict=False
    )
    assert_standard(program.graph)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    run = torch.export.load(file).module()
    for count, size in SIZES:
        close(run(images(count, size)), expected(images(count, size)))


@every_form
def test_strict_export(form: str) -> None:
    program = torch.export.export(small(form).eval(), (images(2),), strict=True)
    assert_standard(program.graph)
    close(program.module()(images(2)), expected(images(2)))


@pytest.mark.parametrize("form", BACKENDS)
def test_export_for_training(form: str) -> None:
    program = torch.export.export(small(form), (images(2),), strict=False)
    assert_standard(program.graph)


@every_form
def test_onnx_runtime_agrees(form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = str(tmp_path / "small.onnx")
    torch.onnx.export(
        small(form).eval(), (images(2),), path, dynamo=True, dynamic_shapes=DYNAMIC, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count, size in SIZES:
        x = images(count, size)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected(x), rtol=1e-5, atol=1e-5)


@every_form
def test_jit_trace(form: str) -> None:
    traced = torch.jit.trace(small(form).eval(), images(2))
    assert "cnngraph::" not in str(traced.inlined_graph)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    run = torch.jit.load(file)
    for count, size in SIZES:
        close(run(images(count, size)), expected(images(count, size)))


def quantized(network: nn.Module) -> fx.GraphModule:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    prepared = prepare_fx(network, get_default_qconfig_mapping("x86"), (images(),))
    prepared(images(8))
    return convert_fx(prepared)


def layers_of(network: fx.GraphModule) -> list[str]:
    """The quantized convolutions and linear layers of a graph, as modules or operators."""
    names = [module._get_name() for module in network.modules()]
    names += [str(node.target) for node in network.graph.nodes if node.op == "call_function"]
    kinds = [re.match(r"quantized\.?(conv|linear)", name.lower()) for name in names]
    return sorted(match[1] for match in kinds if match)


@every_form
def test_fx_quantization(form: str) -> None:
    pytest.importorskip("torch.ao.quantization.quantize_fx", reason="this torch has no FX quantization")  # fmt: skip
    network, reference = (quantized(small(each).eval()) for each in (form, "eager"))
    assert layers_of(network) == layers_of(reference) == ["conv"] * 7 + ["linear"]
    # Eight bits a value: networks quantized in other places differ by some steps.
    bound = (0.1 if form == "inference" else 1e-3) * float(reference(images()).abs().max())
    torch.testing.assert_close(network(images()), reference(images()), rtol=0, atol=bound)


@every_form
def test_pt2e_quantization(form: str) -> None:
    reason = "this torch has no PT2E quantization (torchao has)"
    pt2e = pytest.importorskip("torch.ao.quantization.quantize_pt2e", reason=reason)
    x86 = pytest.importorskip(
        "torch.ao.quantization.quantizer.x86_inductor_quantizer", reason=reason
    )

    def run(network: nn.Module) -> tuple[Tensor, int]:
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        program = torch.export.export(network, (images(),)).module()
        prepared = pt2e.prepare_pt2e(program, quantizer)
        prepared(images(8))
        converted = pt2e.convert_pt2e(prepared)
        targets = [str(node.target) for node in converted.graph.nodes]
        return converted(images()), sum("quantize_per" in target for target in targets)

    found, count = run(small(form).eval())
    reference, expected_count = run(small("eager").eval())
    assert count > 0
    if form != "inference":
        assert count == expected_count
    torch.testing.assert_close(found, reference, rtol=0, atol=0.1 * float(reference.abs().max()))


def step(network: nn.Module) -> dict[str, Any]:
    x = images().requires_grad_()
    result = network(x)
    result.square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return {"result": result.detach(), "input": x.grad, **gradients}


@pytest.mark.parametrize("path", ["layer.1", "dense", "stem"])
def test_torch_compile_of_a_block_in_place(path: str) -> None:
    """With the backend that runs the captured graph, which needs no compiler."""
    results = []
    for form in BACKENDS:
        network, seen = small(form), []

        def backend(module: fx.GraphModule, inputs: Any, seen: Any = seen) -> Any:
            seen.append(module)
            return module.forward

        network.get_submodule(path).compile(backend=backend)
        results.append(step(network))
        assert seen
    close(*results)


def test_torch_compile_that_replaces_a_block() -> None:
    results = []
    for form in BACKENDS:
        network = small(form)
        network.layer[0] = torch.compile(network.layer[0], backend="aot_eager")
        found = step(network)
        results.append({name.replace("_orig_mod.", ""): value for name, value in found.items()})
    close(*results)


@pytest.mark.parametrize("form", FORMS)
def test_torch_compile_of_the_network(form: str) -> None:
    network = small(form).eval()
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)
    close(compiled(images()), expected(images()))
