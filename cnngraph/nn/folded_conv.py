"""A convolution with the batch norm, addition and activation after it, as one convolution with folded weights.

For evaluation only: whatever needs a gradient, or is training, runs as the modules themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnngraph.kernels.conv2d import winograd_conv2d, winograd_pays, winograd_weight
from cnngraph.nn.batch_norm_act import is_transformed, is_watched
from cnngraph.nn.conv2d import Geometry, conv2d, geometry_of

_PostOp = tuple[str, list[float | None], str | None]
_POST_OPS: dict[type[nn.Module], Callable[..., _PostOp]] = {
    nn.ReLU: lambda module: ("relu", [], None),
    nn.ReLU6: lambda module: ("hardtanh", [module.min_val, module.max_val], None),
    nn.Hardtanh: lambda module: ("hardtanh", [module.min_val, module.max_val], None),
    nn.LeakyReLU: lambda module: ("leaky_relu", [module.negative_slope], None),
    nn.SiLU: lambda module: ("swish", [], None),
    nn.GELU: lambda module: ("gelu", [], module.approximate),
    nn.Sigmoid: lambda module: ("sigmoid", [], None),
    nn.Tanh: lambda module: ("tanh", [], None),
    nn.Hardswish: lambda module: ("hardswish", [], None),
}
"""Activations that oneDNN computes on a convolution's result before it is written."""


@dataclass(frozen=True)
class _Folded:
    """A folded weight and bias, as the faster way takes them.

    Attributes:
        key: tells whether they are still those of the modules.
        sources: the tensors they were made from, held so that their addresses are not given to others.
        transformed: the weight is transformed, for Winograd's filtering.
    """

    key: object
    sources: list[Tensor]
    weight: Tensor
    bias: Tensor
    transformed: bool = False


_folded: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()
"""By convolution. Beside the modules, so that none is saved."""


def folded_conv(
    conv: nn.Module,
    batch_norm: nn.Module | None,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(batch_norm(conv(input)) + residual), in one convolution where nothing is training."""
    if not _may_fold(conv, batch_norm, activation, input):
        value = conv2d(conv, input)
        value = value if batch_norm is None else batch_norm(value)
        value = value if residual is None else value + residual
        return value if activation is None else activation(value)
    assert isinstance(conv, nn.Conv2d)
    post = _POST_OPS.get(type(activation)) if activation is not None else None
    name, scalars, algorithm = post(activation) if post else ("none", [], None)
    geometry = geometry_of(conv)
    if geometry is None or not _onednn_runs(input):
        folded = _fold_once(conv, batch_norm)
        value = F.conv2d(input, folded.weight, folded.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        value = value if residual is None else value + residual
        return value if activation is None else activation(value)
    folded = _fold_once(conv, batch_norm, geometry, input)
    rest = activation
    if folded.transformed:
        relu = name == "relu"
        value = winograd_conv2d(input, folded.weight, conv.out_channels, folded.bias, geometry[0], residual, relu)
        rest = None if relu else activation
    elif residual is None:
        weight, bias = folded.weight, folded.bias
        value = torch.ops.mkldnn._convolution_pointwise(input, weight, bias, *geometry, name, scalars, algorithm)
        rest = None if post else activation
    else:
        unary = (name, scalars, algorithm) if name == "relu" else (None, [], None)
        value = torch.ops.mkldnn._convolution_pointwise.binary(
            input, residual, folded.weight, folded.bias, *geometry, "add", 1.0, *unary
        )
        rest = None if name == "relu" else activation
    return value if rest is None else rest(value)


def _may_fold(conv: nn.Module, batch_norm: nn.Module | None, activation: nn.Module | None, input: Tensor) -> bool:
    modules = [module for module in (conv, batch_norm, activation) if module is not None]
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or any(map(is_watched, modules)):
        return False
    if batch_norm is not None and (type(batch_norm) is not nn.BatchNorm2d or batch_norm.running_mean is None):
        return False
    if any(module.training for module in modules):
        return False
    if torch.is_grad_enabled():
        held = [parameter for module in modules for parameter in module.parameters()]
        if input.requires_grad or any(parameter.requires_grad for parameter in held):
            return False
    if input.dim() != 4 or input.dtype is not conv.weight.dtype or torch.is_autocast_enabled(input.device.type):
        return False
    return not (torch.compiler.is_compiling() or is_transformed())


def _onednn_runs(input: Tensor) -> bool:
    return (
        input.device.type == "cpu"
        and input.dtype is torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and input.numel() > 0
    )


def _fold_once(
    conv: nn.Conv2d, batch_norm: Any, geometry: Geometry | None = None, input: Tensor | None = None
) -> _Folded:
    """Folds, and does so anew when a tensor that the result follows from was changed or replaced.

    Torch tells of no change that is made in place through a tensor's `.data`.

    With a geometry and an input, the weight is laid out for the faster way to convolve that input.
    """
    sources = [conv.weight, conv.bias]
    if batch_norm is not None:
        sources += [batch_norm.weight, batch_norm.bias, batch_norm.running_mean, batch_norm.running_var]
    eps = None if batch_norm is None else batch_norm.eps
    lies = None if input is None else (input.shape, input.stride())
    key = (lies, eps, *map(_identity, sources))
    known = _folded.get(conv)
    if known is not None and known.key == key:
        return known
    with torch.no_grad():
        weight, bias = _fold(conv, batch_norm)
        transformed = False
        if geometry is not None and input is not None:
            transformed = winograd_pays(input, weight, geometry)
            if transformed:
                weight = winograd_weight(weight)
            else:
                weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, input.shape)
    held = [source.detach() for source in sources if source is not None]
    _folded[conv] = _Folded(key, held, weight, bias, transformed)
    return _folded[conv]


def _identity(tensor: Tensor | None) -> object:
    """What is another where a tensor holds other values, or is another."""
    if tensor is None:
        return None
    return tensor.data_ptr(), tensor.dtype, None if tensor.is_inference() else tensor._version


def _fold(conv: nn.Conv2d, batch_norm: Any) -> tuple[Tensor, Tensor]:
    """conv's weight and bias with the batch norm's scale and shift in them, computed in double."""
    weight = conv.weight.detach().double()
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().double()
    if batch_norm is not None:
        scale = (batch_norm.running_var.double() + batch_norm.eps).rsqrt()
        if batch_norm.weight is not None:
            scale = scale * batch_norm.weight.detach().double()
        weight = weight * scale[:, None, None, None]
        bias = (bias - batch_norm.running_mean.double()) * scale
        if batch_norm.bias is not None:
            bias = bias + batch_norm.bias.detach().double()
    return weight.to(conv.weight.dtype).contiguous(), bias.to(conv.weight.dtype)
