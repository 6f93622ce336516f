"""Experiments: the shipped ones, and what running one computes, writes and refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy
import pytest
import stripes
import torch
from typer.testing import CliRunner, Result

import cnngraph
from cnngraph.cli import app
from cnngraph.errors import CnngraphError, SpecError
from cnngraph.training.data.selection import select
from cnngraph.training.experiments import load_experiment, run_experiment, shipped
from cnngraph.training.recipe import load_recipe

EXPERIMENT = """
experiment: 1
name: rates
question: Which rate is better?
common:
  spec: tiny.yaml
  overrides: {epochs: 2, batch_size: 4, optimizer: {name: SGD, lr: 0.1}}
variants:
  first: {book: 0.5}
  from the first: {weights: first, train_per_class: 2}
  too high: {overrides: {optimizer.lr: 1.0e+30}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The experiment `rates.yaml`, its spec, and `stripes.npz`."""
    (tmp_path / "rates.yaml").write_text(EXPERIMENT)
    (tmp_path / "tiny.yaml").write_text(stripes.TINY)
    data = stripes.data(24, 9)
    numpy.savez(
        tmp_path / "stripes.npz",
        x_train=data.train.batch(range(24))[:, 0].numpy(),
        y_train=data.train.labels.numpy(),
        x_test=data.val.batch(range(9))[:, 0].numpy(),
        y_test=data.val.labels.numpy(),
    )
    return tmp_path


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def invalid(tmp_path: Path, text: str) -> str:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(SpecError) as error:
        load_experiment(tmp_path / "wrong.yaml")
    return str(error.value)


@pytest.mark.parametrize("name", shipped())
def test_shipped_experiments_are_valid(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    for variant in experiment.merged.values():
        assert variant.spec is not None
        report = cnngraph.check(variant.spec, variant.params)
        assert report.graph is not None, report
        recipe = load_recipe(variant.recipe, variant.overrides)
        recipe.require_network(report.graph.name)


def test_the_densenet_and_the_resnet_have_as_many_parameters() -> None:
    counts = []
    for variant in load_experiment("densenet_resnet").merged.values():
        assert variant.spec is not None
        net = cnngraph.compile(variant.spec, params=variant.params)
        counts.append(sum(value.numel() for value in net.parameters()))
    assert counts[0] == pytest.approx(counts[1], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_shipped_experiments_run_in_short_form(name: str, tmp_path: Path) -> None:
    found = run_experiment(name, output=tmp_path, short=True)
    assert [result.name for result in found.results] == list(found.experiment.variants)
    assert all(len(result.history) == 1 for result in found.results if result.diverged is None)


def test_an_experiment_compares_its_variants(folder: Path) -> None:
    found = run("experiment", folder / "rates.yaml", "--data", folder / "stripes.npz", "-o", folder / "out")  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "Which rate is better?" in found.stdout
    with (folder / "out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["first", "from the first", "too high"]
    assert [row["val accuracy"] == "diverged" for row in rows] == [False, False, True]
    assert [row["book (Fashion-MNIST)"] for row in rows] == ["0.500", "", ""]
    assert "| first | " in (folder / "out/results.md").read_text()
    assert (folder / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    # Continued, it repeats nothing.
    again = run("experiment", folder / "rates.yaml", "--data", folder / "stripes.npz", "-o", folder / "out", "--resume", "--quiet")  # fmt: skip
    with (folder / "out/results.csv").open() as file:
        assert list(csv.DictReader(file)) == rows
    assert "1/2" not in again.stdout
    for options, text in (
        ((), "already contains an experiment: --resume continues it"),
        (("--resume", "--epochs", "3"), "was run with another recipe"),
    ):
        refused = run("experiment", folder / "rates.yaml", "--data", folder / "stripes.npz", "-o", folder / "out", *options)  # fmt: skip
        assert refused.exit_code == 1
        assert text in refused.stderr


def test_a_variant_starts_from_the_weights_of_another(folder: Path) -> None:
    text = EXPERIMENT.replace("train_per_class: 2", "overrides: {freeze: [conv, bn]}")
    (folder / "rates.yaml").write_text(text.partition("  too high")[0])
    run_experiment(folder / "rates.yaml", data=folder / "stripes.npz", output=folder / "out")
    first, second = (
        cnngraph.load_compiled(folder / "out" / name / "last.ckpt").state_dict()
        for name in ("first", "from the first")
    )
    assert torch.equal(first["conv.weight"], second["conv.weight"])
    assert not torch.equal(first["fc.weight"], second["fc.weight"])


def test_a_selection_keeps_the_first_images_of_its_classes() -> None:
    data = stripes.data(20, 9)
    part = select(data, [2, 0], train_per_class=3)
    assert part.classes == ("bottom", "top")
    assert part.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert part.val.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = data.train.batch([2, 5, 8, 0, 3, 6])
    assert torch.equal(part.train.batch(range(6)), expected)
    assert part.train.name(1) == "image 5"
    with pytest.raises(CnngraphError, match="stripes has no class 3: there are 3"):
        select(data, [3])


def test_mistakes_are_reported_with_their_lines(tmp_path: Path) -> None:
    found = invalid(tmp_path, EXPERIMENT.replace("book", "bok"))
    assert "wrong.yaml:9" in found
    assert "did you mean `book`?" in found
    found = invalid(tmp_path, EXPERIMENT.replace("weights: first", "weights: frist"))
    assert "`weights` must name a variant before `from the first`, not `frist`" in found
    assert "did you mean `first`?" in found
    found = invalid(tmp_path, EXPERIMENT.replace("  spec: tiny.yaml\n", ""))
    assert "`first` has no `spec`, and `common` has none either" in found


def test_an_unknown_experiment_names_the_nearest() -> None:
    refused = run("experiment", "degredation")
    assert refused.exit_code == 1
    assert "there is no experiment `degredation`; did you mean `degradation`?" in refused.stderr


def test_the_shipped_experiments_are_listed() -> None:
    listed = run("experiment").stdout
    for name in shipped():
        assert name in listed
