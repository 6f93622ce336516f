"""`check` and its report, from Python."""

from __future__ import annotations

import pytest
from conftest import SPECS

import cnngraph

LENET = SPECS / "lenet.yaml"


def test_repr_of_a_report_is_short() -> None:
    report = cnngraph.check(LENET)
    assert repr(report) == f"<Report of {LENET}: no errors>"
    assert repr(report.graph) == "<Graph lenet: 1x28x28 to fc3, 12 nodes>"
    assert len(repr(report.spec)) < 100_000
    assert [stage.path for stage in report.stages][:2] == ["conv1", "1"]


@pytest.mark.parametrize("params", ["hidden=3", [1], {1: 2}])
@pytest.mark.parametrize("function", [cnngraph.check, cnngraph.compile])
def test_params_must_be_a_mapping_from_names(function, params) -> None:
    with pytest.raises(cnngraph.CnngraphError, match="`params` must be a mapping such as"):
        function(LENET, params)


@pytest.mark.parametrize("function", [cnngraph.check, cnngraph.compile])
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "a spec must be a path or the text of a spec, not ''"),
        (b"x.yaml", "a spec must be a path"),
        ({"cnngraph": 1}, "a spec must be a path"),
        ("{cnngraph: 1, name: net}", "the text of a spec needs a line break"),
    ],
)
def test_a_spec_must_be_a_path_or_text(function, spec, message: str) -> None:
    with pytest.raises(cnngraph.CnngraphError, match=message):
        function(spec)
