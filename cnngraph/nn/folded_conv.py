"""A convolution with the batch norm, addition and activation after it, as one convolution with folded weights.

For evaluation only: whatever needs a gradient, or is training, runs as the modules themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnngraph.kernels.conv2d import winograd_conv2d, winograd_is_faster, winograd_weight
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

_Way = Callable[[nn.Conv2d, "_Folded", nn.Module | None, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class _Folded:
    """A folded weight and bias.

    Attributes:
        key: tells whether they are still those of the modules.
        sources: the tensors they were made from, held so that their addresses are not given to others.
        weight: laid out as `run` takes it.
        run: the fastest way to convolve with them.
    """

    key: object
    sources: list[Tensor]
    weight: Tensor
    bias: Tensor
    run: _Way


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
    if not _may_fold(conv, batch_norm, activation, input, residual):
        value = conv2d(conv, input)
        return _finished(value if batch_norm is None else batch_norm(value), residual, activation)
    assert isinstance(conv, nn.Conv2d)
    folded = _fold_once(conv, batch_norm, input)
    return folded.run(conv, folded, activation, input, residual)


def _finished(value: Tensor, residual: Tensor | None, activation: nn.Module | None) -> Tensor:
    value = value if residual is None else value + residual
    return value if activation is None else activation(value)


def _by_torch(
    conv: nn.Conv2d, folded: _Folded, activation: nn.Module | None, input: Tensor, residual: Tensor | None
) -> Tensor:
    value = F.conv2d(input, folded.weight, folded.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return _finished(value, residual, activation)


def _by_winograd(
    geometry: Geometry,
    conv: nn.Conv2d,
    folded: _Folded,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None,
) -> Tensor:
    padding, *_ = geometry
    relu = type(activation) is nn.ReLU
    value = winograd_conv2d(input, folded.weight, conv.out_channels, folded.bias, padding, residual, relu)
    return _finished(value, None, None if relu else activation)


def _by_onednn(
    geometry: Geometry,
    conv: nn.Conv2d,
    folded: _Folded,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None,
) -> Tensor:
    """Taking in any activation that oneDNN has, but after a sum a ReLU alone."""
    taken = activation if residual is None or type(activation) is nn.ReLU else None
    post = _POST_OPS.get(type(taken)) if taken is not None else None
    given = (folded.weight, folded.bias, *geometry)
    if residual is None:
        value = torch.ops.mkldnn._convolution_pointwise.default(
            input, *given, *(post(taken) if post else ("none", [], None))
        )
    else:
        unary = post(taken) if post else (None, [], None)
        value = torch.ops.mkldnn._convolution_pointwise.binary(input, residual, *given, "add", 1.0, *unary)
    return _finished(value, None, None if post else activation)


def _may_fold(
    conv: nn.Module,
    batch_norm: nn.Module | None,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None,
) -> bool:
    modules = (conv,) if batch_norm is None else (conv, batch_norm)
    modules = modules if activation is None else (*modules, activation)
    for module in modules:
        if module.training or is_watched(module):
            return False
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros":
        return False
    if batch_norm is not None and (type(batch_norm) is not nn.BatchNorm2d or batch_norm.running_mean is None):
        return False
    if not _holds_its_own(conv, batch_norm):
        return False
    if torch.is_grad_enabled():
        held = [parameter for module in modules for parameter in module.parameters()]
        if any(tensor is not None and tensor.requires_grad for tensor in (input, residual, *held)):
            return False
    dtype = input.dtype
    if input.dim() != 4 or conv.weight.dtype is not dtype:
        return False
    if residual is not None and residual.dtype is not dtype:
        return False
    return not (torch.is_autocast_enabled(input.device.type) or torch.compiler.is_compiling() or is_transformed())


def _holds_its_own(conv: nn.Conv2d, batch_norm: nn.BatchNorm2d | None) -> bool:
    """Whether all that a fold follows from is registered where the modules' classes register it, so that a change is seen."""
    if not conv._parameters.keys() >= _TENSORS:
        return False
    return batch_norm is None or (
        batch_norm._parameters.keys() >= _TENSORS and batch_norm._buffers.keys() >= _STATISTICS
    )


_TENSORS, _STATISTICS = {"weight", "bias"}, {"running_mean", "running_var"}

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


def _onednn_runs(input: Tensor) -> bool:
    return (
        _HAS_ONEDNN
        and torch._C._get_mkldnn_enabled()  # torch.backends.mkldnn.enabled, at a tenth of its time
        and input.dtype is torch.float32
        and input.is_cpu
        and input.numel() > 0
    )


def _fold_once(conv: nn.Conv2d, batch_norm: Any, input: Tensor) -> _Folded:
    """Folds, and does so anew when a tensor that the result follows from was changed or replaced, or the input lies otherwise.

    Torch tells of no change that is made in place through a tensor's `.data`, or to one that was made in inference mode.
    """
    parameters = conv._parameters
    sources = [*parameters.values()]  # as attributes, modules look them up much slower
    eps = None
    if batch_norm is not None:
        sources += [*batch_norm._parameters.values(), *batch_norm._buffers.values()]
        eps = batch_norm.eps
    geometry = geometry_of(conv)
    identities = [
        None if source is None else (source.data_ptr(), None if source.is_inference() else source._version)
        for source in sources
    ]
    weight = parameters["weight"]
    assert weight is not None  # or it is not folded
    key = (input.shape, input.stride(), _onednn_runs(input), geometry, weight.shape, weight.stride(), eps, identities)
    known = _folded.get(conv)
    if known is not None and known.key == key:
        return known
    with torch.no_grad():
        weight, bias = _fold(conv, batch_norm)
        run, weight = _laid_out(weight, geometry, input)
    held = [source.detach() for source in sources if source is not None]
    _folded[conv] = folded = _Folded(key, held, weight, bias, run)
    return folded


def _laid_out(weight: Tensor, geometry: Geometry | None, input: Tensor) -> tuple[_Way, Tensor]:
    """The fastest way to convolve this input, and the weight as it takes it."""
    if geometry is None or not _onednn_runs(input):
        return _by_torch, weight
    if winograd_is_faster(input, weight, geometry):
        return partial(_by_winograd, geometry), winograd_weight(weight)
    return partial(_by_onednn, geometry), torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, input.shape)


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
