"""`nn.Module` -> `torch.fx.Graph`, in which the shape of each value is known.

A module is traced with `torch.fx`. A proxy knows the shape of its tensor, so that a module may
branch on shapes. Nothing is computed: values are fake tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.proxy import Proxy

from cnngraph.errors import CnngraphError


class _Value(Proxy):
    """A proxy of a tensor, or of a tuple of tensors, with concrete shapes."""

    @property
    def _known(self) -> Any:
        return self.node.meta["value"]

    @property
    def shape(self) -> torch.Size:
        return self._known.shape

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
        return self._known.size() if dim is None else self._known.size(dim)

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

    def __init__(self, is_leaf: Callable[[nn.Module], bool], input: Tensor) -> None:
        super().__init__(param_shapes_constant=True)
        self.record_stack_traces = True
        self._is_leaf = is_leaf
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._input = self._mode.from_tensor(input)
        self._computes = False

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
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> Any:
        proxy: Any = super().create_proxy(kind, target, *args, **kwargs)
        node: fx.Node = proxy.node
        if kind == "placeholder":
            node.meta["value"] = self._input
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
        args = fx.map_arg(node.args, self._value_of)
        kwargs = fx.map_arg(node.kwargs, self._value_of)
        target: Any = node.target
        if node.op == "get_attr":
            return self._value_of(node)
        with self._mode, torch.no_grad():
            if node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            if node.op == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            return target(*args, **kwargs)

    def _value_of(self, node: fx.Node) -> Any:
        if "value" not in node.meta:  # an attribute
            owner, _, name = str(node.target).rpartition(".")
            node.meta["value"] = getattr(self.root.get_submodule(owner), name)
        return node.meta["value"]


def trace(module: nn.Module, input: Tensor, is_leaf: Callable[[nn.Module], bool]) -> fx.Graph:
    """The graph of a module for one input; `meta["value"]` of a node is a fake tensor.

    Args:
        module: it is traced in its own mode, training or evaluation.
        input: its only input.
        is_leaf: whether a submodule becomes a single node.

    Raises:
        CnngraphError: the module cannot be traced; the message names the line of its source.
    """
    arguments = list(inspect.signature(module.forward).parameters.values())
    optional = {item.name: item.default for item in arguments[1:] if item.default is not item.empty}
    try:
        return _Tracer(is_leaf, input).trace(module, concrete_args=optional or None)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"{place_of(error)}torch.fx cannot trace this module: {said}"
        raise CnngraphError(message) from error


def place_of(error: BaseException) -> str:
    """`file:line: ` of the last line outside of torch in a traceback, or an empty text."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/torch/" not in file and "/cnngraph/importer/" not in file and file[0] != "<":
            found = f"{file}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return found
