"""`check` and `draw`: what can be said about a spec without torch and without building it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from cnngraph.elaborate import elaborate, elaborate_or_raise, not_a_network
from cnngraph.errors import CnngraphError, Source, SpecError, fail
from cnngraph.graph import INPUT
from cnngraph.report.check import Report
from cnngraph.spec.loader import load_spec
from cnngraph.spec.shipped import find_spec, similar_names
from cnngraph.spec.spec import Spec

if TYPE_CHECKING:
    from cnngraph.drawing import Drawing

SpecLike = str | os.PathLike[str]
"""A spec: its path, the name of a shipped one (`resnet50`), or its text of more than one line."""


InputLike = Sequence[int] | Mapping[str, Sequence[int]]
"""The shape of an input without the batch, or the shapes of several by name."""


def check(
    spec: SpecLike,
    params: Mapping[str, Any] | None = None,
    *,
    input: InputLike | None = None,
    allow_code: bool = False,
) -> Report:
    """Checks a spec: its syntax, shapes, expected figures, and the input sizes that it accepts.

    Args:
        spec: path of a YAML file, the name of a network in the zoo (`resnet50`), or the YAML text
            itself (any text with a line break). A file is preferred to a name.
        params: values for the spec's `params`. If any are given, the figures in `expect` are not
            checked, because they describe the network with default params.
        input: a shape such as `(3, 96, 96)` in place of the spec's `input`, or shapes by name in
            place of some of its `inputs`. `params` accepts it too, as `{"input": [3, 96, 96]}`.
        allow_code: allows the spec to import Python code, with `module` and `plugins`. Only for
            specs that you trust.

    Returns:
        A report on the network or the block library, or on every mistake in the spec; mistakes are
        not raised.

    Raises:
        CnngraphError: `spec` is not a path or text, or the keys of `params` are not names.
    """
    given = given_params(params, input)
    return _check(spec_name(spec), lambda: read_spec(spec, allow_code), given)


def check_source(
    source: Source, params: Mapping[str, Any] | None = None, *, allow_code: bool = False
) -> Report:
    """`check` for a text that has a name; what it imports is found from the current folder."""
    return _check(source.name, lambda: _load_text(source, allow_code), given_params(params))


def check_network(
    spec: SpecLike, params: Mapping[str, Any] | None = None, *, allow_code: bool = False
) -> Report:
    """`check`, where a block library is an error."""
    report = check(spec, params, allow_code=allow_code)
    if report.spec is None or not report.spec.is_library:
        return report
    return Report(report.name, (*report.diagnostics, not_a_network(report.spec)))


def _check(name: str, load: Callable[[], Spec], params: Mapping[str, Any]) -> Report:
    try:
        with _without_collector():
            loaded = load()
            graph, diagnostics = elaborate(loaded, params)
    except SpecError as error:
        return Report(name, error.diagnostics)
    if graph is None:
        return Report(name, tuple(diagnostics), loaded if loaded.is_library else None)
    return Report(name, tuple(diagnostics), loaded, graph)


_collector = Lock()
_checks = 0
_collects = False


@contextmanager
def _without_collector() -> Generator[None]:
    """Pauses Python's garbage collector while any thread checks a spec.

    A check makes many objects and little garbage: searching it takes up to half of the time.
    """
    global _checks, _collects
    with _collector:
        if not _checks:
            _collects = gc.isenabled()
            gc.disable()
        _checks += 1
    try:
        yield
    finally:
        with _collector:
            _checks -= 1
            if not _checks and _collects:
                if not gc.get_freeze_count():
                    gc.freeze()  # with `unfreeze`, what the check made counts as old, so that
                    gc.unfreeze()  # the next search for young garbage does not go through it
                gc.enable()


def draw(
    spec: SpecLike,
    params: Mapping[str, Any] | None = None,
    *,
    depth: int = 1,
    width: float = 180.0,
    dark: bool = False,
    fused: bool = False,
    allow_code: bool = False,
) -> Drawing:
    """Draws the network of a spec: folded, and each distinct block open once.

    Args:
        spec: as in `check`.
        params: values for the spec's `params`.
        depth: how many levels of blocks are opened in place; 1 folds every block.
        width: the width of the sheet in millimetres, at least 85.
        dark: light lines on dark paper.
        fused: shades what the fused backend computes as part of a fused operation.
        allow_code: as in `check`.

    Returns:
        A drawing, which a notebook displays; `save` writes it as .svg, .png, .pdf or .mmd.

    Raises:
        SpecError: the spec is invalid.
        CnngraphError: `depth` or `width` is too small.
    """
    from cnngraph.drawing import draw_graph

    graph = elaborate_or_raise(read_spec(spec, allow_code), given_params(params))
    return draw_graph(graph, depth=depth, width=width, dark=dark, fused=fused)


def given_params(
    params: Mapping[str, Any] | None, input: InputLike | None = None
) -> Mapping[str, Any]:
    """The `params` of a caller, and the shape of the input as one of them.

    Raises `CnngraphError` if they are not a mapping from names.
    """
    if input is not None:
        return {**given_params(params), INPUT: input}
    if params is None:
        return {}
    names: list[Any] = [*params] if isinstance(params, Mapping) else [None]  # pyright: ignore
    if not all(isinstance(name, str) for name in names):
        example = '{"num_classes": 10}'
        raise CnngraphError(f"`params` must be a mapping such as {example}, not {params!r:.60}")
    return params


def read_spec(spec: SpecLike, allow_code: bool = False) -> Spec:
    """Loads a spec from its path, name or text. Raises `SpecError`."""
    name = spec_name(spec)
    if isinstance(spec, str) and "\n" in spec:
        return _load_text(Source(name, spec), allow_code)
    path = find_spec(name)
    if not os.path.exists(path) and (notes := similar_names(name)):
        raise fail("E001", f"cannot read {name}: it does not exist", notes=notes)
    return load_spec(path, allow_code=allow_code)


def _load_text(source: Source, allow_code: bool) -> Spec:
    return load_spec(Path("spec.yaml"), source, allow_code=allow_code)


def spec_name(spec: SpecLike) -> str:
    """The name of a spec in messages. Raises `CnngraphError` if it is not a path or text."""
    if not isinstance(spec, str | os.PathLike) or not os.fspath(spec):  # pyright: ignore
        raise CnngraphError(f"a spec must be a path or the text of a spec, not {spec!r:.60}")
    if isinstance(spec, str) and "\n" in spec:
        return "<text>"
    if isinstance(spec, str) and "{" in spec and not os.path.exists(spec):
        raise CnngraphError(f"no such file: {spec!r:.60}; the text of a spec needs a line break")
    return os.fspath(spec)
