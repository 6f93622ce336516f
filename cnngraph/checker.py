"""`check`: everything that can be known of a spec without torch and without building anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnngraph.elaborate import elaborate
from cnngraph.errors import CnngraphError, Source, SpecError
from cnngraph.graph.cost import summarize
from cnngraph.graph.input_sizes import input_sizes
from cnngraph.report.check import Report
from cnngraph.spec.loader import Spec, load_spec

SpecLike = str | os.PathLike[str]
"""The path of a spec, or, if it has more than one line, its text."""


def check(spec: SpecLike, params: Mapping[str, Any] | None = None) -> Report:
    """Checks a spec: its language, shapes, expected figures, and the input sizes it accepts.

    Args:
        spec: path of a YAML file, or the YAML text itself (anything with a line break).
        params: values for the spec's `params`; `expect` figures are held against the defaults only.

    Mistakes of the spec are returned in the report, never raised; `CnngraphError` says that what was given is no spec at all,
    or no params.
    """
    params = given_params(params)
    name = spec_name(spec)
    try:
        loaded = read_spec(spec)
        graph, diagnostics = elaborate(loaded, params)
    except SpecError as error:
        return Report(name, error.diagnostics)
    if graph is None:
        return Report(name, tuple(diagnostics))
    return Report(name, tuple(diagnostics), loaded, graph, summarize(graph), input_sizes(graph))


def given_params(params: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a caller gave as `params`; raises `CnngraphError` where it is no mapping from names."""
    if params is None:
        return {}
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise CnngraphError(
            f'`params` is a mapping such as {{"num_classes": 10}}, not {params!r:.60}'
        )
    return params


def read_spec(spec: SpecLike) -> Spec:
    """Loads a spec from a path or from its text. Raises `SpecError`."""
    if isinstance(spec, str) and "\n" in spec:
        return load_spec(Path("spec.yaml"), Source(spec_name(spec), spec))
    return load_spec(Path(spec_name(spec)))


def spec_name(spec: SpecLike) -> str:
    """What messages call a spec; raises `CnngraphError` for what can be none."""
    if not isinstance(spec, str | os.PathLike) or not os.fspath(spec):
        raise CnngraphError(f"a spec is given by its path, or by its text, not {spec!r:.60}")
    if isinstance(spec, str) and "{" in spec and "\n" not in spec and not os.path.exists(spec):
        raise CnngraphError(
            f"there is no file {spec!r:.60}; the text of a spec needs a line break in it"
        )
    return "<text>" if isinstance(spec, str) and "\n" in spec else os.fspath(spec)
