"""`imports` and `extends`: several files -> one spec, its block libraries attached. Nothing is evaluated here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cnngraph.errors import (
    MAX_MISTAKES,
    Diagnostic,
    Position,
    Source,
    SpecError,
    did_you_mean,
    fail,
    listing,
)
from cnngraph.ops import find_op
from cnngraph.spec.arguments import InvalidError, valid_part, validate
from cnngraph.spec.document import COMPOSITES, BlockDefinition, Document, Expect
from cnngraph.spec.expressions import RESERVED
from cnngraph.spec.yaml import Located, parse_yaml, read_source

Reader = Callable[[Path, str], Source]
"""Reads the file at a path; the second argument is the name to show to the user."""


@dataclass(frozen=True)
class Block:
    """A block and the library in whose sight its body is read.

    Attributes:
        order: the names of the children whose weights come first, whatever order they run in.
    """

    name: str
    params: dict[str, Located]
    body: Located
    position: Position
    library: Library
    order: Located | None = None


@dataclass
class Library:
    """The blocks that one file sees: its own and those it imports.

    Attributes:
        broken: names of blocks whose definition has a mistake.
        complete: whether all blocks are known that may be called.
    """

    blocks: dict[str, Block] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    complete: bool = True


@dataclass(frozen=True)
class Reference:
    """Where a network was published: the paper's title, the year, and an address."""

    paper: str | None
    year: int | None
    source: str | None


@dataclass(frozen=True)
class Spec:
    """One network, with everything it imports and extends.

    Attributes:
        position: of the whole document.
        params: name -> default as written; values of a variant take the place of its base's.
        declared: name -> the base's own default, which decides a parameter's type.
        input, graph: None where they are missing or cannot be read, which is among the `mistakes`.
        files: every file that was read, by absolute path.
        mistakes: what is wrong with the files, as far as one can tell without the graph.
    """

    name: str
    position: Position
    input: Located | None
    params: dict[str, Located]
    declared: dict[str, Located]
    graph: Located | None
    library: Library
    expect: Located | None
    expected: Expect | None
    reference: Reference
    files: dict[Path, Source]
    mistakes: tuple[Diagnostic, ...] = ()


def load_spec(path: Path, source: Source | None = None, read: Reader = read_source) -> Spec:
    """Reads the spec at `path` (from `source`, if it is given) with all it refers to.

    Raises `SpecError` where a file cannot be read at all; other mistakes are the spec's `mistakes`.
    """
    loader = _Loader(Path(os.path.normpath(path.absolute())), read)
    source = source or read(path, str(path))
    spec = loader.spec(loader.main, source, chain=())
    return replace(spec, mistakes=tuple(loader.diagnostics))


class _Loader:
    def __init__(self, main: Path, read: Reader) -> None:
        self.main = main
        self.reach = (main.parent.parent, Path(os.path.realpath(main.parent)).parent)
        self.read = read
        self.files: dict[Path, Source] = {}
        self.libraries: dict[Path, Library] = {}
        self.diagnostics: list[Diagnostic] = []

    def spec(self, path: Path, source: Source, chain: tuple[Path, ...]) -> Spec:
        self.files[path] = source
        root, document = self._document(source)
        if document.extends is not None:
            return self._variant(path, root, document, chain)
        return self._network(path, root, document)

    def _document(self, source: Source) -> tuple[Located, Document]:
        root = parse_yaml(source)
        if not isinstance(root.value, dict):
            raise fail(
                "E107",
                "a spec is a mapping with `cnngraph`, `name`, `input` and `graph`",
                root.position,
            )
        try:
            document = validate(
                Document, root.value, root.keys,
                what="a spec", position=root.position,
                resolve=Located.plain, report=self.diagnostics.append,
            )  # fmt: skip
        except InvalidError:
            root, document = valid_part(Document, root, cnngraph=1)
            if document is None or ("cnngraph" in root.keys and "cnngraph" not in root.value):
                raise SpecError(self.diagnostics) from None
        return root, document

    def _network(self, path: Path, root: Located, document: Document) -> Spec:
        missing = [key for key in ("name", "input", "graph") if key not in root.keys]
        if _is_library(root):
            self.diagnostics.append(_library_alone(root))
        elif missing:
            wanted = listing([f"`{key}`" for key in missing])
            self.diagnostics.append(Diagnostic("E102", f"a spec needs {wanted}", root.position))
        library = self._library(path, root, document, chain=(path,))
        params = self._mapping(document.params, "params")
        self._check_names(params, root)
        return Spec(
            name=document.name or "",
            position=root.position,
            input=document.input,
            params=params,
            declared=params,
            graph=document.graph,
            library=library,
            expect=root.value.get("expect"),
            expected=document.expect,
            reference=Reference(document.paper, document.year, document.source),
            files=self.files,
        )

    def _variant(
        self, path: Path, root: Located, document: Document, chain: tuple[Path, ...]
    ) -> Spec:
        where = root.value["extends"].position
        for key in ("imports", "blocks", "graph"):
            if key in root.value:
                self.diagnostics.append(
                    Diagnostic(
                        "E112",
                        f"a spec that extends another overrides its params; it has no `{key}` of its own",
                        root.keys[key],
                        notes=(("help", "turn what differs into a param of the base"),),
                    )
                )
        target = self._target(path, str(document.extends), where, code="E112")
        if target in (*chain, path):
            raise fail("E112", f"`{document.extends}` extends this spec in turn", where)
        base = self.spec(target, self._source(target, path, where, "E112"), (*chain, path))
        own = Reference(document.paper, document.year, document.source)
        params = self._mapping(document.params, "params")
        unknown = [(name, value) for name, value in params.items() if name not in base.params]
        for name, value in unknown[:MAX_MISTAKES]:
            self.diagnostics.append(
                Diagnostic(
                    "E113",
                    f"`{base.name}` has no param `{name}`",
                    root.value["params"].keys.get(name, value.position),
                    notes=did_you_mean(name, base.params)
                    or (("note", f"it has: {', '.join(base.params) or 'none'}"),),
                )
            )
        return replace(
            base,
            name=document.name or base.name,
            position=root.position,
            input=document.input or base.input,
            params={
                **base.params,
                **{name: value for name, value in params.items() if name in base.params},
            },
            expect=root.value.get("expect"),
            expected=document.expect,
            reference=base.reference if own == Reference(None, None, None) else own,
        )

    def _library(
        self, path: Path, root: Located, document: Document, chain: tuple[Path, ...]
    ) -> Library:
        library = Library(
            complete=all(key in root.value for key in ("imports", "blocks") if key in root.keys)
        )
        imports = root.value["imports"].value if "imports" in root.value else []
        for name, item in zip(document.imports, imports, strict=True):
            try:
                imported = self._import(path, name, item.position, chain)
            except SpecError as error:
                self.diagnostics += [
                    item for item in error.diagnostics if item not in self.diagnostics
                ]
                library.complete = False
                continue
            library.broken |= imported.broken
            library.complete = library.complete and imported.complete
            for block in imported.blocks.values():
                self._define(library, block, item.position)
        for name, definition in self._mapping(document.blocks, "blocks").items():
            position = document.blocks.keys[name]
            block = self._block(name, definition, position, library)
            if block is None:
                library.broken.add(name)
            else:
                self._define(library, block, position)
        return library

    def _import(self, path: Path, name: str, where: Position, chain: tuple[Path, ...]) -> Library:
        target = self._target(path, name, where, code="E111")
        if target in chain:
            raise fail("E111", f"`{name}` imports this file in turn", where)
        if target in self.libraries:
            return self.libraries[target]
        source = self._source(target, path, where, "E111")
        self.files[target] = source
        root, document = self._document(source)
        for key in ("extends", "input", "params", "graph", "expect"):
            if key in root.value:
                self.diagnostics.append(
                    Diagnostic(
                        "E111",
                        f"`{name}` is imported, so it holds blocks only, no `{key}`",
                        root.keys[key],
                        notes=(("help", "move the blocks into a file of their own and import that"),),
                    )
                )  # fmt: skip
        self.libraries[target] = self._library(target, root, document, (*chain, target))
        return self.libraries[target]

    def _target(self, path: Path, name: str, where: Position, code: str) -> Path:
        target = Path(os.path.normpath(path.parent / name))
        places = (target, Path(os.path.realpath(target)))
        inside = all(
            place.is_relative_to(reach) for place, reach in zip(places, self.reach, strict=True)
        )
        if Path(name).is_absolute() or not inside:
            raise fail(
                code,
                f"`{name}` is out of reach: a spec reads files below the folder above its own, by relative paths",
                where,
            )  # fmt: skip
        if target.suffix not in (".yaml", ".yml"):
            raise fail(code, f"`{name}` is not a .yaml file", where)
        return target

    def _source(self, target: Path, path: Path, where: Position, code: str) -> Source:
        shown = os.path.join(
            os.path.dirname(where.source.name), os.path.relpath(target, path.parent)
        )
        try:
            return self.read(target, os.path.normpath(shown))
        except SpecError as error:
            problem = error.diagnostics[0].message
            siblings = [os.path.relpath(p, path.parent) for p in _yaml_files(target.parent)]
            notes = did_you_mean(os.path.relpath(target, path.parent), siblings)
            raise fail(code, problem, where, notes=notes) from None

    def _mapping(self, located: Located | None, what: str) -> dict[str, Located]:
        if located is None or located.value is None:
            return {}
        if not isinstance(located.value, dict):
            self.diagnostics.append(
                Diagnostic("E103", f"`{what}` must be a mapping of names", located.position)
            )
            return {}
        return located.value

    def _check_names(self, params: dict[str, Located], root: Located) -> None:
        for name in params:
            self._check_name(name, root.value["params"].keys[name])

    def _check_name(self, name: str, position: Position) -> None:
        if name in RESERVED or not name.isidentifier():
            why = "has a meaning of its own in expressions" if name in RESERVED else "is not a name"
            self.diagnostics.append(
                Diagnostic("E116", f"a param cannot be called `{name}`: it {why}", position)
            )

    def _block(
        self, name: str, located: Located, position: Position, library: Library
    ) -> Block | None:
        if not name.isidentifier():
            self.diagnostics.append(
                Diagnostic("E116", f"a block cannot be called `{name}`", position)
            )
            return None
        if not isinstance(located.value, dict):
            self.diagnostics.append(
                Diagnostic("E103", f"the block `{name}` must be a mapping with `body`", position)
            )
            return None
        try:
            definition = validate(
                BlockDefinition, located.value, located.keys,
                what=f"the block `{name}`", position=position,
                resolve=Located.plain, report=self.diagnostics.append,
            )  # fmt: skip
        except InvalidError:
            located, definition = valid_part(BlockDefinition, located)
            if definition is None:
                return None
        params = self._mapping(definition.params, "params")
        written: Located | None = definition.params
        if written is not None and not isinstance(written.value, dict | None):
            return None
        for param in params:
            assert written is not None
            self._check_name(param, written.keys[param])
            if param == "name":
                message = "a param cannot be called `name`: every node has one"
                self.diagnostics.append(Diagnostic("E116", message, written.keys[param]))
        return Block(name, params, definition.body, position, library, located.value.get("order"))

    def _define(self, library: Library, block: Block, position: Position) -> None:
        known = library.blocks.get(block.name)
        if known is not None and known is not block:
            self.diagnostics.append(
                Diagnostic(
                    "E114",
                    f"the block `{block.name}` is defined twice",
                    position,
                    notes=(("note", f"the other definition is at {known.position}"),),
                )
            )
        elif block.name in COMPOSITES or find_op(block.name) is not None:
            self.diagnostics.append(
                Diagnostic(
                    "E114",
                    f"`{block.name}` is an op of the language; a block needs a name of its own",
                    block.position,
                )
            )
        else:
            library.blocks[block.name] = block


def _is_library(root: Located) -> bool:
    """Whether a file holds blocks, and nothing of a network."""
    network = {"extends", "input", "params", "graph", "expect"}
    return not network & root.keys.keys() and not {"blocks", "imports"}.isdisjoint(root.keys)


def _library_alone(root: Located) -> Diagnostic:
    file = root.position.source.name
    return Diagnostic(
        "E102",
        f"{file} is a block library: it has blocks, and no `input` and `graph` of a network",
        root.keys.get("blocks") or root.keys["imports"],
        notes=(
            (
                "help",
                f"a network takes its blocks by `imports: [{os.path.basename(file)}]`; check that one",
            ),
        ),
    )


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml")) if folder.is_dir() else []
