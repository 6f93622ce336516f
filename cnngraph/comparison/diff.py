"""`diff`: what changes from one network to another, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnngraph.checker import SpecLike, given_params, read_spec, spec_name
from cnngraph.comparison.diff_report import diff_html, diff_text
from cnngraph.comparison.difference import Difference
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError, show


class Diff(Difference):
    """What differs between two networks; a notebook displays it as tables."""

    def __repr__(self) -> str:
        return f"<Diff of {' and '.join(self.names)}: {len(self.changes):,} layers differ>"

    def __str__(self) -> str:
        return diff_text(self)

    def _repr_html_(self) -> str:
        return diff_html(self)


def diff(
    old: SpecLike,
    new: SpecLike | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    allow_code: bool = False,
) -> Diff:
    """Compares two networks layer by layer, after expansion.

    Args:
        old: the first spec, as in `cnngraph.check`.
        new: the second spec; if left out, the first one with `params`, compared with its defaults.
        params: values for the `params` of the specs.
        allow_code: as in `cnngraph.check`.

    Returns:
        The layers that were added, removed or changed, what that costs, and which weights of the
        old network the new one can load; `print` it.

    Raises:
        SpecError: a spec is invalid.
        CnngraphError: there is only one spec, and no params for it.
    """
    given = given_params(params)
    if new is None and not given:
        raise CnngraphError("there is nothing to compare: give a second spec, or params")
    first = elaborate_or_raise(read_spec(old, allow_code), {} if new is None else given)
    second = elaborate_or_raise(read_spec(old if new is None else new, allow_code), given)
    return Diff(_names(old, new, given), first, second)


def _names(old: SpecLike, new: SpecLike | None, params: Mapping[str, Any]) -> tuple[str, str]:
    name = spec_name(old)
    if new is not None:
        return name, spec_name(new)
    given = ", ".join(f"{key}={show(value)}" for key, value in params.items())
    return name, f"{name} with {given}"
