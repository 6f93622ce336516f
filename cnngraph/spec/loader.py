"""`imports` and `extends`: several files -> one spec with its blocks. Nothing is evaluated here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from cnngraph.errors import (
    MAX_MISTAKES,
    Diagnostic,
    Notes,
    Position,
    Source,
    SpecError,
    did_you_mean,
    fail,
    listing,
)
from cnngraph.ops import find_op, load_plugin_file
from cnngraph.spec.arguments import InvalidError, Model, valid_part, validate
from cnngraph.spec.document import (
    COMPOSITES,
    MAX_PATH,
    MAX_TEXT,
    PASS_PARAMS,
    BlockDefinition,
    Document,
    Expect,
    written_fields,
)
from cnngraph.spec.expressions import RESERVED
from cnngraph.spec.initial import Rules, Scheme
from cnngraph.spec.yaml import MAX_BYTES, MAX_VALUES, Located, parse_yaml, read_source

_OF_NETWORKS = ("input", "inputs", "outputs", "params", "graph", "expect")
"""The keys of networks that libraries do not have."""

MAX_FILES = 100
"""A spec, what it extends and all imports are at most so many files."""

Reader = Callable[[Path, str], Source]
"""Reads the file at a path; the second argument is its name in messages."""


@dataclass(frozen=True)
class Block:
    """A block as defined in a file.

    Attributes:
        params: name -> default as written.
        library: the blocks that its body can call.
        order: names of the children whose weights come first in the `state_dict`.
    """

    name: str
    params: dict[str, Located]
    body: Located
    position: Position
    library: Library
    order: Located | None = None

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The params without a default."""
        return tuple(name for name, default in self.params.items() if default.value is None)


@dataclass
class Library:
    """The blocks that a file can call: its own, and those it imports.

    Attributes:
        own: the blocks of the file itself.
        sources: the libraries that `blocks` contains the blocks of, by their file.
        broken: names of blocks whose definition has a mistake.
        complete: False if further blocks are unknown because of a mistake.
    """

    blocks: dict[str, Block] = field(default_factory=dict[str, Block])
    own: dict[str, Block] = field(default_factory=dict[str, Block], repr=False, compare=False)
    sources: dict[Path, Library] = field(
        default_factory=dict[Path, "Library"], repr=False, compare=False
    )
    broken: set[str] = field(default_factory=set[str])
    complete: bool = True


@dataclass(frozen=True)
class Reference:
    """Where a network was published: the title of the paper, the year, and an address."""

    paper: str | None
    year: int | None
    source: str | None


@dataclass(frozen=True)
class Spec:
    """One network, with everything it imports and extends.

    Attributes:
        position: of the whole document.
        input, inputs: the shape of the input, or a mapping from the names of inputs to theirs; one
            of the two, or neither if they are missing, which is then among the `mistakes`.
        graph: None if missing or unreadable, which is then among the `mistakes`.
        outputs: the values to return in place of the last node's, or None.
        params: name -> default as written; the values of a variant replace those of its base.
        declared: name -> default of the base, which determines the param's type.
        files: every file that was read, by absolute path.
        is_library: whether it has blocks only, and no network.
        init: how weights are initialised, where not by torch's defaults.
        allows_code: whether the user allows the spec to import Python code.
        mistakes: everything wrong with the files, apart from the graph.
    """

    name: str
    position: Position
    input: Located | None
    inputs: Located | None
    outputs: Located | None
    params: dict[str, Located]
    declared: dict[str, Located]
    graph: Located | None
    library: Library
    expect: Located | None
    expected: Expect | None
    reference: Reference
    files: dict[Path, Source]
    is_library: bool = False
    init: Rules = field(default_factory=dict[str, dict[str, Scheme]])
    allows_code: bool = False
    mistakes: tuple[Diagnostic, ...] = ()


ALLOW_CODE = (
    "if you trust this spec as you would trust a program, use `--allow-code`, or `allow_code=True` "
    "in Python"
)


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
    return replace(spec, allows_code=allow_code, mistakes=tuple(loader.diagnostics))


class _StopError(SpecError):
    """A limit was reached, so that no further file is looked at."""


class _Loader:
    def __init__(self, main: Path, read: Reader | None, allow_code: bool = False) -> None:
        self.allow_code = allow_code
        self.loads_plugins = read is None
        self.main = main
        self.reach = main.parent.parent
        self.read = read or partial(read_source, reach=Path(os.path.realpath(main.parent)).parent)
        self.files: dict[Path, Source] = {}
        self.libraries: dict[Path, Library] = {}
        self.unusable: set[Path] = set()
        self.siblings: dict[tuple[Path, Path], list[str]] = {}
        self.bytes = 0
        self.values = 0
        self.diagnostics: list[Diagnostic] = []

    def report(self, code: str, message: str, position: Position, notes: Notes = ()) -> None:
        self.record(Diagnostic(code, message, position, notes=notes))

    def record(self, diagnostic: Diagnostic) -> None:
        """Keeps a mistake. Raises `_StopError` when there are `MAX_MISTAKES`."""
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) >= MAX_MISTAKES:
            message = f"stopped after {MAX_MISTAKES} errors; the rest of the spec was not checked"
            self.diagnostics.append(Diagnostic("E110", message, diagnostic.position))
            raise _StopError(self.diagnostics)

    def note_file(self, path: Path, source: Source, where: Position | None) -> None:
        """Counts a file that was read. Raises `_StopError` if there are too many, or too large."""
        self.files[path] = source
        self.bytes += len(source.text)
        if len(self.files) > MAX_FILES:
            message = f"the spec consists of more than {MAX_FILES} files"
            raise _StopError([*self.diagnostics, Diagnostic("E110", message, where)])
        if self.bytes > MAX_BYTES:
            message = f"the files of the spec have more than {MAX_BYTES:,} bytes together"
            raise _StopError([*self.diagnostics, Diagnostic("E004", message, where)])

    def spec(
        self, path: Path, source: Source, chain: tuple[Path, ...], where: Position | None = None
    ) -> Spec:
        """The spec in a file. `chain` are the files that extend it, the last one at `where`."""
        self.note_file(path, source, where)
        root, document = self._document(source)
        if document.extends is not None:
            return self._variant(path, root, document, chain)
        return self._network(path, root, document)

    def _document(self, source: Source) -> tuple[Located, Document]:
        root = parse_yaml(source)
        self.values += root.size
        if self.values > MAX_VALUES:
            message = f"the files of the spec have more than {MAX_VALUES:,} values together"
            raise _StopError([*self.diagnostics, Diagnostic("E004", message, root.position)])
        if not isinstance(root.value, dict):
            message = "a spec must be a mapping with `cnngraph`, `name`, `input` and `graph`"
            raise fail("E107", message, root.position)
        if not _SPEC_KEYS & root.keys.keys():
            raise SpecError([_not_a_spec(root)])
        if (stray := _outside_graph(root)) is not None:
            self.record(stray)
            root = _without_graph(root)
        root, document = self._validated(Document, root, "a spec", root.position, cnngraph=1)
        if document is None or ("cnngraph" in root.keys and "cnngraph" not in root.entries):
            raise SpecError(self.diagnostics)
        return root, document

    def _validated(
        self, model: type[Model], located: Located, what: str, position: Position, **defaults: int
    ) -> tuple[Located, Model | None]:
        """The valid entries of a mapping and their model; mistakes in the others are reported."""
        try:
            return located, validate(
                model,
                located.entries,
                located.keys,
                what=what,
                position=position,
                resolve=Located.plain,
                report=self.record,
            )
        except InvalidError:
            return valid_part(model, located, **defaults)

    def _network(self, path: Path, root: Located, document: Document) -> Spec:
        keys = ("name", "inputs" if "inputs" in root.keys else "input", "graph")
        missing = [f"`{key}`" for key in keys if key not in root.keys]
        is_library = _is_library(root)
        if missing and not is_library:
            self.report("E102", f"a spec needs {listing(missing)}", root.position)
        library = self._library(path, root, document, chain=(path,))
        params = self._mapping(document.params, "params")
        for name in params:
            self._check_param(name, root.entries["params"].keys[name])
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
            files=self.files,
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
                self.report("E112", message, root.keys[key], notes)
        target = self._target(path, str(document.extends), where, code="E112")
        if target in (*chain, path):
            raise fail("E112", f"`{document.extends}` extends this spec, directly or not", where)
        source = self._source(target, path, where, "E112")
        base = self.spec(target, source, (*chain, path), where)
        if base.is_library:
            message = f"`{document.extends}` is a block library: there is no network to extend"
            self.report("E112", message, where)
            return replace(base, is_library=False)
        params = self._mapping(document.params, "params")
        unknown = [name for name in params if name not in base.params]
        for name in unknown[:MAX_MISTAKES]:
            position = root.entries["params"].keys.get(name, params[name].position)
            notes = did_you_mean(name, base.params)
            notes = notes or (("note", f"its params are: {', '.join(base.params) or 'none'}"),)
            self.report("E113", f"`{base.name}` has no param `{name}`", position, notes)
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
            self.report("E204", message, document.inputs.position)
            return None
        return document.inputs

    def _library(
        self, path: Path, root: Located, document: Document, chain: tuple[Path, ...]
    ) -> Library:
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
            except _StopError:
                raise
            except SpecError as error:
                for diagnostic in error.diagnostics:
                    if diagnostic not in self.diagnostics:
                        self.record(diagnostic)
                library.complete = False
                continue
            library.broken |= imported.broken
            library.complete = library.complete and imported.complete
            for file, source in imported.sources.items():
                if file not in library.sources:
                    library.sources[file] = source
                    self._merge(library, source.own, imported, item.position)
        for name, definition in self._mapping(document.blocks, "blocks").items():
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
        if not document.plugins or not self.loads_plugins:
            return
        located = root.entries["plugins"]
        if not self.allow_code:
            message = "`plugins` runs Python files, which this check does not allow"
            self.report("E117", message, located.position, (("help", ALLOW_CODE),))
            return
        for index, name in enumerate(document.plugins):
            try:
                load_plugin_file(path.parent / name, name)
            except SpecError as error:
                (found,) = error.diagnostics
                self.report(found.code, found.message, located.at((index,)))

    def _import(self, path: Path, name: str, where: Position, chain: tuple[Path, ...]) -> Library:
        target = self._target(path, name, where, code="E111")
        if target in chain:
            raise fail("E111", f"`{name}` imports this file, directly or not", where)
        if target in self.libraries:
            return self.libraries[target]
        if target in self.unusable:
            raise SpecError([])  # reported where it was first imported
        self.unusable.add(target)
        source = self._source(target, path, where, "E111")
        self.note_file(target, source, where)
        root, document = self._document(source)
        for key in ("extends", *_OF_NETWORKS):
            if key in root.entries:
                message = f"`{name}` is imported, so it can contain blocks only, not `{key}`"
                notes = (("help", "move the blocks into a separate file and import that"),)
                self.report("E111", message, root.keys[key], notes)
        self.libraries[target] = self._library(target, root, document, (*chain, target))
        self.unusable.discard(target)
        return self.libraries[target]

    def _target(self, path: Path, name: str, where: Position, code: str) -> Path:
        """The path of the file that another file refers to."""
        if len(name) > MAX_PATH:
            message = f"a path has at most {MAX_PATH:,} characters, but this has {len(name):,}"
            raise fail(code, message, where)
        target = Path(os.path.normpath(path.parent / name))
        if Path(name).is_absolute() or not target.is_relative_to(self.reach):
            rule = "a spec can read files in the folder above its own, by relative paths"
            message = f"`{name}` is out of reach: {rule}"
            raise fail(code, message, where)
        if target.suffix not in (".yaml", ".yml"):
            raise fail(code, f"`{name}` is not a .yaml file", where)
        return target

    def _source(self, target: Path, path: Path, where: Position, code: str) -> Source:
        relative = os.path.relpath(target, path.parent)
        shown = os.path.join(os.path.dirname(where.source.name), relative)
        try:
            return self.read(target, os.path.normpath(shown))
        except SpecError as error:
            notes = did_you_mean(relative, self._siblings(target.parent, path.parent))
            raise fail(code, error.diagnostics[0].message, where, notes=notes) from None

    def _siblings(self, folder: Path, start: Path) -> list[str]:
        """The YAML files in a folder, by their paths from `start`. Listed once."""
        if (folder, start) not in self.siblings:
            files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
            self.siblings[folder, start] = [os.path.relpath(file, start) for file in files]
        return self.siblings[folder, start]

    def _mapping(self, located: Located | None, what: str) -> dict[str, Located]:
        if located is None or located.value is None:
            return {}
        if not isinstance(located.value, dict):
            self.report("E103", f"`{what}` must be a mapping from names", located.position)
            return {}
        return located.value

    def _check_param(self, name: str, position: Position) -> None:
        if name in RESERVED or not name.isidentifier():
            why = "the name is reserved" if name in RESERVED else "this is not an identifier"
            self.report("E116", f"a param cannot be called `{name}`: {why}", position)

    def _block(
        self, name: str, located: Located, position: Position, library: Library
    ) -> Block | None:
        if not name.isidentifier():
            message = f"a block cannot be called `{name}`: this is not an identifier"
            self.report("E116", message, position)
            return None
        if len(name) > MAX_TEXT:
            message = f"the name of a block has at most {MAX_TEXT} characters, not {len(name):,}"
            self.report("E116", message, position)
            return None
        if not isinstance(located.value, dict):
            message = f"the block `{name}` must be a mapping with `body`"
            self.report("E103", message, position)
            return None
        what = f"the block `{name}`"
        located, definition = self._validated(BlockDefinition, located, what, position)
        if definition is None:
            return None
        params = self._mapping(definition.params, "params")
        written: Located | None = definition.params
        if written is not None and not (written.value is None or isinstance(written.value, dict)):
            return None
        for param in params:
            assert written is not None
            self._check_param(param, written.keys[param])
            if param in ("name", "from", PASS_PARAMS):
                message = f"a param cannot be called `{param}`: every node takes `{param}`"
                self.report("E116", message, written.keys[param])
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
        self.report("E114", f"the block `{known.name}` is defined twice", position, notes)

    def _define(self, library: Library, block: Block, position: Position) -> None:
        known = library.blocks.get(block.name)
        if known is not None:
            self._report_twice(known, position)
        elif block.name in COMPOSITES or find_op(block.name) is not None:
            message = f"a block cannot be called `{block.name}`: it is the name of an op"
            self.report("E114", message, block.position)
        else:
            library.blocks[block.name] = library.own[block.name] = block


def _is_library(root: Located) -> bool:
    """Whether a file has blocks, and no other part of a network."""
    network = {"extends", *_OF_NETWORKS}
    return not network & root.keys.keys() and not {"blocks", "imports"}.isdisjoint(root.keys)


_SPEC_KEYS = {"cnngraph", "name", "input", "graph", "extends", "blocks", "imports", "params"}
"""A file without any of these keys is something else."""


def _not_a_spec(root: Located) -> Diagnostic:
    message = "this is not a spec: a spec has `cnngraph: 1`, `name`, `input` and `graph`"
    notes: Notes = ()
    if "backbone" in root.keys:
        help = "write each row of the backbone as a node, such as `- conv2d: {...}`, under `graph:`"
        notes = (("help", help),)
    return Diagnostic("E102", message, root.position, notes=notes)


def _outside_graph(root: Located) -> Diagnostic | None:
    """The diagnostic for nodes that are written next to an empty `graph:` and not inside."""
    if "graph" not in root.entries or root.entries["graph"].value is not None:
        return None
    stray = _stray(root)
    if not stray:
        return None
    message = f"`{stray[0]}` is outside of `graph`, which is empty"
    help = "write the nodes under `graph:` as a list, each with a dash: `- conv2d: {...}`"
    return Diagnostic("E107", message, root.keys[stray[0]], notes=(("help", help),))


def _stray(root: Located) -> list[str]:
    return [key for key in root.keys if key not in written_fields(Document)]


def _without_graph(root: Located) -> Located:
    """The document without an empty graph and the nodes next to it; the key remains."""
    ignored = {"graph", *_stray(root)}
    entries = {key: item for key, item in root.entries.items() if key not in ignored}
    return Located(entries, root.position, root.keys, root.size)
