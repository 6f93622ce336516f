"""The arithmetic of a step, and the figures made of rounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SPECS

import cnngraph
from cnngraph.bench.arithmetic import TRAINING, flops_of, graph_of, macs_of
from cnngraph.bench.figures import Figure
from cnngraph.bench.variants import CONTENDERS, Work, always, peers

TINY = Path(__file__).parent / "tiny.yaml"


def test_flops_of_a_step() -> None:
    train = Work(str(TINY), {}, 2, (3, 32, 32))
    graph = graph_of(train)
    convolutions = 32 * 32 * 9 * 8 * (3 + 8 + 8)
    assert macs_of(graph, train) == convolutions + 8 * 5 + 8 * 5
    assert flops_of(100, train) == 2 * 2 * 100 * TRAINING
    evaluation = Work(str(TINY), {}, 2, (3, 32, 32), mode="eval")
    assert macs_of(graph, evaluation) == convolutions + 8 * 5
    assert flops_of(100, evaluation) == 2 * 2 * 100


def test_resnet50_at_other_sizes() -> None:
    path = str(SPECS / "resnet50.yaml")
    full = Work(path, {}, 16, (3, 224, 224))
    report = cnngraph.check(path)
    assert report.summary is not None
    assert macs_of(graph_of(full), full) == report.summary.training_macs
    half = Work(path, {}, 16, (3, 112, 112))
    assert 0.25 < macs_of(graph_of(half), half) / report.summary.training_macs < 0.3


def test_a_size_that_the_network_does_not_take() -> None:
    with pytest.raises(
        cnngraph.CnngraphError, match="lenet does not take 1x40x40: the weights of fc1 would need another"
    ):
        graph_of(Work(str(SPECS / "lenet.yaml"), {}, 1, (1, 40, 40)))
    with pytest.raises(cnngraph.CnngraphError, match="lenet does not take 1x4x4: .*too small"):
        graph_of(Work(str(SPECS / "lenet.yaml"), {}, 1, (1, 4, 4)))


def test_work_survives_json() -> None:
    import json

    work = Work(str(TINY), {"width": 4}, 2, (3, 32, 32), threads=1, device="cuda")
    assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work


def test_peers_are_checked() -> None:
    assert peers(None, "train") == ["lean", "eager", "eager-nchw", "tuned-malloc", "compile"]
    assert "onnxruntime" in peers(None, "eval")
    assert peers(["compile", "eager", "compile"], "train") == ["compile", "eager"]
    assert peers(["1.2GB", "lean"], "train") == ["1.2GB", "lean"]
    assert peers(["torchvision-memory-efficient"], "train") == ["torchvision-memory-efficient"]
    with pytest.raises(cnngraph.CnngraphError, match="there is no contender `eagre`; did you mean `eager`?"):
        peers(["eagre"], "train")
    with pytest.raises(cnngraph.CnngraphError, match="there are lean, inference, eager, eager-nchw"):
        peers(["caffe"], "train")


def test_a_gpu_has_peers_of_its_own() -> None:
    graphs = ["cnngraph-graph", "eager-graph"]
    assert always("cpu") == ["cnngraph", "default-malloc"]
    assert always("cuda") == ["cnngraph"]
    there = [*graphs[:1], "lean", "eager", "eager-nchw", *graphs[1:], "compile", "compile-max-autotune"]
    assert peers(None, "train", "cuda") == there
    for name, device, needed in [("tuned-malloc", "cuda", "cpu"), *((name, "cpu", "cuda") for name in graphs)]:
        with pytest.raises(cnngraph.CnngraphError, match=f"`{name}` needs --device {needed}"):
            peers([name], "train", device)
    about = CONTENDERS["cnngraph"].about_on
    assert about("cpu") == f"{about('cuda')}, memory settings"


def test_every_contender_can_be_built() -> None:
    from cnngraph.bench.network_step import BUILDERS

    assert BUILDERS.keys() == CONTENDERS.keys()


def test_figures() -> None:
    figure = Figure((4.0, 1.0, 2.0, 3.0, 10.0))
    assert (figure.median, figure.min, figure.quartiles, figure.iqr) == (3.0, 1.0, (2.0, 4.0), 2.0)
    assert Figure((2.0,)).iqr == 0
    # A machine that slows down for a while slows both sides of a round.
    assert Figure((2.0, 20.0, 2.0)).over(Figure((1.0, 10.0, 1.0))) == 2.0
