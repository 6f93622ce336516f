"""What a compiled network offers besides `forward`: values inside it, and a new classifier."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from conftest import SPECS, every_target
from torch import Tensor, nn

import cnngraph

SMALL = """
cnngraph: 1
name: small
input: [3, 32, 32]
params: {num_classes: 5}
graph:
  - sequential:
      name: stem
      body:
        - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1}
        - batch_norm: {name: bn}
        - relu
  - max_pool2d: 2
  - parallel:
      name: mixed
      branches: [[conv2d: {out_channels: 4, kernel_size: 1}], [conv2d: {out_channels: 2, kernel_size: 1}, batch_norm, relu]]
  - aux: {name: side, body: [global_avg_pool2d, flatten, linear: {name: fc, out_features: "${num_classes}"}]}
  - conv2d: {name: last, out_channels: 8, kernel_size: 3, stride: 2, padding: 1}
  - global_avg_pool2d
  - flatten
  - dropout
  - linear: {name: fc, out_features: "${num_classes}"}
"""

TORCHVISION_STAGES = {
    "resnet18": ["2", "layer1", "layer2", "layer3", "layer4"],
    "googlenet": ["conv1", "conv3", "inception3b", "inception4e", "inception5b"],
    "densenet121": ["features.2", "features.transition1.conv", "features.transition2.conv", "features.transition3.conv", "1"],
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION_STAGES)
def test_feature_info_has_one_value_for_each_reduction(name: str) -> None:
    info = cnngraph.compile(SPECS / f"{name}.yaml").feature_info
    assert info.reduction() == [2, 4, 8, 16, 32]
    assert info.module_name() == TORCHVISION_STAGES[name]


@every_target
def test_feature_info_describes_the_outputs_of_a_network(
    target: dict[str, str],
) -> None:
    info = cnngraph.compile(SMALL).feature_info
    assert info.module_name() == ["stem", "mixed", "last"]
    network = cnngraph.compile(SMALL, outputs=info.module_name(), **target)
    values = network(torch.randn(2, 3, 32, 32))
    assert list(values) == info.module_name()
    assert [tuple(value.shape[1:]) for value in values.values()] == [item["shape"] for item in info]
    assert [value.shape[1] for value in values.values()] == info.channels()
    assert [32 // value.shape[2] for value in values.values()] == info.reduction() == [1, 2, 4]
    assert network.feature_info == info


def test_outputs_leave_out_what_they_do_not_need_and_keep_the_names() -> None:
    whole = cnngraph.compile(SMALL).eval()
    network = cnngraph.compile(SMALL, outputs=["mixed", "stem.bn"]).eval()
    assert {name.partition(".")[0] for name in network.state_dict()} == {"stem", "mixed"}
    network.load_state_dict({key: whole.state_dict()[key] for key in network.state_dict()})
    seen: dict[str, Tensor] = {}
    whole.stem.bn.register_forward_hook(lambda module, args, result: seen.update(bn=result))
    x = torch.randn(2, 3, 32, 32)
    whole(x)
    torch.testing.assert_close(network(x)["stem.bn"], seen["bn"])
    assert network.train()(x).keys() == {"mixed", "stem.bn"}  # no side heads


def test_outputs_survive_pickle_and_the_artifact(tmp_path) -> None:
    network = cnngraph.compile(SMALL, outputs=["mixed"]).eval()
    cnngraph.save_compiled(network, tmp_path / "net.pt")
    x = torch.randn(2, 3, 32, 32)
    for other in (
        pickle.loads(pickle.dumps(network)),
        cnngraph.load_compiled(tmp_path / "net.pt").eval(),
    ):
        torch.testing.assert_close(other(x)["mixed"], network(x)["mixed"])
        assert other.feature_info == network.feature_info


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["mixde"], "`small` has no value called `mixde`: did you mean `mixed`?"),
        (["side.fc"], "`side.fc` belongs to the side head `side`, which exists in training only"),
        ("mixed", '`outputs` is a list of names, such as ["layer2", "layer4"]'),
    ],
)
def test_unknown_outputs_are_named(outputs, message: str) -> None:
    with pytest.raises(cnngraph.CnngraphError) as caught:
        cnngraph.compile(SMALL, outputs=outputs)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "densenet121", "googlenet", "nin", "lenet", "d2l/mlp"]
)
def test_forward_features_ends_before_the_classifier(name: str) -> None:
    """What the rest of the network makes of it is the network's result."""
    network = cnngraph.compile(SPECS / f"{name}.yaml").eval()
    x = torch.randn(1, *network.compilation.graph.input)
    features = network.forward_features(x)
    expected = {"resnet18": (512, 7, 7), "vgg11": (512, 7, 7), "densenet121": (1024, 7, 7), "googlenet": (1024, 7, 7),
                "nin": (10, 5, 5), "lenet": (16, 5, 5), "d2l/mlp": (256,)}[name]  # fmt: skip
    assert tuple(features.shape[1:]) == expected
    if name == "resnet18":
        torch.testing.assert_close(network.fc(features.mean((2, 3))), network(x))
    if name == "d2l/mlp":
        assert (features >= 0).all()


def test_forward_features_follows_the_modules_of_the_network() -> None:
    network = cnngraph.compile(SMALL).eval()
    x = torch.randn(2, 3, 32, 32)
    before = network.forward_features(x)
    nn.init.zeros_(network.last.weight)
    nn.init.ones_(network.last.bias)
    assert (network.forward_features(x) == 1).all()
    network.last = nn.Identity()
    assert network.forward_features(x).shape[1] == 6
    assert before.shape[1] == 8
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other.forward_features(x), network.forward_features(x))


def test_a_new_classifier_leaves_all_other_weights() -> None:
    network = cnngraph.compile(SMALL).double()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.reset_classifier(9)
    results = network(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert {name: tuple(value.shape) for name, value in results.items()} == {
        "logits": (2, 9),
        "side": (2, 9),
    }
    after = network.state_dict()
    assert list(after) == list(before)
    changed = {key for key in before if before[key].shape != after[key].shape}
    assert changed == {"fc.weight", "fc.bias", "side.fc.weight", "side.fc.bias"}
    assert all(
        torch.equal(before[key], after[key])
        for key in before.keys() - changed
        if "num_batches" not in key and "running" not in key
    )
    assert all(parameter.dtype is torch.float64 for parameter in network.parameters())


def test_a_network_with_a_new_classifier_can_be_saved(tmp_path) -> None:
    network = cnngraph.compile(SMALL).eval()
    network.reset_classifier(9)
    cnngraph.save_compiled(network, tmp_path / "net.pt")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(cnngraph.load_compiled(tmp_path / "net.pt").eval()(x), network(x))


def test_a_classifier_that_cannot_be_reset_says_why() -> None:
    with pytest.raises(cnngraph.CnngraphError, match="it returns features"):
        cnngraph.compile(SMALL, outputs=["mixed"]).reset_classifier(3)
    with pytest.raises(cnngraph.CnngraphError, match="has no param `num_classes`"):
        cnngraph.compile(SMALL.replace("num_classes", "classes")).reset_classifier(3)
    for wrong in (0, True, 2.0):
        with pytest.raises(cnngraph.CnngraphError, match="at least one class"):
            cnngraph.compile(SMALL).reset_classifier(wrong)


def test_outputs_of_a_spec_whose_weights_have_an_order() -> None:
    network = cnngraph.compile(SPECS / "resnetv2_18.yaml", outputs=["stem.conv"])
    assert network(torch.randn(1, 3, 64, 64))["stem.conv"].shape == (1, 64, 32, 32)
