"""The CUDA kernels of dense_block without a GPU, emulated on a CPU: see
test_batch_norm_act_cuda.py."""

import ctypes

import pytest
import torch
from test_batch_norm_act_cuda import (
    COMPILER,
    ENUMERATION,
    SOURCES,
    TOLERANCE,
    TYPES,
    emulated,
    loaded,
    with_activations,
)
from test_batch_norm_act_op import ACTIVATIONS, error_of, keep_off_kinks

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here"),
    pytest.mark.skipif(not SOURCES.exists(), reason="not in a checkout"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulated")
    sources = with_activations(folder, "relu", "silu")
    code = (
        emulated(sources / "batch_norm_act" / "coefficients_cuda.cu", launches=2)
        + emulated(sources / "dense_block" / "dense_block_cuda.cu", launches=2)
        + """
    using namespace cnngraph;
    extern "C" int64_t workspace(Block* block) { return cuda::workspace_bytes(*block); }
    extern "C" void add_gradient(int type, int activation, Block* block, int64_t* strides, void** p) {
      cuda::BatchNormAct norm{DataType(type), Activation(activation), {}, 1e-5, *block, p[0], nullptr,
                              nullptr, p[1], p[2], p[3], p[4], p[5], nullptr};
      cuda::add_gradient(norm, p[6], {p[7], strides[0]}, {p[8], strides[1]}, p[9], p[10], p[11], p[12]);
    }
    extern "C" void finish_gradient(int type, Block* block, int64_t* strides, void** p) {
      cuda::finish_gradient(DataType(type), *block, {p[0], strides[0]}, {p[1], strides[1]}, p[2], p[3],
                            p[4], {p[5], strides[2]}, nullptr);
    }
    """
    )
    return loaded(folder, code, sources / "dense_block")


def pointers(*tensors):
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def counts(*values):
    return (ctypes.c_int64 * len(values))(*values)


class Maps:
    """Tensors of 3x?x5x4 in one layout, and how the kernels see them."""

    def __init__(self, dtype, channels_last):
        self.dtype = dtype
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.inner = 1 if channels_last else 20
        self.generator = torch.Generator().manual_seed(0)

    def random(self, channels):
        values = torch.randn(3, channels, 5, 4, generator=self.generator, dtype=torch.float64)
        return values.to(self.dtype).contiguous(memory_format=self.layout)

    def per_channel(self, channels):
        dtype = torch.float64 if self.dtype is torch.float64 else torch.float32
        return torch.rand(channels, generator=self.generator, dtype=torch.float64).to(dtype) + 0.5

    def block(self, channels, *tensors):
        return counts(
            60 // self.inner,
            channels,
            self.inner,
            *map(self.stride, tensors),
            channels * self.inner,
        )

    def stride(self, tensor):
        return tensor.shape[1] * self.inner


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", list(TYPES), ids=str)
def test_adding_a_gradient_emulated(library, dtype, channels_last):
    """Into the gradient of later layers, in place, and from the gradient of a longer output into a
    new one."""
    library.workspace.restype = ctypes.c_int64
    maps = Maps(dtype, channels_last)
    for channels, wide, name, fixed, in_place in [
        (16, 40, "relu", False, True),
        (24, 32, "silu", False, False),
        (13, 22, "silu", True, True),
    ]:
        x, dy, addend = maps.random(wide), maps.random(channels), maps.random(wide)
        weight, bias, mean, var = (maps.per_channel(channels) for _ in range(4))
        x[:, :channels] = keep_off_kinks(name, x[:, :channels], weight, bias, mean, var)
        slope, offset = (
            (None, None) if fixed else (maps.per_channel(channels), maps.per_channel(channels))
        )
        dweight, dbias = torch.empty_like(mean), torch.empty_like(mean)
        invstd = (var.double() + 1e-5).rsqrt().view(-1, 1, 1)
        centred = x[:, :channels].double() - mean.double().view(-1, 1, 1)
        z = (
            centred * invstd * weight.double().view(-1, 1, 1) + bias.double().view(-1, 1, 1)
        ).requires_grad_()
        (dz,) = torch.autograd.grad(ACTIVATIONS[name](z), z, dy.double())
        scale = weight.double() * invstd.view(-1)
        expected = [addend[:, :channels].double() + dz * scale.view(-1, 1, 1)]
        expected += [(dz * centred * invstd).sum((0, 2, 3)), dz.sum((0, 2, 3))]
        if not fixed:
            expected.append(slope.double() - scale * invstd.view(-1) * expected[1] / 60)
            expected.append(offset.double() - scale * expected[2] / 60)

        kept = addend.clone()
        result = addend if in_place else maps.random(channels)
        block = maps.block(channels, x, dy)
        workspace = torch.empty(library.workspace(block), dtype=torch.uint8)
        library.add_gradient(
            TYPES[dtype],
            ENUMERATION[name],
            block,
            counts(maps.stride(addend), maps.stride(result)),
            pointers(
                x,
                weight,
                bias,
                mean,
                var,
                workspace,
                dy,
                addend,
                result,
                slope,
                offset,
                dweight,
                dbias,
            ),
        )
        found = [result[:, :channels], dweight, dbias, *([] if fixed else [slope, offset])]
        for index, (ours, wanted) in enumerate(zip(found, expected, strict=True)):
            tolerance = TOLERANCE[dtype] if index == 0 else min(TOLERANCE[dtype], 3e-6)
            assert error_of(ours, wanted) < tolerance, (name, index)
        assert torch.equal(addend[:, channels:], kept[:, channels:])
        assert in_place or torch.equal(addend, kept)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", list(TYPES), ids=str)
def test_finishing_a_gradient_emulated(library, dtype, channels_last):
    maps = Maps(dtype, channels_last)
    for first, channels in [(8, 16), (3, 5)]:
        x, partial, result = maps.random(40), maps.random(32), maps.random(channels)
        mean, slope, offset = (maps.per_channel(32) for _ in range(3))
        part = slice(first, first + channels)
        columns = [row[part].double().view(-1, 1, 1) for row in (mean, slope, offset)]
        expected = (
            partial[:, part].double() + (x[:, part].double() - columns[0]) * columns[1] + columns[2]
        )
        library.finish_gradient(
            TYPES[dtype],
            maps.block(channels, x, partial),
            counts(maps.stride(x), maps.stride(partial), maps.stride(result)),
            pointers(x[:, part], partial[:, part], mean[part], slope[part], offset[part], result),
        )
        assert error_of(result, expected) < TOLERANCE[dtype]
