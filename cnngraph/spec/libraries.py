"""Libraries of blocks: those that a file defines, and those that it imports."""

from __future__ import annotations

from pathlib import Path

from cnngraph.errors import Position, SpecError, fail
from cnngraph.ops import find_op, load_plugin_file
from cnngraph.spec.document import (
    COMPOSITES,
    MAX_TEXT,
    PASS_PARAMS,
    BlockDefinition,
    Document,
)
from cnngraph.spec.files import Files, StopError
from cnngraph.spec.spec import ALLOW_CODE, Block, Library
from cnngraph.spec.yaml import Located

OF_NETWORKS = ("input", "inputs", "outputs", "params", "graph", "expect")
"""The keys of networks that libraries do not have."""


class Libraries:
    """Reads the blocks of files, each file once."""

    def __init__(self, files: Files, allow_code: bool, loads_plugins: bool) -> None:
        self._files = files
        self._allow_code = allow_code
        self._loads_plugins = loads_plugins
        self._libraries: dict[Path, Library] = {}
        self._unusable: set[Path] = set()

    def of(self, path: Path, root: Located, document: Document, chain: tuple[Path, ...]) -> Library:
        """The blocks that the file at `path` can call. `chain` are the files that import it."""
        self._load_plugins(path, root, document)
        readable = all(key in root.entries for key in ("imports", "blocks") if key in root.keys)
        library = Library(complete=readable)
        imports = root.entries["imports"].items if "imports" in root.entries else []
        seen: set[str] = set()
        for name, item in zip(document.imports, imports, strict=True):
            if name in seen:
                continue
            seen.add(name)
            try:
                imported = self._import(path, name, item.position, chain)
            except StopError:
                raise
            except SpecError as error:
                for diagnostic in error.diagnostics:
                    if diagnostic not in self._files.diagnostics:
                        self._files.record(diagnostic)
                library.complete = False
                continue
            library.broken |= imported.broken
            library.complete = library.complete and imported.complete
            for file, source in imported.sources.items():
                if file not in library.sources:
                    library.sources[file] = source
                    self._merge(library, source.own, imported, item.position)
        for name, definition in self._files.mapping(document.blocks, "blocks").items():
            position = document.blocks.keys[name]
            block = self._block(name, definition, position, library)
            if block is None:
                library.broken.add(name)
            else:
                self._define(library, block, position)
        library.sources[path] = library
        return library

    def _load_plugins(self, path: Path, root: Located, document: Document) -> None:
        """Runs the Python files in `plugins`, which register ops, if the user allows it."""
        if not document.plugins or not self._loads_plugins:
            return
        located = root.entries["plugins"]
        if not self._allow_code:
            message = "`plugins` runs Python files, which this check does not allow"
            self._files.report("E117", message, located.position, (("help", ALLOW_CODE),))
            return
        for index, name in enumerate(document.plugins):
            try:
                load_plugin_file(path.parent / name, name)
            except SpecError as error:
                (found,) = error.diagnostics
                self._files.report(found.code, found.message, located.at((index,)))

    def _import(self, path: Path, name: str, where: Position, chain: tuple[Path, ...]) -> Library:
        target = self._files.target(path, name, where, code="E111")
        if target in chain:
            raise fail("E111", f"`{name}` imports this file, directly or not", where)
        if target in self._libraries:
            return self._libraries[target]
        if target in self._unusable:
            raise SpecError([])  # reported where it was first imported
        self._unusable.add(target)
        source = self._files.source(target, path, where, "E111")
        self._files.note_file(target, source, where)
        root, document = self._files.document(source)
        for key in ("extends", *OF_NETWORKS):
            if key in root.entries:
                message = f"`{name}` is imported, so it can contain blocks only, not `{key}`"
                notes = (("help", "move the blocks into a separate file and import that"),)
                self._files.report("E111", message, root.keys[key], notes)
        self._libraries[target] = self.of(target, root, document, (*chain, target))
        self._unusable.discard(target)
        return self._libraries[target]

    def _block(
        self, name: str, located: Located, position: Position, library: Library
    ) -> Block | None:
        if not name.isidentifier():
            message = f"a block cannot be called `{name}`: this is not an identifier"
            self._files.report("E116", message, position)
            return None
        if len(name) > MAX_TEXT:
            message = f"the name of a block has at most {MAX_TEXT} characters, not {len(name):,}"
            self._files.report("E116", message, position)
            return None
        if not isinstance(located.value, dict):
            message = f"the block `{name}` must be a mapping with `body`"
            self._files.report("E103", message, position)
            return None
        what = f"the block `{name}`"
        located, definition = self._files.validated(BlockDefinition, located, what, position)
        if definition is None:
            return None
        params = self._files.mapping(definition.params, "params")
        written: Located | None = definition.params
        if written is not None and not (written.value is None or isinstance(written.value, dict)):
            return None
        for param in params:
            assert written is not None
            self._files.check_param(param, written.keys[param])
            if param in ("name", "from", PASS_PARAMS):
                message = f"a param cannot be called `{param}`: every node takes `{param}`"
                self._files.report("E116", message, written.keys[param])
        return Block(name, params, definition.body, position, library, located.entries.get("order"))

    def _merge(
        self, library: Library, blocks: dict[str, Block], imported: Library, position: Position
    ) -> None:
        """Adds the blocks of one file, which `imported` defines or imports itself."""
        if blocks.keys().isdisjoint(library.blocks.keys()):
            library.blocks.update(blocks)
            return
        for name, block in blocks.items():
            first = library.blocks.setdefault(name, block)
            if first is not block and imported.blocks[name] is block:  # else reported there
                self._report_twice(first, position)

    def _report_twice(self, known: Block, position: Position) -> None:
        notes = (("note", f"the other definition is at {known.position}"),)
        self._files.report("E114", f"the block `{known.name}` is defined twice", position, notes)

    def _define(self, library: Library, block: Block, position: Position) -> None:
        known = library.blocks.get(block.name)
        if known is not None:
            self._report_twice(known, position)
        elif block.name in COMPOSITES or find_op(block.name) is not None:
            message = f"a block cannot be called `{block.name}`: it is the name of an op"
            self._files.report("E114", message, block.position)
        else:
            library.blocks[block.name] = library.own[block.name] = block
