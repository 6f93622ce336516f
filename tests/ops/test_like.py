"""Ops whose result has the size of another value: `upsample`, `crop`, `pad`, `max_unpool2d`."""

from __future__ import annotations

import pytest
import torch
from conftest import every_target
from torch.nn import functional

import cnngraph

HEAD = "cnngraph: 1\nname: net\ninput: [3, 32, 32]\ngraph:\n"
DECODER = """\
  - conv2d: {name: first, out_channels: 4, kernel_size: 3, padding: 1}
  - relu: {name: full}
  - max_pool2d: {name: pool, kernel_size: 2, stride: 2}
  - conv2d: {name: second, out_channels: 4, kernel_size: 3, padding: 1}
"""


def by_hand(net, x: torch.Tensor, resize) -> torch.Tensor:
    full = net.first(x).relu()
    return resize(net.second(functional.max_pool2d(full, 2, 2)), full)


def interpolate(small, full):
    return functional.interpolate(small, full.shape[2:], mode="bilinear", align_corners=True)


def pad(small, full):
    rows, columns = (a - b for a, b in zip(full.shape[2:], small.shape[2:], strict=True))
    sides = [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
    return functional.pad(small, sides)


def unpool(small, full):
    _, indices = functional.max_pool2d(full, 2, 2, return_indices=True)
    return functional.max_unpool2d(small, indices, 2, 2, output_size=full.shape[2:])


RESIZES = {
    "upsample: {like: full, mode: bilinear, align_corners: true}": interpolate,
    "pad: {like: full}": pad,
    "max_unpool2d: {like: full, kernel_size: 2, stride: 2}": unpool,
}


@every_target
@pytest.mark.parametrize("node", RESIZES)
@pytest.mark.parametrize("size", [(32, 32), (33, 18)])
def test_result_and_gradients_equal_torchs_functions(node, size, target) -> None:
    torch.manual_seed(0)
    net = cnngraph.compile(f"{HEAD}{DECODER}  - {node}\n", **target).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = by_hand(net, x, RESIZES[node])
    assert expected.shape[2:] == size
    found = net(x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad((found * weight).sum(), [x, *net.parameters()])
    theirs = torch.autograd.grad((expected * weight).sum(), [x, *net.parameters()])
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(net.eval().for_inference()(x), expected)


@pytest.mark.parametrize("node", RESIZES)
def test_exported_networks_take_other_sizes(node) -> None:
    net = cnngraph.compile(f"{HEAD}{DECODER}  - {node}\n").eval()
    height, width = torch.export.Dim("height", min=8), torch.export.Dim("width", min=8)
    dynamic = ({2: height, 3: width},)
    exported = torch.export.export(net, (torch.randn(2, 3, 32, 48),), dynamic_shapes=dynamic)
    x = torch.randn(2, 3, 21, 38)
    torch.testing.assert_close(exported.module()(x), net(x))


def test_crop_takes_the_centre() -> None:
    net = cnngraph.compile(
        f"{HEAD}  - conv2d: {{name: small, out_channels: 1, kernel_size: 4}}\n"
        "  - upsample: {like: input}\n  - crop: {like: small}\n"
    )
    x = torch.randn(1, 3, 32, 32)
    large = functional.interpolate(net.small(x), (32, 32))
    torch.testing.assert_close(net(x), large[:, :, 1:30, 1:30])
    net = cnngraph.compile(f"{HEAD}  - crop: [30, 1]\n")
    assert torch.equal(net(x), x[:, :, 1:31, 15:16])


def test_unet_with_like_takes_every_size() -> None:
    unet = f"{HEAD}{DECODER}  - upsample: {{like: full}}\n  - concat: full\n"
    sizes = cnngraph.check(unet).sizes
    assert sizes is not None
    assert sizes.runs == ((2, 64),)
    fixed = cnngraph.check(unet.replace("like: full", "scale_factor: 2")).sizes
    assert fixed is not None
    assert fixed.valid == (*range(2, 65, 2),)


def test_a_name_is_resolved_where_the_node_stands() -> None:
    """In each copy of a level, `like` means the node of that copy."""
    text = f"""{HEAD}
  - repeat:
      name: stage
      times: 2
      body:
        sequential:
          name: level${{i}}
          body:
            - relu: {{name: full}}
            - max_pool2d: 3
            - upsample: {{name: up, like: full}}
            - max_pool2d: 2
"""
    graph = cnngraph.check(text).graph
    assert graph is not None
    for level in ("stage.level0", "stage.level1"):
        assert graph.by_path[f"{level}.up"].inputs[1] == f"{level}.full"
        assert graph.by_path[f"{level}.up"].shape == graph.by_path[f"{level}.full"].shape


def test_the_map_called_like_gets_no_gradient_and_no_memory_for_one() -> None:
    text = f"{HEAD}{DECODER}  - upsample: {{like: full}}\n"
    memory = cnngraph.compile(text).step_memory(4)
    fixed = cnngraph.compile(text.replace("like: full", "scale_factor: 2")).step_memory(4)
    assert memory.step <= fixed.step + 4 * 4 * 4 * 32 * 32  # `full` itself lives longer
