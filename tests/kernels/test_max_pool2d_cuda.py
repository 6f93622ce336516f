"""The CUDA kernels of max_pool2d without a GPU, emulated on a CPU: see
test_batch_norm_act_cuda.py."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from test_batch_norm_act_cuda import COMPILER, SOURCES, TYPES, emulated, loaded
from test_max_pool2d_op import WINDOWS, values

POOL = SOURCES.parent / "max_pool2d"

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here"),
    pytest.mark.skipif(not POOL.exists(), reason="not in a checkout"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    code = (
        emulated(POOL / "max_pool2d_cuda.cu", launches=2)
        + """
    using namespace cnngraph;
    extern "C" void run(int type, int64_t* a, void** p) {
      Pool pool{{a[0], a[1], a[2], a[3], a[4], a[5]}, {a[6], a[7], a[8], a[9], a[10], a[11]},
                a[12], a[13], bool(a[14]), bool(a[15])};
      auto* indices = static_cast<uint8_t*>(p[2]);
      cuda::max_pool2d(DataType(type), pool, p[0], p[1], indices, nullptr);
      cuda::max_pool2d(DataType(type), pool, p[0], p[5], nullptr, nullptr);
      cuda::max_pool2d_backward(DataType(type), pool, p[3], indices, p[4], nullptr);
    }
    """
    )
    return loaded(tmp_path_factory.mktemp("emulated"), code, POOL)


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", list(TYPES), ids=str)
def test_the_kernels_emulated(library, dtype, channels_last, relu):
    for name, channels in (
        ("3x3 stride 2", 16),
        ("3x3 stride 1", 3),
        ("apart", 3),
        ("uneven and dilated", 16),
    ):
        window = WINDOWS[name]
        x = values((2, channels, 11, 9), dtype, channels_last)
        leaf = x.double().requires_grad_()
        expected = F.max_pool2d(leaf.relu() if relu else leaf, *window, True)
        grad = torch.randn(expected.shape).to(dtype)
        if channels_last:
            grad = grad.contiguous(memory_format=torch.channels_last)
        expected.backward(grad.double())
        y, unindexed = torch.empty_like(grad), torch.empty_like(grad)
        indices, dx = torch.empty_like(grad, dtype=torch.uint8), torch.empty_like(x)
        axes = [
            value
            for axis in (0, 1)
            for value in (x.shape[2 + axis], y.shape[2 + axis], *(w[axis] for w in window))
        ]
        arguments = (ctypes.c_int64 * 16)(*axes, 2, channels, channels_last, relu)
        pointers = (ctypes.c_void_p * 6)(
            *(t.data_ptr() for t in (x, y, indices, grad, dx, unindexed))
        )
        library.run(TYPES[dtype], arguments, pointers)
        for result in (y, unindexed):
            assert torch.equal(result.isnan(), expected.isnan())
            assert torch.equal(result.nan_to_num(7), expected.to(dtype).nan_to_num(7))
        rounding = {torch.float32: 1e-6, torch.float64: 1e-13}.get(dtype, 1e-2)
        torch.testing.assert_close(dx.double(), leaf.grad, rtol=rounding, atol=rounding)
