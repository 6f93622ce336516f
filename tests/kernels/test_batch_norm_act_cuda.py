"""The CUDA sources, without a GPU: the activations one number at a time, and the kernels emulated
on a CPU.

Not a replacement for running them on a GPU, which nobody has done yet: it shows that their indices,
sums and barriers are right, not that they are fast.
"""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_batch_norm_act_op import (
    ACTIVATIONS,
    ARGUMENTS,
    error_of,
    keep_off_kinks,
    residual_of,
    tensors,
)

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc" / "batch_norm_act"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
CUDA = next((root for root in (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
             if root and Path(root, "include", "cuda_fp16.h").exists()), None)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here"),
    pytest.mark.skipif(not SOURCES.exists(), reason="not in a checkout"),
]


def compiled(folder, name, code, *flags):
    """What the system's compiler makes of C++ source."""
    source, result = folder / f"{name}.cpp", folder / name
    source.write_text(code)
    subprocess.run(
        [COMPILER, "-std=c++20", "-w", *flags, f"-I{SOURCES}", f"-I{HERE}", "-o", result, source],
        check=True,
    )
    return result


def test_activations_of_single_numbers(tmp_path):
    points = [*torch.linspace(-12, 12, 97, dtype=torch.float64).tolist(), 0.7, -0.5, 6.0, 1e4, -1e4]
    calls = []
    for name in ACTIVATIONS:
        first, second, *_ = (*ARGUMENTS.get(name, ()), 0, 0)
        calls.append(f"with_activation(Activation::{name}, {{{first}, {second}}}, print);")
    program = compiled(
        tmp_path,
        "activations",
        f"""
        #include "scalar_math.h"
        #include <cstdio>
        using namespace cnngraph;
        using namespace cnngraph::scalar;
        const double points[] = {{{", ".join(map(repr, points))}}};
        int main() {{
          const auto print = [](auto act) {{
            for (double z : points) {{
              std::printf("%.17g %.17g ", act.forward(float(z)), act.backward(float(z), 1.5f));
              std::printf("%.17g %.17g\\n", act.forward(z), act.backward(z, 1.5));
            }}
          }};
          {" ".join(calls)}
        }}
        """,
    )
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    values = torch.tensor(list(map(float, printed)), dtype=torch.float64).reshape(
        len(ACTIVATIONS), len(points), 4
    )
    for (name, activation), (forward32, backward32, forward64, backward64) in zip(
        ACTIVATIONS.items(), values.transpose(1, 2), strict=True
    ):
        for dtype, forward, backward, tolerance in (
            (torch.float32, forward32, backward32, 2e-6),
            (torch.float64, forward64, backward64, 1e-7 if name == "hardswish" else 1e-13),
        ):
            z = torch.tensor(points, dtype=torch.float64).to(dtype).requires_grad_()
            expected = activation(z, *ARGUMENTS.get(name, ()))
            (gradient,) = torch.autograd.grad(expected, z, torch.full_like(z, 1.5))
            for actual, wanted in ((forward, expected), (backward, gradient)):
                difference = (actual - wanted.detach().double()).abs()
                assert (difference <= tolerance * (1 + wanted.detach().double().abs())).all(), (
                    name,
                    dtype,
                )


def emulated(source, launches):
    """A .cu as C++, its launches replaced by loops."""
    if CUDA is None:
        pytest.skip("the CUDA toolkit's headers are not here")
    code, found = re.subn(
        r"(\w+_kernel<\w+>)\s*<<<(.+?), 0, (?:call\.)?stream>>>\s*\((.+?)\);",
        r"emulate(\2, [&] { \1(\3); });",
        source.read_text(),
        flags=re.DOTALL,
    )
    assert found == launches
    return '#include "emulated_cuda.h"\n' + code.replace(
        "cudaGetLastError()", "emulated_last_error()"
    )


def with_activations(folder, *names):
    """A copy of the sources in which kernels are made for these activations: for all of them it
    takes minutes."""
    sources = shutil.copytree(
        SOURCES.parent, folder / "csrc", ignore=shutil.ignore_patterns("*.cpp")
    )
    header = sources / "batch_norm_act" / "activations.h"
    cases = re.compile(r"    case Activation::(\w+):\n.+\n")
    assert len(cases.findall(header.read_text())) == len(ACTIVATIONS)
    header.write_text(
        cases.sub(lambda case: case[0] if case[1] in names else "", header.read_text())
    )
    return sources


def loaded(folder, code, sources):
    """The shared library of some emulated code, whose includes lie in `sources`."""
    return ctypes.CDLL(
        compiled(
            folder,
            "emulated.so",
            code,
            f"-I{sources}",
            f"-I{CUDA}/include",
            "-O0",
            "-shared",
            "-fPIC",
        )
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulated")
    sources = with_activations(folder, "identity", "relu", "leaky_relu", "silu") / "batch_norm_act"
    code = (
        emulated(sources / "coefficients_cuda.cu", launches=2)
        + emulated(sources / "batch_norm_act_cuda.cu", launches=5)
        + """
    using namespace cnngraph;
    extern "C" int64_t workspace(Block* block) { return cuda::workspace_bytes(*block); }
    extern "C" void run(int type, int activation, double argument, Block* block, void** p, bool batch) {
      cuda::BatchNormAct call{DataType(type), Activation(activation), {argument, 0}, 1e-5,
                              *block, p[0], p[11], nullptr, p[1], p[2], p[3], p[4], p[5], nullptr};
      if (batch) cuda::statistics(call, p[3], p[4]);
      cuda::forward(call, p[6]);
      if (call.activation == Activation::relu && call.residual) call.output = p[6], call.residual = nullptr;
      cuda::backward(call, p[7], batch, p[8], p[9], p[10], p[12]);
    }
    """
    )
    return loaded(folder, code, sources)


TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12, torch.bfloat16: 8e-3, torch.float16: 1e-3}
ENUMERATION = {name: index for index, name in enumerate(ACTIVATIONS)}


def run(library, name, argument, x, grad, weight, bias, mean, var, residual=None):
    """Output, gradients and statistics, as the binding would call for them."""
    batch = mean is None
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    channels = x.shape[1]
    if batch:
        mean, var = torch.empty(2, channels, dtype=compute)
    inner = 1 if x.stride(1) == 1 else x[0, 0].numel()
    strides = [t.stride(0 if inner > 1 else -1 if t.dim() > 2 else 0) for t in (x, grad)]
    block = (ctypes.c_int64 * 6)(
        x.numel() // channels // inner, channels, inner, *strides, channels * inner
    )
    library.workspace.restype = ctypes.c_int64
    size = library.workspace(block)
    workspace = torch.full((size + 64,), 0x5A, dtype=torch.uint8)
    output, dx = (
        torch.empty_strided(grad.shape, grad.stride(), dtype=grad.dtype),
        torch.empty_like(x),
    )
    dresidual = None if residual is None else torch.empty_like(x)
    dweight, dbias = torch.empty(2, channels, dtype=compute)
    given = [
        x,
        weight,
        bias,
        mean,
        var,
        workspace,
        output,
        grad,
        dx,
        dweight,
        dbias,
        residual,
        dresidual,
    ]
    pointers = (ctypes.c_void_p * len(given))(*(None if t is None else t.data_ptr() for t in given))
    library.run(
        TYPES[x.dtype],
        ENUMERATION[name],
        ctypes.c_double(argument),
        block,
        pointers,
        ctypes.c_bool(batch),
    )
    assert (workspace[size:] == 0x5A).all()
    return [output, dx, dweight, dbias, mean, var, dresidual]


@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", list(TYPES), ids=str)
def test_the_kernels_emulated(library, dtype, channels_last, training, added):
    for shape, name, argument in [
        ((4, 16, 6, 6), "silu", 0),
        ((3, 5, 7, 7), "leaky_relu", 0.1),
        ((2, 40, 40, 32), "identity", 0),
        ((3, 24, 9, 7), "relu", 0),
        ((70, 130), "silu", 0),
        ((1, 2, 70, 131), "silu", 0),
    ]:
        x, grad, weight, bias, mean, var = tensors(
            shape, dtype, channels_last, affine=name != "identity"
        )
        if training:
            mean = var = None
        x = keep_off_kinks(name, x, weight, bias, mean, var)
        residual = residual_of(name, x, weight, bias, mean, var) if added else None
        *actual, dresidual = run(
            library, name, argument, x, grad, weight, bias, mean, var, residual
        )
        ones, zeros = (
            torch.ones(2, shape[1], dtype=torch.float64)[0],
            torch.zeros(shape[1], dtype=torch.float64),
        )
        leaves = [t.requires_grad_() for t in (
            x.double(),
            ones if weight is None else weight.double(),
            zeros if bias is None else bias.double(),
        )]  # fmt: skip
        statistics = (None, None) if training else (mean.double(), var.double())
        z = F.batch_norm(leaves[0], *statistics, leaves[1], leaves[2], training, 0.1, 1e-5)
        if added:
            leaves.append(residual.double().requires_grad_())
            z = z + leaves[3]
        y = ACTIVATIONS[name](z, *[argument][: name == "leaky_relu"])
        expected = [y.detach(), *torch.autograd.grad(y, leaves, grad.double())]
        if added:
            assert error_of(dresidual, expected.pop()) < TOLERANCE[dtype]
        if training:
            exact_var, exact_mean = torch.var_mean(
                x.double(), dim=[0, *range(2, x.dim())], correction=0
            )
            expected += [exact_mean, exact_var]
        for what, ours, wanted in zip(
            ("y", "dx", "dweight", "dbias", "mean", "var"), actual, expected, strict=False
        ):
            tolerance = TOLERANCE[dtype] if what in ("y", "dx") else min(TOLERANCE[dtype], 3e-6)
            assert error_of(ours, wanted) < tolerance, (what, shape)


@pytest.mark.parametrize(
    "strided", [(True, False), (False, True), (True, True)], ids=["input", "output", "both"]
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("wide", [40, 37])
def test_slices_of_channels_emulated(library, wide, channels_last, strided):
    x, grad, weight, bias, *_ = tensors((3, wide, 6, 6), torch.float32, channels_last)
    x, grad, weight, bias = (t.narrow(min(1, t.dim() - 1), 8, 16) for t in (x, grad, weight, bias))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    dense = [t.contiguous(memory_format=layout) for t in (x, grad)]
    given = [
        t if slice else plain for t, plain, slice in zip((x, grad), dense, strided, strict=True)
    ]
    for residual in (
        (None, dense[1]) if not strided[1] else (None,)
    ):  # with one, all but the input is dense
        actual = run(library, "silu", 0, *given, weight, bias, None, None, residual)
        expected = run(library, "silu", 0, *dense, weight, bias, None, None, residual)
        assert [actual[0].stride(), actual[1].stride()] == [given[1].stride(), dense[0].stride()]
        for ours, wanted in zip(actual[: 6 + (residual is not None)], expected, strict=False):
            torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_statistics_emulated_wherever_the_first_values_lie(library, channels_last):
    x = torch.randn(16, 8, 24, 24, generator=torch.Generator().manual_seed(0)) * 1e-2 + 100
    x[:1, :, :1, :8] = 0
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    *_, mean, var, _ = run(library, "identity", 0, x, x, None, None, None, None)
    exact_var, exact_mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    assert ((var - exact_var).abs() / exact_var).max() < 1e-6
    assert ((mean - exact_mean).abs() / exact_mean).max() < 1e-7
