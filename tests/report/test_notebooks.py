"""What notebooks display."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import ROOT, SPECS

import cnngraph

LENET = SPECS / "lenet.yaml"


def test_a_compiled_network_displays_its_drawing_and_costs() -> None:
    html = cnngraph.compile(LENET)._repr_html_()
    assert "<svg" in html
    assert ">conv1</td>" in html
    assert "61,706" in html


def test_loaded_weights_display_what_was_loaded() -> None:
    net, source = cnngraph.compile(LENET), cnngraph.compile(LENET)
    weights = {key: value for key, value in source.state_dict().items() if "fc3" not in key}
    report = cnngraph.load_weights(net, weights, strict=False)
    html = report._repr_html_()
    assert "8 of 10 tensors loaded" in html
    assert ">new, not found in the file</td>" in html
    assert "fc3" in html


def test_a_finished_run_displays_its_epochs() -> None:
    if find_spec("lightning") is None:
        pytest.skip('lightning is not installed: pip install "cnngraph[train]"')
    from cnngraph.training import EpochResult, Run

    epochs = tuple(
        EpochResult(
            **{
                "epoch": epoch,
                "step": epoch * 10,
                "lr": 0.1,
                "train_loss": 1.0 / epoch,
                "train_accuracy": 0.5,
                "val_loss": 0.9,
                "val_accuracy": 0.61,
                "seconds": 2.5,
                "images_per_second": 100.0,
            }
        )
        for epoch in (1, 2)
    )
    html = Run(cnngraph.compile(LENET), epochs, 2, None)._repr_html_()
    assert ">2 (best)</td>" in html
    assert html.count(">61.00%</td>") == 2


def test_evaluations_and_predictions_display_classes_and_shares() -> None:
    if find_spec("lightning") is None:
        pytest.skip('lightning is not installed: pip install "cnngraph[train]"')
    import torch

    from cnngraph.training.evaluation import Evaluation
    from cnngraph.training.prediction import Prediction

    shares = torch.eye(3)[[0, 1, 1, 1]]
    found = Evaluation("pets", ("cat", "<dog>", "owl"), torch.tensor([0, 0, 1, 1]), shares, 0.25)
    html = found._repr_html_()
    assert "pets: 4 images, top-1 75.00%, top-5 100.00%, loss 0.2500" in html
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells[:4] == ["cat", "2", "50.00%", "&lt;dog&gt; (1)"]
    assert cells[8:] == ["owl", "0", "-", "-"]
    assert ">87.50%</td>" in Prediction("a.png", (("cat", 0.875),))._repr_html_()


def test_experiments_display_their_table() -> None:
    if find_spec("lightning") is None:
        pytest.skip('lightning is not installed: pip install "cnngraph[train]"')
    from cnngraph.training.experiments.experiment import load_experiment
    from cnngraph.training.experiments.results import Result, Results

    experiment = load_experiment("degradation")
    html = Results(experiment, "digits", (Result("plain", 10, (), None, "nan"),))._repr_html_()
    assert ">plain</td>" in html
    assert ">diverged</td>" in html


def test_a_wrong_spec_displays_its_diagnostics_without_a_traceback() -> None:
    with pytest.raises(cnngraph.SpecError) as error:
        cnngraph.compile("cnngraph: 1\nname: n\ninput: [3, 8, 8]\ngraph: [rleu]\n")
    lines = error.value._render_traceback_()
    assert lines[0] == "error[E104 unknown-op]: there is no op or block `rleu`"
    assert not [line for line in lines if "Traceback" in line]


CELLS = {
    "draw": "cnngraph.draw(LENET)",
    "check": "cnngraph.check(LENET)",
    "page": "cnngraph.report_page(LENET)",
    "compile": "cnngraph.compile(LENET)",
    "wrong": 'cnngraph.compile("cnngraph: 1\\nname: n\\ninput: [3, 8, 8]\\ngraph: [rleu]\\n")',
}


@pytest.mark.slow
def test_a_notebook_runs_and_displays_rich_results(monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient: Any = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook()
    first = nbformat.v4.new_code_cell(f"import cnngraph\nLENET = {str(LENET)!r}")
    notebook.cells = [first, *map(nbformat.v4.new_code_cell, CELLS.values())]
    nbclient.NotebookClient(notebook, allow_errors=True, timeout=300).execute()
    shown = {name: cell.outputs for name, cell in zip(CELLS, notebook.cells[1:], strict=True)}
    assert "image/svg+xml" in shown["draw"][0]["data"]
    for name in ("check", "page", "compile"):
        assert "text/html" in shown[name][0]["data"]
    assert shown["wrong"][0]["output_type"] == "error"
    assert "did you mean `relu`" in "\n".join(shown["wrong"][0]["traceback"])
    assert "in compile(" not in "\n".join(shown["wrong"][0]["traceback"])
