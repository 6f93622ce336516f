"""Pickles of tensors and plain data, read by an unpickler that can call nothing else.

`torch.load(weights_only=True)` runs no code either, but a pickle can make it allocate any amount of
memory, return memory that was never written, or run for hours. This one makes its own objects only:
time and memory are proportional to the size of the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

MOST_OPCODES = 2_000_000
"""A step makes at most a small object: together they take a few hundred megabytes."""

MOST_BITS = 1024
"""Of an integer. The states of random generators have up to 128."""

MOST_DIMENSIONS = 64
MOST_ARGUMENTS = 16

_REFUSED_OPCODES = {
    "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4", "FROZENSET", "INST",
    "OBJ", "NEWOBJ_EX",
}  # fmt: skip

DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
}  # fmt: skip
"""The numbers that are loaded, by the name of their storage."""

_INERT = {
    "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout", "_codecs.encode", "builtins.set", "__builtin__.set",
    *(f"torch.{name}" for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)),
}  # fmt: skip


class UnsafeGlobal(Exception):
    """The pickle refers to a class or function, the text of this error, that is not allowed."""


@dataclass(frozen=True)
class RefusedTensor:
    """Stands for a tensor that is not a dense array of ordinary numbers.

    Attributes:
        kind: such as `sparse`.
    """

    kind: str


@dataclass(frozen=True)
class StorageType:
    """The class of a storage. `dtype` is None for numbers that are not loaded."""

    name: str
    dtype: torch.dtype | None


@dataclass(frozen=True)
class Storage:
    """The numbers of tensors: a flat tensor, or None if they are not loaded."""

    type: StorageType
    values: Tensor | None


class Ignored:
    """Stands for an object that is neither a tensor nor plain data, and has no use here."""

    def __init__(self, *arguments: object) -> None:
        pass


Load = Callable[[StorageType, str, int], Tensor]
"""Returns the numbers of a storage, from its class, its key and how many there are."""


def unpickle(data: bytes, load: Load, ignored: Collection[str] = ()) -> Any:
    """The object in `data`.

    Args:
        data: the pickle.
        load: reads a storage.
        ignored: classes whose objects are replaced by `Ignored`.

    Raises:
        UnsafeGlobal: the pickle contains another class or function.
        Exception: the pickle is damaged. Anything may be raised.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count >= MOST_OPCODES:
            raise pickle.UnpicklingError(f"its pickle has more than {MOST_OPCODES:,} steps")
        if opcode.name in _REFUSED_OPCODES:
            raise pickle.UnpicklingError(f"its pickle contains {opcode.name}")
        if isinstance(argument, int) and argument.bit_length() > MOST_BITS:
            raise pickle.UnpicklingError(f"it contains an integer of {argument.bit_length()} bits")
    return _Unpickler(data, load, frozenset(ignored)).load()


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: object
) -> Tensor | RefusedTensor:
    """Like torch._utils._rebuild_tensor_v2, for values within the storage that do not overlap."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    if len(size) > MOST_DIMENSIONS or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor has an invalid shape")
    if storage.values is None:
        return RefusedTensor(storage.type.name)
    numbers = [offset, *size, *stride]
    if not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise pickle.UnpicklingError("a tensor has an invalid shape")
    count, available = math.prod(size), storage.values.numel()
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (count > available or last >= available):
        raise pickle.UnpicklingError("a tensor is larger than its values")
    return storage.values.as_strided(size, stride, offset if count else 0)


def _rebuild_parameter(data: Any, *_: object) -> Any:
    return data


def _rebuild_subclass(function: Any, kind: object, arguments: Any, state: object) -> Any:
    if function not in (_rebuild_tensor, _rebuild_parameter):
        return RefusedTensor("special")
    return function(*arguments)


def _refuse(kind: str) -> Callable[..., RefusedTensor]:
    return lambda *_: RefusedTensor(kind)


def _dict(items: Any = None) -> Any:
    return {} if items is None else items


def _size(sizes: Any = ()) -> Any:
    return sizes


_CLASSES: dict[str, Any] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch._utils._rebuild_sparse_tensor": _refuse("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _refuse("sparse"),
    "torch._utils._rebuild_qtensor": _refuse("quantized"),
    "torch._utils._rebuild_nested_tensor": _refuse("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _refuse("meta"),
    "torch._utils._rebuild_wrapper_subclass": _refuse("special"),
    "torch._utils._rebuild_tensor_v3": _refuse("special"),
}


def _set(target: Any, key: Any, value: Any) -> None:
    """Sets an entry. Entries under keys that can be made to collide are left out."""
    if isinstance(target, Ignored):
        return
    if type(target) is not dict:
        raise pickle.UnpicklingError("an entry is set in something else than a dictionary")
    if isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 2**60):
        cast("dict[Any, Any]", target)[key] = value


_InPython: Any = pickle.__dict__["_Unpickler"]
"""The C class allocates whatever a pickle asks for."""


class _Unpickler(_InPython):
    def __init__(self, data: bytes, load: Load, ignored: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._load_storage = load
        self._ignored = ignored
        self._storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path in _CLASSES:
            return _CLASSES[path]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            kind = name.removesuffix("Storage")
            return StorageType(kind, DTYPES.get(kind))
        if path in _INERT or path in self._ignored:
            return Ignored
        raise UnsafeGlobal(path)

    def persistent_load(self, pid: Any) -> Storage:
        tag, kind, key, _, count = pid[:5]
        if tag != "storage" or not isinstance(kind, StorageType) or type(count) is not int:
            raise pickle.UnpicklingError("it refers to something else than a storage")
        key = str(key)[:100]
        if key not in self._storages:
            values = None if kind.dtype is None else self._load_storage(kind, key, count)
            self._storages[key] = Storage(kind, values)
        found = self._storages[key]
        if found.type != kind:
            raise pickle.UnpicklingError(f"the storage {key} has two types")
        return found

    dispatch: dict[int, Any] = dict(_InPython.dispatch)  # as in the base class

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        known = any(function is value for value in (Ignored, *_CLASSES.values()))
        if not known or len(arguments) > MOST_ARGUMENTS:
            raise pickle.UnpicklingError("it calls something else than a class")
        self.stack[-1] = function(*arguments)

    def load_newobj(self) -> None:
        del self.stack[-1]
        if self.stack[-1] is not Ignored:
            raise pickle.UnpicklingError("it makes an object of something else than a class")
        self.stack[-1] = Ignored()

    def load_build(self) -> None:
        self.stack.pop()  # attributes, such as the versions in a state dict

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], key, value)

    def load_setitems(self) -> None:
        self._set_all(self.pop_mark())

    def _set_all(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_all(items)

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Ignored):
            raise pickle.UnpicklingError("an item is added to something else than a list")

    def load_empty_set(self) -> None:
        self.append(Ignored())

    def load_additems(self) -> None:
        self.pop_mark()

    for _opcode, _method in (
        (pickle.REDUCE, load_reduce),
        (pickle.NEWOBJ, load_newobj),
        (pickle.BUILD, load_build),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.APPEND, load_append),
        (pickle.APPENDS, load_appends),
        (pickle.EMPTY_SET, load_empty_set),
        (pickle.ADDITEMS, load_additems),
    ):
        dispatch[_opcode[0]] = _method
