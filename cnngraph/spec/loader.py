"""`imports` and `extends`: several files -> one spec with its blocks. Nothing is evaluated here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from cnngraph.errors import (
    MAX_MISTAKES,
    Position,
    Source,
    did_you_mean,
    fail,
    listing,
)
from cnngraph.spec.document import Document
from cnngraph.spec.files import Files, Reader
from cnngraph.spec.libraries import OF_NETWORKS, Libraries
from cnngraph.spec.spec import Reference, Spec
from cnngraph.spec.yaml import Located, read_source


def load_spec(
    path: Path,
    source: Source | None = None,
    read: Reader | None = None,
    allow_code: bool = False,
) -> Spec:
    """Reads the spec at `path`, and all files it refers to.

    Args:
        source: the text of the spec, if it is not to be read.
        read: reads a file in place of `read_source`; plugins are then not loaded.
        allow_code: load the plugins that the spec names, and allow it to import classes.

    Raises:
        SpecError: a file cannot be read at all. Other mistakes are in the spec's `mistakes`.
    """
    loader = _Loader(Path(os.path.normpath(path.absolute())), read, allow_code)
    spec = loader.spec(loader.main, source or (read or read_source)(path, str(path)), chain=())
    return replace(spec, allows_code=allow_code, mistakes=tuple(loader.files.diagnostics))


class _Loader:
    def __init__(self, main: Path, read: Reader | None, allow_code: bool) -> None:
        self.main = main
        self.files = Files(main, read)
        self.libraries = Libraries(self.files, allow_code, loads_plugins=read is None)

    def spec(
        self, path: Path, source: Source, chain: tuple[Path, ...], where: Position | None = None
    ) -> Spec:
        """The spec in a file. `chain` are the files that extend it, the last one at `where`."""
        self.files.note_file(path, source, where)
        root, document = self.files.document(source)
        if document.extends is not None:
            return self._variant(path, root, document, chain)
        return self._network(path, root, document)

    def _network(self, path: Path, root: Located, document: Document) -> Spec:
        keys = ("name", "inputs" if "inputs" in root.keys else "input", "graph")
        missing = [f"`{key}`" for key in keys if key not in root.keys]
        is_library = _is_library(root)
        if missing and not is_library:
            self.files.report("E102", f"a spec needs {listing(missing)}", root.position)
        library = self.libraries.of(path, root, document, chain=(path,))
        params = self.files.mapping(document.params, "params")
        for name in params:
            self.files.check_param(name, root.entries["params"].keys[name])
        return Spec(
            name=document.name or "",
            position=root.position,
            input=document.input,
            inputs=self._inputs(document),
            outputs=document.outputs,
            params=params,
            declared=params,
            graph=document.graph,
            library=library,
            expect=root.entries.get("expect"),
            expected=document.expect,
            reference=Reference(document.paper, document.year, document.source),
            files=self.files.found,
            init=document.init or {},
            is_library=is_library,
        )

    def _variant(
        self, path: Path, root: Located, document: Document, chain: tuple[Path, ...]
    ) -> Spec:
        where = root.entries["extends"].position
        for key in ("imports", "plugins", "blocks", "graph"):
            if key in root.entries:
                message = f"a spec that extends another cannot have its own `{key}`"
                notes = (("help", "make a param of the base for what differs"),)
                self.files.report("E112", message, root.keys[key], notes)
        target = self.files.target(path, str(document.extends), where, code="E112")
        if target in (*chain, path):
            raise fail("E112", f"`{document.extends}` extends this spec, directly or not", where)
        source = self.files.source(target, path, where, "E112")
        base = self.spec(target, source, (*chain, path), where)
        if base.is_library:
            message = f"`{document.extends}` is a block library: there is no network to extend"
            self.files.report("E112", message, where)
            return replace(base, is_library=False)
        params = self.files.mapping(document.params, "params")
        unknown = [name for name in params if name not in base.params]
        for name in unknown[:MAX_MISTAKES]:
            position = root.entries["params"].keys.get(name, params[name].position)
            notes = did_you_mean(name, base.params)
            notes = notes or (("note", f"its params are: {', '.join(base.params) or 'none'}"),)
            self.files.report("E113", f"`{base.name}` has no param `{name}`", position, notes)
        known = {name: value for name, value in params.items() if name in base.params}
        own = Reference(document.paper, document.year, document.source)
        return replace(
            base,
            name=document.name or base.name,
            position=root.position,
            input=document.input or (None if document.inputs else base.input),
            inputs=self._inputs(document) or (None if document.input else base.inputs),
            outputs=document.outputs or base.outputs,
            params={**base.params, **known},
            init=base.init if document.init is None else document.init,
            expect=root.entries.get("expect"),
            expected=document.expect,
            reference=base.reference if own == Reference(None, None, None) else own,
        )

    def _inputs(self, document: Document) -> Located | None:
        if document.input is not None and document.inputs is not None:
            message = "a spec has either `input` or `inputs`, not both"
            self.files.report("E204", message, document.inputs.position)
            return None
        return document.inputs


def _is_library(root: Located) -> bool:
    """Whether a file has blocks, and no other part of a network."""
    network = {"extends", *OF_NETWORKS}
    return not network & root.keys.keys() and not {"blocks", "imports"}.isdisjoint(root.keys)
