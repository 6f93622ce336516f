"""Convolutions and linear layers for evaluation, with batch norms folded into their weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from math import inf, isfinite, prod
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph import kernels
from cnngraph.kernels.constant_conv2d import (
    batch_norm_relu_pointwise_conv2d,
    constant_kernel,
    depthwise_conv2d,
    pointwise_conv2d,
    pointwise_weight,
    winograd_conv2d,
    winograd_weight,
)
from cnngraph.kernels.conv2d import is_unsafe, safe_conv2d
from cnngraph.nn.conv2d import geometry_of
from cnngraph.nn.same import Conv2dSame, pad_same
from cnngraph.nn.watched import is_traced, is_transformed, is_watched

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_LEAST_CHANNELS = 32
"""For fewer, normalising the input of a product costs more than it saves."""
_LARGEST_SUM = 1e18
"""Of a filter's absolute values, so that no product with values up to 2e19 overflows."""
_MOST_LAYOUTS, _MOST_SHAPES = 4, 256
"""Limits of the packed copies of a weight, and of the input shapes that share them."""


def fold(layer: nn.Module, *others: nn.Module) -> FoldedConv2d | FoldedLinear | None:
    """A layer, a batch norm and an activation as one module for evaluation.

    Args:
        layer: an `nn.Conv2d`, a `Conv2dSame` or an `nn.Linear`.
        others: the modules after it: a batch norm, an activation, or both.

    Returns:
        A module that computes the same; None if a module is in training mode or has hooks, if the
        layer or norm is a subclass of torch's class (it may differ), or if there are other modules.
    """
    norm = next(
        (module for module in others if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)), None
    )
    rest = [module for module in others if module is not norm]
    if type(layer) not in (nn.Conv2d, Conv2dSame, nn.Linear) or len(rest) > 1:
        return None
    if any(is_watched(module) or module.training for module in (layer, *others)):
        return None
    if norm is not None and (
        type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d) or norm.running_mean is None
    ):
        return None
    weight, bias = folded_weights(layer, norm)
    activation = rest[0] if rest else None
    if isinstance(layer, nn.Conv2d):
        return FoldedConv2d(layer, weight, bias, activation)
    assert isinstance(layer, nn.Linear)
    return FoldedLinear(layer, weight, bias, activation)


def folded_weights(layer: Any, batch_norm: Any) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias with the scale and shift of a batch norm folded into them.

    With s = gamma / sqrt(var + eps), they are W s and (b - mean) s + beta, computed in float64 and
    rounded to the layer's dtype.
    """
    weight = layer.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
    if batch_norm is not None:
        scale = (batch_norm.running_var.double() + batch_norm.eps).rsqrt()
        if batch_norm.weight is not None:
            scale = scale * batch_norm.weight.detach().double()
        weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
        bias = (bias - batch_norm.running_mean.double()) * scale
        if batch_norm.bias is not None:
            bias = bias + batch_norm.bias.detach().double()
    return weight.to(layer.weight.dtype).contiguous(), bias.to(layer.weight.dtype)


def _in_place(activation: nn.Module | None) -> nn.Module | None:
    """A copy of an activation that overwrites its input."""
    copied: Any = deepcopy(activation)
    if hasattr(copied, "inplace"):
        copied.inplace = True
    return copied


class FoldedLinear(nn.Linear):
    """activation(linear(input)) with constant weights, for `(..., in_features)`."""

    def __init__(
        self, linear: nn.Linear, weight: Tensor, bias: Tensor, activation: nn.Module | None
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.activation = _in_place(activation)

    def forward(self, input: Tensor) -> Tensor:
        value = super().forward(input)
        return value if self.activation is None else self.activation(value)


_Run = Callable[[Tensor, Tensor | None], Tensor]
"""Computes a result from an input and a residual."""


class FoldedConv2d(nn.Conv2d):
    """activation(conv(input) + residual) with constant weights, packed for the fastest kernel.

    `input` is `(N, C, H, W)`, and `residual`, if given, has the shape of the result. Only
    `load_state_dict` and `.to()` change the weights. They are packed once for each kernel, and for
    oneDNN once for each memory format that it chooses for an input's shape, so inputs of several
    sizes may alternate. After most of oneDNN's convolutions the activation runs on its own, since
    oneDNN's ReLU turns NaN into zero.
    """

    def __init__(
        self, conv: nn.Conv2d, weight: Tensor, bias: Tensor, activation: nn.Module | None
    ) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # pyright: ignore[reportArgumentType]
            conv.stride,  # pyright: ignore[reportArgumentType]
            conv.padding,  # pyright: ignore[reportArgumentType]
            conv.dilation,  # pyright: ignore[reportArgumentType]
            conv.groups,
            device="meta",
        )
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.activation = _in_place(activation)
        self._geometry = geometry_of(conv)
        self._pads_same = type(conv) is Conv2dSame
        self._forget()

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if self._pads_same:
            input = pad_same(input, self.kernel_size, self.stride, self.dilation)
        return (self._run_for(input, residual) or self._by_modules)(input, residual)

    def after_batch_norm_relu(self, norm: nn.Module, input: Tensor) -> Tensor | None:
        """activation(conv(relu(norm(input)))) in one pass, or None if no kernel computes it.

        The norm has no hooks. `input` may be a slice of the channels of channels_last maps.
        """
        bounds, gamma = _bounds_of(self.activation), getattr(norm, "weight", None)
        if (
            type(norm) is not nn.BatchNorm2d
            or norm.training
            or norm.running_mean is None
            or norm.running_var is None
            or norm.running_mean.dtype is not torch.float32
            or (gamma is not None and gamma.dtype is not torch.float32)
            or kernels.extension is None
            or bounds is None
            or self.weight.shape[2:] != (1, 1)
            or min(self.weight.shape[:2]) < _LEAST_CHANNELS
            or self._geometry != ((0, 0), (1, 1), (1, 1), 1)
            or input.stride(1) != 1
            or not self._runs(input, None)
        ):
            return None
        if self._packed is None:
            self._packed = pointwise_weight(self.weight)
        statistics = norm.running_mean, norm.running_var, gamma, norm.bias, norm.eps
        return batch_norm_relu_pointwise_conv2d(
            input, *statistics, self._packed, self.out_channels, self.bias, *bounds
        )

    def _by_modules(self, input: Tensor, residual: Tensor | None) -> Tensor:
        value = self._convolved(input)
        value = value if residual is None else value + residual
        return value if self.activation is None else self.activation(value)

    def _convolved(self, input: Tensor) -> Tensor:
        if self._geometry is not None and not is_traced():
            padding, stride, dilation, groups = self._geometry
            if is_unsafe(input, self.weight, stride, padding, dilation):
                return safe_conv2d(input, self.weight, self.bias, stride, padding, dilation, groups)
        return super().forward(input)

    def _runs(self, input: Tensor, residual: Tensor | None) -> bool:
        """Whether oneDNN's operator accepts these tensors; otherwise the modules run."""
        return (
            _HAS_ONEDNN
            and not torch.compiler.is_compiling()
            and not torch._C._len_torch_dispatch_stack()  # modes know torch's operators alone
            and torch._C._get_mkldnn_enabled()  # 10 times faster than torch.backends.mkldnn.enabled
            and input.dtype is self.weight.dtype is torch.float32
            and input.is_cpu
            and input.dim() == 4
            and input.numel() > 0
            and (residual is None or residual.dtype is torch.float32)
            and not (torch.is_grad_enabled() and (input.requires_grad or _requires_grad(residual)))
            and not torch.is_autocast_enabled("cpu")
            and not is_transformed()
        )

    def _run_for(self, input: Tensor, residual: Tensor | None) -> _Run | None:
        """The fastest convolution of this input with packed weights; None if the modules run."""
        if self._geometry is None or not self._runs(input, residual):
            return None
        key = input.shape, input.stride()
        known = self._by_shape.get(key)
        if known is not None:
            return known
        padding, stride, dilation, _ = self._geometry
        if is_unsafe(input, self.weight, stride, padding, dilation):
            return None
        layout: str | bytes = constant_kernel(input, self.weight, self._geometry)
        packed: Tensor | None = None
        if layout == "library":
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, *self._geometry, input.shape
            )
            described = torch.ops.mkldnn._get_mkldnn_serialized_md(packed)
            layout = described.numpy().tobytes()
        run = self._by_layout.get(layout)
        if run is None:
            run = self._by_kernel(str(layout)) if packed is None else self._by_onednn(packed)
        full = layout not in self._by_layout and len(self._by_layout) >= _MOST_LAYOUTS
        if full or len(self._by_shape) >= _MOST_SHAPES:
            self._forget()
        self._by_layout[layout] = self._by_shape[key] = run
        return run

    def _by_kernel(self, name: str) -> _Run:
        """The convolution by one of our kernels, which apply the bounds of an activation."""
        convolve, bounds = self._constant_kernel(name), _bounds_of(self.activation)
        low, high = bounds or (-inf, inf)
        activation = self.activation if bounds is None else None
        is_winograd = name.startswith("winograd")

        def run(input: Tensor, residual: Tensor | None) -> Tensor:
            if is_winograd and not isfinite(input.sum().item()):
                # In Winograd's algorithm one infinity makes the results around it NaN.
                return self._by_modules(input, residual)
            value = convolve(input, residual=residual, low=low, high=high)
            return value if activation is None else activation(value)

        return run

    def _constant_kernel(self, name: str) -> Callable[..., Tensor]:
        """A kernel with a packed weight: a function of the input, `residual`, `low` and `high`."""
        assert self._geometry is not None
        padding, stride, dilation, _ = self._geometry
        bias, channels = self.bias, self.out_channels
        if name == "pointwise":
            weight = pointwise_weight(self.weight)
            return partial(pointwise_conv2d, packed_weight=weight, channels=channels, bias=bias)
        if name == "depthwise":
            weight = self.weight.squeeze(1).permute(1, 2, 0).contiguous()
            return partial(
                depthwise_conv2d,
                weight=weight,
                bias=bias,
                stride=stride,
                padding=padding,
                dilation=dilation,
            )
        weight = winograd_weight(self.weight, 4 if name == "winograd_4x4" else 2)
        return partial(
            winograd_conv2d,
            transformed_weight=weight,
            channels=channels,
            bias=bias,
            padding=padding,
        )

    def _by_onednn(self, packed: Tensor) -> _Run:
        assert self._geometry is not None
        given, activation = (packed, self.bias, *self._geometry), self.activation
        pointwise = torch.ops.mkldnn._convolution_pointwise
        bounds = self._bounds_by_onednn()

        def onednn(input: Tensor, residual: Tensor | None) -> Tensor:
            if residual is None:
                if bounds is not None and isfinite(_sum_of_squares(input)):
                    return pointwise.default(input, *given, "hardtanh", bounds, "")
                value = pointwise.default(input, *given, "none", [], None)
            else:
                value = pointwise.binary(input, residual, *given, "add", 1.0, None, [], None)
            return value if activation is None else activation(value)

        return onednn

    def _bounds_by_onednn(self) -> list[float] | None:
        """The bounds that oneDNN applies to results; None to run the activation on its own.

        oneDNN's bounds turn NaN into a number, but no result is NaN if the sum of the input's
        squares is finite, so that no value exceeds 2e19, and the weights are small. Where there are
        at least twice as many results as inputs, the sum takes less time than the activation.
        """
        bounds = _bounds_of(self.activation)
        expands = self.out_channels >= 2 * self.in_channels * prod(self.stride)
        if self.activation is None or bounds is None or not expands:
            return None
        assert self.bias is not None
        sums = self.weight.abs().sum((1, 2, 3)) + self.bias.abs()
        return [*bounds] if sums.max() < _LARGEST_SUM else None

    def _forget(self) -> None:
        self._by_shape: dict[tuple[torch.Size, tuple[int, ...]], _Run] = {}
        self._by_layout: dict[str | bytes, _Run] = {}
        self._packed: Tensor | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> FoldedConv2d:
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any) -> None:  # pyright: ignore
        self._forget()
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_by_shape": {}, "_by_layout": {}, "_packed": None}


def _bounds_of(activation: nn.Module | None) -> tuple[float, float] | None:
    """The bounds of an activation that only limits values; None for any other."""
    if activation is None:
        return -inf, inf
    if type(activation) is nn.ReLU:
        return 0.0, inf
    if type(activation) in (nn.ReLU6, nn.Hardtanh):
        return float(activation.min_val), float(activation.max_val)  # pyright: ignore
    return None


def _sum_of_squares(maps: Tensor) -> float:
    values = maps.permute(0, 2, 3, 1).reshape(-1)  # no copy of channels_last maps
    return torch.dot(values, values).item()


def _requires_grad(value: Tensor | None) -> bool:
    return value is not None and value.requires_grad
