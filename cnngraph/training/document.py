"""Files of YAML that are validated like specs: recipes and experiments, shipped or one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from cnngraph.errors import CnngraphError, Diagnostic, Source, SpecError, closest
from cnngraph.spec.arguments import InvalidError, validate
from cnngraph.spec.yaml import Located, read_source


class StrictModel(BaseModel):
    """A part of a document: immutable, without conversions of types, without unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Model = TypeVar("Model", bound=StrictModel)


def shipped_in(folder: Path) -> dict[str, Path]:
    """Name -> file of the documents in a folder of the package."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_document(name: str | Path, folder: Path, kind: str) -> Path:
    """The path of a document, given by its path or by the name of one in a folder of the package.

    Raises `CnngraphError`, with the nearest name, if there is no such `kind` of document.
    """
    path, known = Path(name), shipped_in(folder)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    if str(name) in known:
        return known[str(name)]
    near = closest(str(name), known)
    hint = f"did you mean `{near}`?" if near else f"there are: {', '.join(known)}"
    raise CnngraphError(f"there is no {kind} `{name}`; {hint}")


def read_document(path: Path, folder: Path) -> Source:
    """The text of a document; one in the folder of the package is shown by its name alone."""
    return read_source(path, path.name if path.parent == folder else str(path))


def validated(
    model: type[Model],
    found: Located,
    what: str,
    contradictions: Callable[[Model, Located], Iterable[Diagnostic]],
) -> Model:
    """The document as a model. Raises `SpecError` with every mistake, contradictions included."""
    diagnostics: list[Diagnostic] = []
    with suppress(InvalidError):  # every mistake has been reported
        made = validate(
            model,
            found.entries,
            found.keys,
            what=what,
            position=found.position,
            resolve=lambda item: item.plain(),
            report=diagnostics.append,
        )
        diagnostics += contradictions(made, found)
        if not diagnostics:
            return made
    raise SpecError(diagnostics)


def require_mapping(found: Located, what: str) -> None:
    """Raises `SpecError` if a document is not a mapping."""
    if not isinstance(found.value, dict):
        raise SpecError([Diagnostic("E103", f"{what} must be a mapping", found.position)])
