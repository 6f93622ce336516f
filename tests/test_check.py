"""`check` and its report, from Python."""

from __future__ import annotations

from pathlib import Path

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


def test_repr_of_a_report_shows_the_errors() -> None:
    report = cnngraph.check("cnngraph: 1\nname: net\ninput: [8]\ngraph:\n  - rleu\n  - linear\n")
    assert repr(report) == (
        "<Report of <text>: 2 errors\n"
        "  <text>:5:5: E104: there is no op or block `rleu`\n"
        "  <text>:6:5: E102: `linear` needs `out_features`>"
    )
    assert repr(cnngraph.check("missing.yaml")) == (
        "<Report of missing.yaml: 1 error\n  E001: cannot read missing.yaml: it does not exist>"
    )


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


def test_repr_of_results_is_short(tmp_path: Path) -> None:
    network = cnngraph.compile(LENET)
    assert repr(network.compilation) == "<Compilation of lenet: backend fused, memory fast>"
    file = tmp_path / "lenet.safetensors"
    cnngraph.save_weights(network, file)
    report = cnngraph.load_weights(network, file)
    assert repr(report) == f"<LoadReport of {file}: 10 of 10 tensors loaded>"
