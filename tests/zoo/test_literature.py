"""The claims of the literature: that the specs give what is printed, and that what is off says why."""

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
    (claim,) = (claim for claim in CLAIMS if claim.topic.startswith(topic) and claim.quantity == quantity)
    return claim.found


def test_the_first_inception_block_against_one_convolution() -> None:
    """The block is 64 + (96, 128) + (16, 32) + 32 channels wide and has a 5x5 in its third branch."""
    weights = 192 * 64 + 192 * 96 + 96 * 128 * 9 + 192 * 16 + 16 * 32 * 25 + 192 * 32
    norms = 2 * (64 + 96 + 128 + 16 + 32 + 32)
    topic = "The first Inception block"
    assert found(topic, "parameters of the block") == weights + norms == 164_064
    assert found(topic, "multiply-accumulates of the block") == weights * 28 * 28 == 128_049_152
    assert found(topic, "parameters of one 3x3") == 442_368
    assert found(topic, "multiply-accumulates of one 3x3") == 346_816_512
    assert found(topic, "parameters of one 5x5") == 1_228_800
    assert found(topic, "multiply-accumulates of one 5x5") == 963_379_200


def test_figures_that_are_exact() -> None:
    exact = ["Weights of the first dense layer", "Small kernels one after another against one large", "VGG-11's shapes"]
    held = [claim for claim in CLAIMS if claim.topic in exact]
    assert len(held) == 3 + 6 + 6
    assert all(deviation(claim) == "-" for claim in held)
    assert found("Weights", "VGG") == 102_760_448
    assert found("Small", "receptive field of 2 times 3x3") == 5


def test_ratios() -> None:
    assert found("GoogLeNet against", "AlexNet's parameters for one of GoogLeNet's") == pytest.approx(9.22, abs=0.01)
    assert found("From LeNet", "times the parameters") == pytest.approx(61_100_840 / 61_706)
    assert found("From LeNet", "times the multiply-accumulates") == pytest.approx(714_188_480 / 416_520)


def test_a_claim_that_is_off_says_why() -> None:
    far = [claim for claim in CLAIMS if claim.off is not None and abs(claim.off) > 0.04]
    assert far
    assert all(claim.note for claim in far), [claim.quantity for claim in far if not claim.note]
    assert all(abs(claim.off) < 0.04 for claim in CLAIMS if claim.off is not None and not claim.note)


def test_how_a_claim_is_told() -> None:
    assert figure(102_760_448) == "102,760,448"
    assert figure(25 / 18) == "1.39"
    assert figure(TensorShape((64, 7, 7))) == "64x7x7"
    claim = Claim("t", "q", 110, 100, "s")
    assert (claim.off, deviation(claim)) == (pytest.approx(0.1), "+10.0%")
    other = Claim("t", "q", TensorShape((1,)), TensorShape((2,)), "s")
    assert deviation(other) == "+inf%"
    assert deviation(Claim("t", "q", None, 3, "s")) == ""


def test_a_folder_without_the_networks(tmp_path: Path) -> None:
    with pytest.raises(cnngraph.CnngraphError, match=r"it has no alexnet\.yaml"):
        claims(tmp_path)


def test_the_command_gives_the_same_as_json() -> None:
    command = [sys.executable, "-m", "cnngraph", "literature", "--format", "json"]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)["claims"]
    assert [item["quantity"] for item in told] == [claim.quantity for claim in CLAIMS]
    assert [item["found"] for item in told][:3] == [claim.found for claim in CLAIMS][:3]
