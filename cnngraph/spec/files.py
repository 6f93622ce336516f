"""The files of a spec: which may be read, how many, and the mistakes found in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
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
)
from cnngraph.spec.arguments import InvalidError, Model, valid_part, validate
from cnngraph.spec.document import MAX_PATH, Document, written_fields
from cnngraph.spec.expressions import RESERVED
from cnngraph.spec.yaml import MAX_BYTES, MAX_VALUES, Located, parse_yaml, read_source

MAX_FILES = 100
"""A spec, what it extends and all imports are at most so many files."""

Reader = Callable[[Path, str], Source]
"""Reads the file at a path; the second argument is its name in messages."""


class StopError(SpecError):
    """A limit was reached, so that no further file is looked at."""


class Files:
    """Reads files and their documents, and collects mistakes, within the limits of a spec.

    Attributes:
        found: every file that was read, by absolute path.
        diagnostics: the mistakes found so far.
    """

    def __init__(self, main: Path, read: Reader | None) -> None:
        self._reach = main.parent.parent
        self._read = read or partial(read_source, reach=Path(os.path.realpath(main.parent)).parent)
        self.found: dict[Path, Source] = {}
        self._listed: dict[tuple[Path, Path], list[str]] = {}
        self._bytes = 0
        self._values = 0
        self.diagnostics: list[Diagnostic] = []

    def report(self, code: str, message: str, position: Position, notes: Notes = ()) -> None:
        """Keeps a mistake, as `record` does."""
        self.record(Diagnostic(code, message, position, notes=notes))

    def record(self, diagnostic: Diagnostic) -> None:
        """Keeps a mistake. Raises `StopError` when there are `MAX_MISTAKES`."""
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) >= MAX_MISTAKES:
            message = f"stopped after {MAX_MISTAKES} errors; the rest of the spec was not checked"
            self.diagnostics.append(Diagnostic("E110", message, diagnostic.position))
            raise StopError(self.diagnostics)

    def note_file(self, path: Path, source: Source, where: Position | None) -> None:
        """Counts a file that was read. Raises `StopError` if there are too many, or too large."""
        self.found[path] = source
        self._bytes += len(source.text)
        if len(self.found) > MAX_FILES:
            message = f"the spec consists of more than {MAX_FILES} files"
            raise StopError([*self.diagnostics, Diagnostic("E110", message, where)])
        if self._bytes > MAX_BYTES:
            message = f"the files of the spec have more than {MAX_BYTES:,} bytes together"
            raise StopError([*self.diagnostics, Diagnostic("E004", message, where)])

    def document(self, source: Source) -> tuple[Located, Document]:
        """The valid part of a document. Raises `SpecError` if it is none at all."""
        root = parse_yaml(source)
        self._values += root.size
        if self._values > MAX_VALUES:
            message = f"the files of the spec have more than {MAX_VALUES:,} values together"
            raise StopError([*self.diagnostics, Diagnostic("E004", message, root.position)])
        if not isinstance(root.value, dict):
            message = "a spec must be a mapping with `cnngraph`, `name`, `input` and `graph`"
            raise fail("E107", message, root.position)
        if not _SPEC_KEYS & root.keys.keys():
            raise SpecError([_not_a_spec(root)])
        if (stray := _outside_graph(root)) is not None:
            self.record(stray)
            root = _without_graph(root)
        root, document = self.validated(Document, root, "a spec", root.position, cnngraph=1)
        if document is None or ("cnngraph" in root.keys and "cnngraph" not in root.entries):
            raise SpecError(self.diagnostics)
        return root, document

    def validated(
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

    def target(self, path: Path, name: str, where: Position, code: str) -> Path:
        """The path of the file that another file refers to."""
        if len(name) > MAX_PATH:
            message = f"a path has at most {MAX_PATH:,} characters, but this has {len(name):,}"
            raise fail(code, message, where)
        target = Path(os.path.normpath(path.parent / name))
        if Path(name).is_absolute() or not target.is_relative_to(self._reach):
            rule = "a spec can read files in the folder above its own, by relative paths"
            message = f"`{name}` is out of reach: {rule}"
            raise fail(code, message, where)
        if target.suffix not in (".yaml", ".yml"):
            raise fail(code, f"`{name}` is not a .yaml file", where)
        return target

    def source(self, target: Path, path: Path, where: Position, code: str) -> Source:
        """The text of the file `target`, to which `path` refers at `where`."""
        relative = os.path.relpath(target, path.parent)
        shown = os.path.join(os.path.dirname(where.source.name), relative)
        try:
            return self._read(target, os.path.normpath(shown))
        except SpecError as error:
            notes = did_you_mean(relative, self._siblings(target.parent, path.parent))
            raise fail(code, error.diagnostics[0].message, where, notes=notes) from None

    def _siblings(self, folder: Path, start: Path) -> list[str]:
        """The YAML files in a folder, by their paths from `start`. Listed once."""
        if (folder, start) not in self._listed:
            files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
            self._listed[folder, start] = [os.path.relpath(file, start) for file in files]
        return self._listed[folder, start]

    def mapping(self, located: Located | None, what: str) -> dict[str, Located]:
        """The entries of a mapping; anything else is reported, and has none."""
        if located is None or located.value is None:
            return {}
        if not isinstance(located.value, dict):
            self.report("E103", f"`{what}` must be a mapping from names", located.position)
            return {}
        return located.value

    def check_param(self, name: str, position: Position) -> None:
        """Reports a name that no param can have."""
        if name in RESERVED or not name.isidentifier():
            why = "the name is reserved" if name in RESERVED else "this is not an identifier"
            self.report("E116", f"a param cannot be called `{name}`: {why}", position)


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
