"""The registry of ops by name: the built-in ones, and those of installed plugins."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TypeVar

from cnngraph.errors import CnngraphError, fail
from cnngraph.ops.op import Op

OPS: dict[str, type[Op]] = {}
ENTRY_POINT_GROUP = "cnngraph.ops"

OpType = TypeVar("OpType", bound=type[Op])
_loaded_plugins = False
_files: dict[Path, dict[str, type[Op]]] = {}
"""The files that were loaded, and the ops that each registered."""


def register(op: OpType) -> OpType:
    """Class decorator: makes an op available to specs under its `kind`.

    Another package can name the module with its ops in an entry point of the group `cnngraph.ops`;
    otherwise, import that module before reading a spec.

    Raises `CnngraphError` if the class is no valid op, or its `kind` is taken.
    """
    is_op = isinstance(op, type) and issubclass(op, Op)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_op or not isinstance(getattr(op, "kind", None), str):
        raise CnngraphError(
            f"{op!r} is not an op: derive it from `cnngraph.Op` and give it a `kind`"
        )
    if op.main is not None and op.main not in op.model_fields:
        raise CnngraphError(
            f"the op `{op.kind}` has `main = {op.main!r}`, which is none of its fields"
        )
    if not op.__pydantic_complete__:
        raise CnngraphError(
            f"the types of `{op.__name__}`'s fields cannot be resolved; "
            "import them at the top of its module"
        )
    known = OPS.get(op.kind)
    if known is not None and (known.__module__, known.__qualname__) != (
        op.__module__,
        op.__qualname__,
    ):
        raise CnngraphError(f"the op `{op.kind}` is already registered, by {known.__module__}")
    OPS[op.kind] = op
    return op


def load_plugin_file(path: Path, name: str | None = None) -> None:
    """Runs a Python file that registers ops, once. `name` stands for it in messages.

    Raises `SpecError` if that fails.
    """
    path = path.resolve()
    if path in _files:
        OPS.update(_files[path])
        return
    before = dict(OPS)
    module_name = f"cnngraph_plugin_{len(_files)}_{path.stem}"
    spec = spec_from_file_location(module_name, path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file (.py)")
        module = module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module_name, None)
        OPS.clear()
        OPS.update(before)
        raise fail("E115", f"the plugin {name or path} cannot be loaded: {error}") from error
    _files[path] = {kind: op for kind, op in OPS.items() if kind not in before}


def find_op(kind: str) -> type[Op] | None:
    """The op of that name, or None. Plugins are loaded only if the name is not built in."""
    if kind not in OPS:
        load_plugins()
    return OPS.get(kind)


def load_plugins() -> None:
    """Imports, once, the modules in the entry point group `cnngraph.ops` of installed packages.

    Raises `SpecError` at every call if one cannot be loaded.
    """
    global _loaded_plugins
    if _loaded_plugins:
        return
    for plugin in entry_points(group=ENTRY_POINT_GROUP):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:
            origin = plugin.dist.name if plugin.dist else plugin.value
            raise fail(
                "E115", f"the plugin `{plugin.name}` of {origin} cannot be loaded: {error}"
            ) from error
    _loaded_plugins = True
