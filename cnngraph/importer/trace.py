"""`nn.Module` -> `torch.fx.Graph`, in which the shape of each value is known.

A module runs once on fake tensors, which have shapes but no values, and its calls of torch are
recorded. So a module may branch on shapes and types, take any arguments, and have hooks; a call
that changes a tensor in place gives all later calls the changed tensor.
"""

from __future__ import annotations

import inspect
import logging
import operator
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.fx.node import map_aggregate
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cnngraph.errors import CnngraphError, first_line
from cnngraph.importer.steps import UnsupportedError


class Length(int):
    """A size of a tensor; it remembers which tensor and axis it comes from."""

    node: fx.Node
    axis: int


class _Recorder(TorchFunctionMode):
    """Records the calls of torch on tensors that depend on inputs or parameters.

    Attributes:
        graph: the calls; `meta` of a node has its `value`, its `place` in the source, and the
            `calls` of modules around it: `path@1` for a second call -> path.
        failed: the path of the innermost module that could not be traced.
    """

    def __init__(self, root: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.failed = ""
        self._root = root
        self._is_leaf = is_leaf
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._parameters = {id(each): name for name, each in root.named_parameters()}
        self._buffers = {id(each): name for name, each in root.named_buffers()}
        self._nodes: dict[int, fx.Node] = {}
        self._sharing: defaultdict[int, list[Tensor]] = defaultdict(list)
        self._calls: dict[str, str] = {}
        self._counts = Counter[str]()
        self._inside = False

    def run(self, inputs: Mapping[str, Tensor]) -> None:
        """Records the module's `forward` of these inputs."""
        given = {name: self._placeholder(name, tensor) for name, tensor in inputs.items()}
        with self._watched_modules(), torch.no_grad(), self:
            result = _forward(self._root, given)
        self.graph.output(map_aggregate(result, self._argument))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside or not any(map(self._depends, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        name = func.__name__
        is_property = name in ("__get__", "__set__")
        if is_property:
            name = func.__self__.__name__
        if func.__name__ == "__set__":
            raise _CannotTrace(f"it sets `{name}` of a tensor")
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place and args and id(args[0]) in self._parameters:
            raise _CannotTrace(f"`{name}` changes a parameter")
        if name in ("shape", "size") and id(args[0]) in self._nodes:
            shape = self._lengths(args[0])
            axis = kwargs.get("dim", *args[1:])
            return shape if axis is None else shape[axis]
        if name == "__getitem__":
            return self._record("call_function", operator.getitem, func, args, kwargs)
        if is_property or getattr(Tensor, name, None) is func:
            return self._record("call_method", name, func, args, kwargs)
        return self._record("call_function", func, func, args, kwargs)

    @contextmanager
    def _watched_modules(self) -> Generator[None]:
        """All submodules run by `_call` meanwhile."""
        with ExitStack() as stack:
            for path, module in self._root.named_modules():
                if path and not isinstance(module, torch.jit.ScriptModule):
                    call = partial(self._call, path, module, module.forward)
                    stack.enter_context(patch.object(module, "forward", call))
            yield

    def _call(
        self, path: str, module: nn.Module, forward: Any, /, *args: Any, **kwargs: Any
    ) -> Any:
        """The `forward` of a submodule; that of a leaf is one node."""
        if self._inside:
            return forward(*args, **kwargs)
        count = self._counts[path]
        self._counts[path] += 1
        call = f"{path}@{count}" if count else path
        self._calls[call] = path
        try:
            if self._is_leaf(module):
                return self._record("call_module", path, forward, args, kwargs)
            return forward(*args, **kwargs)
        except Exception:
            self.failed = self.failed or path
            raise
        finally:
            self._calls.pop(call)

    def _record(self, kind: str, target: Any, function: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call, which becomes a node if there are tensors in it."""
        self._inside = True
        try:
            arguments: Any = map_aggregate((args, kwargs), self._argument)
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
            versions = [tensor._version for tensor in tensors]
            with self._fake:
                if self._is_batch_norm(kind, target):
                    value = torch.empty_like(tensors[0])  # statistics take fake tensors long
                else:
                    value = function(*args, **kwargs)
                old = zip(tensors, versions, strict=True)
                changed = [tensor for tensor, version in old if tensor._version != version]
                if any(tensor is not value for tensor in changed):
                    name = getattr(target, "__name__", target)
                    raise _CannotTrace(f"`{name}` changes a tensor in place")
                if not changed and any(value is tensor for tensor in tensors):
                    value = value.detach()  # the same tensor, as another value
            if not any(isinstance(each, Tensor) for each in tree_leaves(value)):
                return value
            if changed:
                self._forget_views(value)
            self._add(value, self.graph.create_node(kind, target, *arguments))
            return value
        finally:
            self._inside = False

    def _is_batch_norm(self, kind: str, target: Any) -> bool:
        if kind == "call_module":
            return isinstance(self._root.get_submodule(target), _BatchNorm)
        return target in (functional.batch_norm, torch.batch_norm)

    def _add(self, value: Any, node: fx.Node) -> None:
        """Knows from now on that `node` computes a tensor or several, and where it is."""
        node.meta.update(value=value, place=_place_of_call(), calls=dict(self._calls))
        if isinstance(value, Tensor):
            self._nodes[id(value)] = node
            self._sharing[value.untyped_storage()._cdata].append(value)  # keeps it alive
        elif isinstance(value, tuple | list):
            for index, item in enumerate(value):
                self._add(item, self.graph.call_function(operator.getitem, (node, index)))

    def _forget_views(self, value: Tensor) -> None:
        """Other tensors with the memory of one that was changed in place have other values now."""
        for tensor in self._sharing[value.untyped_storage()._cdata]:
            if tensor is not value:
                self._nodes.pop(id(tensor), None)

    def _placeholder(self, name: str, tensor: Tensor) -> Tensor:
        fake = self._fake.from_tensor(tensor)
        self._add(fake, self.graph.placeholder(name))
        return fake

    def _depends(self, each: Any) -> bool:
        """Whether an argument depends on inputs or parameters."""
        return isinstance(each, FakeTensor) or id(each) in self._parameters

    def _argument(self, each: Any) -> Any:
        """An argument of a call in the graph: the node of a tensor, anything else unchanged."""
        if not isinstance(each, Tensor) or id(each) in self._nodes:
            return self._nodes.get(id(each), each)
        if isinstance(each, FakeTensor):
            raise _CannotTrace("it uses another view of a tensor that was changed in place")
        name = self._parameters.get(id(each)) or self._buffers.get(id(each))
        if name is None and isinstance(each, nn.Parameter):
            raise _CannotTrace("it uses a parameter that is not one of its own")
        if name is None:
            name = f"_constant_{len(self._buffers)}"
            self._root.register_buffer(name, each, persistent=False)
            self._buffers[id(each)] = name
        node = self.graph.get_attr(name)
        node.meta["value"] = each
        if not self._depends(each):
            return node
        self._add(each, node)
        return node

    def _lengths(self, tensor: Tensor) -> torch.Size:
        lengths = [Length(size) for size in tensor.size()]
        for axis, length in enumerate(lengths):
            length.node, length.axis = self._nodes[id(tensor)], axis
        return torch.Size(lengths)


class _CannotTrace(Exception):
    """Something in a module that cannot be recorded."""


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
        CnngraphError: it does not run with these inputs at all.
    """
    recorder = _Recorder(module, is_leaf)
    try:
        with patch.object(_torch_log, "disabled", True):
            recorder.run(inputs)
    except Exception as error:
        if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
            said = "it reads the values of a tensor"
        else:
            _require_that_it_runs(module, inputs)
            said = first_line(error)
        message = f"{place_of(error)}the module cannot be traced: {said}"
        raise UnsupportedError(message, recorder.failed) from error
    return recorder.graph


_torch_log = logging.getLogger(FakeTensorMode.__module__)
"""Where torch reports each error of a shape with its traceback."""


def _forward(module: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    kinds = {each.kind for each in inspect.signature(module.forward).parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return module(*inputs.values())
    return module(**inputs)


def _require_that_it_runs(module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Raises `CnngraphError` if the module fails for these inputs without being traced."""
    try:
        with torch.no_grad():
            _forward(module, inputs)
    except Exception as error:
        shapes = " and ".join(str([*tensor.shape]) for tensor in inputs.values())
        raise CnngraphError(
            f"{place_of(error)}the module does not run with {shapes}: {first_line(error)}"
        ) from error


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


_STANDARD_LIBRARY = str(Path(inspect.__file__).parent)


def is_source(file: str) -> bool:
    """Whether a file is the module's own: not one of Python, torch or this package."""
    if file.startswith(_STANDARD_LIBRARY) and "-packages/" not in file:
        return False
    return "/torch/" not in file and "/cnngraph/importer/" not in file
