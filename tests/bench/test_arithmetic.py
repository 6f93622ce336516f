"""The arithmetic of a step, and the statistics of repeated measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SPECS

import cnngraph
from cnngraph.bench.arithmetic import TRAINING, flops_of, graph_of, macs_of
from cnngraph.bench.samples import Samples
from cnngraph.bench.variants import VARIANTS, Work, always, peers

TINY = Path(__file__).parent / "tiny.yaml"


def test_flops_of_training_and_evaluation_steps() -> None:
    train = Work(str(TINY), {}, 2, (3, 32, 32))
    graph = graph_of(train)
    convolutions = 32 * 32 * 9 * 8 * (3 + 8 + 8)
    assert macs_of(graph, train) == convolutions + 8 * 5 + 8 * 5
    assert flops_of(100, train) == 2 * 2 * 100 * TRAINING
    evaluation = Work(str(TINY), {}, 2, (3, 32, 32), mode="eval")
    assert macs_of(graph, evaluation) == convolutions + 8 * 5
    assert flops_of(100, evaluation) == 2 * 2 * 100


def test_flops_of_resnet50_scale_with_the_input_size() -> None:
    path = str(SPECS / "resnet50.yaml")
    full = Work(path, {}, 16, (3, 224, 224))
    report = cnngraph.check(path)
    assert report.summary is not None
    assert macs_of(graph_of(full), full) == report.summary.training_macs
    half = Work(path, {}, 16, (3, 112, 112))
    assert 0.25 < macs_of(graph_of(half), half) / report.summary.training_macs < 0.3


def test_an_input_size_that_the_network_does_not_accept_is_an_error() -> None:
    with pytest.raises(
        cnngraph.CnngraphError,
        match="lenet does not accept 1x40x40: the weights of fc1 would need another",
    ):
        graph_of(Work(str(SPECS / "lenet.yaml"), {}, 1, (1, 40, 40)))
    with pytest.raises(cnngraph.CnngraphError, match="lenet does not accept 1x4x4: .*too small"):
        graph_of(Work(str(SPECS / "lenet.yaml"), {}, 1, (1, 4, 4)))


def test_work_round_trips_through_json() -> None:
    import json

    work = Work(str(TINY), {"width": 4}, 2, (3, 32, 32), threads=1, device="cuda")
    assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work


def test_unknown_peers_are_errors() -> None:
    assert peers(None, "train") == ["lean", "eager", "eager-nchw", "tuned-malloc", "compile"]
    assert "onnxruntime" in peers(None, "eval")
    assert peers(["compile", "eager", "compile"], "train") == ["compile", "eager"]
    assert peers(["1.2GB", "lean"], "train") == ["1.2GB", "lean"]
    assert peers(["torchvision-memory-efficient"], "train") == ["torchvision-memory-efficient"]
    with pytest.raises(
        cnngraph.CnngraphError, match="there is no variant `eagre`; did you mean `eager`?"
    ):
        peers(["eagre"], "train")
    with pytest.raises(
        cnngraph.CnngraphError, match="choose from lean, inference, eager, eager-nchw"
    ):
        peers(["caffe"], "train")


def test_the_default_peers_depend_on_the_device() -> None:
    graphs = ["cnngraph-graph", "eager-graph"]
    assert always("cpu") == ["cnngraph", "default-malloc"]
    assert always("cuda") == ["cnngraph"]
    there = [
        *graphs[:1],
        "lean",
        "eager",
        "eager-nchw",
        *graphs[1:],
        "compile",
        "compile-max-autotune",
    ]
    assert peers(None, "train", "cuda") == there
    for name, device, needed in [
        ("tuned-malloc", "cuda", "cpu"),
        *((name, "cpu", "cuda") for name in graphs),
    ]:
        with pytest.raises(cnngraph.CnngraphError, match=f"`{name}` needs --device {needed}"):
            peers([name], "train", device)
    about = VARIANTS["cnngraph"].about_on
    assert about("cpu") == f"{about('cuda')}, memory settings"


def test_every_variant_has_a_builder() -> None:
    from cnngraph.bench.network_step import BUILDERS

    assert BUILDERS.keys() == VARIANTS.keys()


def test_median_minimum_and_quartiles_of_samples() -> None:
    samples = Samples((4.0, 1.0, 2.0, 3.0, 10.0))
    assert (samples.median, samples.min, samples.quartiles, samples.iqr) == (
        3.0,
        1.0,
        (2.0, 4.0),
        2.0,
    )
    assert Samples((2.0,)).iqr == 0
    assert Samples((2.0, 20.0, 2.0)).over(Samples((1.0, 10.0, 1.0))) == 2.0
