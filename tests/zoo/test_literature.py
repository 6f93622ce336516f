"""Published figures: the specs give the computed ones, and every difference is explained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SPECS

import cnngraph
from cnngraph.shape import TensorShape
from cnngraph.zoo.literature import Claim, claims
from cnngraph.zoo.literature_report import deviation, figure

CLAIMS = claims(SPECS)


def found(topic: str, quantity: str) -> float | TensorShape:
    (claim,) = (
        claim for claim in CLAIMS if claim.topic.startswith(topic) and claim.quantity == quantity
    )
    return claim.found


def test_the_first_inception_block_against_one_convolution() -> None:
    """The block has 64 + (96, 128) + (16, 32) + 32 channels and a 5x5 in its third branch."""
    weights = 192 * 64 + 192 * 96 + 96 * 128 * 9 + 192 * 16 + 16 * 32 * 25 + 192 * 32
    norms = 2 * (64 + 96 + 128 + 16 + 32 + 32)
    topic = "The first Inception block"
    assert found(topic, "parameters of the block") == weights + norms == 164_064
    assert found(topic, "multiply-accumulates of the block") == weights * 28 * 28 == 128_049_152
    assert found(topic, "parameters of one 3x3") == 442_368
    assert found(topic, "multiply-accumulates of one 3x3") == 346_816_512
    assert found(topic, "parameters of one 5x5") == 1_228_800
    assert found(topic, "multiply-accumulates of one 5x5") == 963_379_200


def test_exact_figures_match() -> None:
    exact = [
        "Weights of the first dense layer",
        "A sequence of small kernels against a large one",
        "VGG-11's shapes",
    ]
    matching = [claim for claim in CLAIMS if claim.topic in exact]
    assert len(matching) == 3 + 6 + 6
    assert all(deviation(claim) == "-" for claim in matching)
    assert found("Weights", "VGG") == 102_760_448
    assert found("A sequence", "receptive field of 2 kernels of 3x3") == 5


def test_ratios_of_costs() -> None:
    assert found(
        "GoogLeNet against", "AlexNet's parameters per parameter of GoogLeNet"
    ) == pytest.approx(9.22, abs=0.01)
    assert found("From LeNet", "ratio of parameters") == pytest.approx(61_100_840 / 61_706)
    assert found("From LeNet", "ratio of multiply-accumulates") == pytest.approx(
        714_188_480 / 416_520
    )


def test_every_difference_above_four_percent_has_a_note() -> None:
    far = [claim for claim in CLAIMS if claim.off is not None and abs(claim.off) > 0.04]
    assert far
    assert all(claim.note for claim in far), [claim.quantity for claim in far if not claim.note]
    assert all(
        abs(claim.off) < 0.04 for claim in CLAIMS if claim.off is not None and not claim.note
    )


def test_claims_as_text() -> None:
    assert figure(102_760_448) == "102,760,448"
    assert figure(25 / 18) == "1.39"
    assert figure(TensorShape((64, 7, 7))) == "64x7x7"
    claim = Claim("t", "q", 110, 100, "s")
    assert (claim.off, deviation(claim)) == (pytest.approx(0.1), "+10.0%")
    other = Claim("t", "q", TensorShape((1,)), TensorShape((2,)), "s")
    assert deviation(other) == "+inf%"
    assert deviation(Claim("t", "q", None, 3, "s")) == ""


def test_a_folder_without_the_networks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(cnngraph.CnngraphError, match=r"it has no alexnet\.yaml"):
        claims(tmp_path)


def test_the_command_prints_all_claims_as_json() -> None:
    command = [sys.executable, "-m", "cnngraph", "literature", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)["claims"]
    assert [item["quantity"] for item in printed] == [claim.quantity for claim in CLAIMS]
    assert [item["found"] for item in printed][:3] == [claim.found for claim in CLAIMS][:3]
