"""`nn.Module` -> `torch.fx.Graph`, in which the shape of each value is known.

A module is traced with `torch.fx`. A proxy knows the shape of its tensor, so that a module may
branch on shapes. Nothing is computed: values are fake tensors.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.proxy import Proxy, TraceError
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from cnngraph.importer.steps import UnsupportedError


class Length(int):
    """A size of a tensor that is known; it remembers which tensor and axis it comes from."""

    node: fx.Node
    axis: int


class _Value(Proxy):
    """A proxy of a tensor, or of a tuple of tensors, with concrete shapes."""

    @property
    def _known(self) -> Any:
        return self.node.meta["value"]

    @property
    def shape(self) -> torch.Size:
        lengths: list[Length] = []
        for axis, size in enumerate(self._known.shape):
            length = Length(size)
            length.node, length.axis = self.node, axis
            lengths.append(length)
        return torch.Size(lengths)

    @property
    def ndim(self) -> int:
        return self._known.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self._known.dtype

    @property
    def device(self) -> torch.device:
        return self._known.device

    @property
    def is_cuda(self) -> bool:
        return self._known.is_cuda

    def dim(self) -> int:
        return self._known.dim()

    def numel(self) -> int:
        return self._known.numel()

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def is_floating_point(self) -> bool:
        return self._known.is_floating_point()

    def is_contiguous(self, **kwargs: Any) -> bool:
        return self._known.is_contiguous(**kwargs)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        each: Any = self
        return (each[index] for index in range(len(self)))


class _Tracer(fx.Tracer):
    """Traces into a module unless `is_leaf` is true of it."""

    def __init__(self, is_leaf: Callable[[nn.Module], bool], inputs: Mapping[str, Tensor]) -> None:
        super().__init__(param_shapes_constant=True)
        self._is_leaf = is_leaf
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._inputs = {name: self._mode.from_tensor(item) for name, item in inputs.items()}
        self._computes = False
        self.failed = ""
        """The path of the innermost module that could not be traced."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_leaf(m)

    def proxy(self, node: fx.Node) -> Proxy:
        return _Value(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._computes:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self._computes:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise

    def create_proxy(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> Any:
        proxy: Any = super().create_proxy(kind, target, *args, **kwargs)
        node: fx.Node = proxy.node
        node.meta["place"] = _place_of_call()
        if kind == "placeholder":
            node.meta["value"] = self._inputs.get(str(target))
        elif kind != "output":
            self._computes = True
            try:
                node.meta["value"] = value = self._compute(node)
            finally:
                self._computes = False
            if not isinstance(value, Tensor | tuple | list):
                return value  # a number or size, known from now on
        return proxy

    def _compute(self, node: fx.Node) -> Any:
        args: Any = fx.map_arg(node.args, self._value_of)
        kwargs = fx.map_arg(node.kwargs, self._value_of)
        target: Any = node.target
        if node.op == "get_attr":
            return self._value_of(node)
        if self._is_batch_norm(node):
            return args[0].detach()  # fake tensors take long to compute the statistics
        with self._mode, torch.no_grad():
            if node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            if node.op == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            return target(*args, **kwargs)

    def _is_batch_norm(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.root.get_submodule(str(node.target)), _BatchNorm)
        return node.target in (functional.batch_norm, torch.batch_norm)

    def _value_of(self, node: fx.Node) -> Any:
        if "value" not in node.meta:  # an attribute
            owner, _, name = str(node.target).rpartition(".")
            node.meta["value"] = getattr(self.root.get_submodule(owner), name)
        return node.meta["value"]


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], is_leaf: Callable[[nn.Module], bool]
) -> fx.Graph:
    """The graph of a module for these inputs; `meta["value"]` of a node is a fake tensor.

    Args:
        module: it is traced in its own mode, training or evaluation.
        inputs: its inputs by the names of the arguments of its `forward`.
        is_leaf: whether a submodule becomes a single node.

    Raises:
        UnsupportedError: the module cannot be traced; the message names the line of its source.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    others = {item.name: item.default for item in parameters if item.default is not item.empty}
    others = {name: value for name, value in others.items() if name not in inputs}
    tracer = _Tracer(is_leaf, inputs)
    try:
        with patch.object(torch.autograd.Function, "apply", classmethod(_apply)):
            return tracer.trace(module, concrete_args=others or None)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, TraceError) and "control flow" in said:
            said = "it branches on the values of a tensor"
        message = f"{place_of(error)}torch.fx cannot trace this module: {said}"
        raise UnsupportedError(message, tracer.failed) from error


_apply_function = torch.autograd.Function.apply.__func__  # pyright: ignore


class _Context:
    """Stands for the context of a function with its own backward, which is not traced."""

    def __getattr__(self, name: str) -> Any:
        return _ignore


def _ignore(*_: Any, **__: Any) -> None:
    pass


def _apply(function: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
    """`apply` of a function with its own backward, which calls its forward on proxies."""
    if not any(isinstance(each, Proxy) for each in (*args, *kwargs.values())):
        return _apply_function(function, *args, **kwargs)
    is_separate = function.setup_context is not torch.autograd.Function.setup_context
    return function.forward(*([] if is_separate else [_Context()]), *args, **kwargs)


def _place_of_call() -> str:
    """`file:line` of the innermost call outside of torch and of this package."""
    frame = sys._getframe(1)
    while frame is not None:
        if is_source(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def place_of(error: BaseException) -> str:
    """`file:line: ` of the last line outside of torch in a traceback, or an empty text."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_source(file) and file[0] != "<":
            found = f"{file}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return found


def is_source(file: str) -> bool:
    """Whether a file is the module's own, and neither torch's nor one of this package."""
    return "/torch/" not in file and "/cnngraph/importer/" not in file
