"""`init:` of a spec: constants exactly, random weights by their mean and standard deviation."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest
import torch
from conftest import SPECS, every_target
from torch import Tensor, nn

import cnngraph

SPEC = """
cnngraph: 1
name: net
input: [32, 8, 8]
init: INIT
graph:
  - residual:
      name: block
      body:
        - conv2d: {name: conv, out_channels: 32, kernel_size: 3, padding: 1}
        - batch_norm: {name: bn1}
        - relu
        - batch_norm: {name: bn2}
  - flatten
  - linear: {name: fc, out_features: 64}
"""


def compiled(init: str, **options):
    torch.manual_seed(0)
    return cnngraph.compile(SPEC.replace("INIT", init), **options)


def spread(weight: Tensor) -> float:
    return weight.std().item()


@pytest.mark.parametrize(
    ("scheme", "std"),
    [
        ("kaiming_normal", sqrt(2 / (32 * 9))),
        ("{kaiming_normal: {mode: fan_out, nonlinearity: linear}}", sqrt(1 / (32 * 9))),
        ("{kaiming_uniform: {nonlinearity: relu}}", sqrt(2 / (32 * 9))),
        ("xavier_uniform", sqrt(2 / (2 * 32 * 9))),
        ("{xavier_normal: {gain: 2}}", 2 * sqrt(2 / (2 * 32 * 9))),
        ("{normal: {std: 0.01}}", 0.01),
        ("{uniform: {a: -1, b: 1}}", 1 / sqrt(3)),
        ("{truncated_normal: {std: 0.02}}", 0.02),
    ],
)
def test_random_schemes_have_their_mean_and_spread(scheme: str, std: float) -> None:
    weight = compiled(f"{{conv2d: {scheme}}}").block.conv.weight.detach()
    assert weight.mean().item() == pytest.approx(0, abs=5 * std / sqrt(weight.numel()))
    assert spread(weight) == pytest.approx(std, rel=0.05)


def test_constants_are_exact_and_only_the_named_parameters_change() -> None:
    net = compiled("{conv2d: {bias: zeros}, batch_norm: {constant: {val: 0.5}}, linear: ones}")
    assert torch.equal(net.block.conv.bias, torch.zeros(32))
    assert torch.equal(net.block.bn1.weight, torch.full((32,), 0.5))
    assert torch.equal(net.fc.weight, torch.ones(64, 2048))
    assert net.fc.bias.abs().sum() > 0
    plain = compiled("{}")
    assert torch.equal(net.block.conv.weight, plain.block.conv.weight)


def test_zero_last_norm_makes_a_residual_its_shortcut() -> None:
    net = compiled("{zero_last_norm: true}")
    assert torch.equal(net.block.bn2.weight, torch.zeros(32))
    assert torch.equal(net.block.bn1.weight, torch.ones(32))
    x = torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(net.block(x), x)
    assert torch.equal(compiled("{zero_last_norm: false}").block.bn2.weight, torch.ones(32))


@every_target
def test_one_seed_gives_the_same_weights_on_every_backend(target) -> None:
    init = "{conv2d: kaiming_normal, linear: {truncated_normal: {std: 0.1}}}"
    for ours, same in zip(
        compiled(init, **target).parameters(), compiled(init).parameters(), strict=True
    ):
        assert torch.equal(ours, same)


def test_a_variant_inherits_init_or_states_its_own(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SPEC.replace("INIT", "{linear: ones}"))
    head = "cnngraph: 1\nname: other\nextends: base.yaml\n"
    (tmp_path / "same.yaml").write_text(head)
    (tmp_path / "own.yaml").write_text(f"{head}init: {{linear: zeros}}\n")
    assert cnngraph.compile(tmp_path / "same.yaml").fc.weight.min() == 1
    assert cnngraph.compile(tmp_path / "own.yaml").fc.weight.max() == 0


def test_a_new_classifier_is_initialised_as_the_spec_says() -> None:
    net = cnngraph.compile(SPECS / "vgg11.yaml", params={"num_classes": 20})
    net.reset_classifier(200)
    last = list(net.parameters())
    assert spread(last[-2].detach()) == pytest.approx(0.01, rel=0.02)
    assert torch.equal(last[-1], torch.zeros(200))


OWN = """
cnngraph: 1
name: net
input: [8, 8, 8]
params: {num_classes: 32}
init: {conv2d: {weight: ones, bias: zeros}, zero_last_norm: true}
blocks:
  conv:
    params: {std: ~}
    body: {conv2d: {out_channels: 64, kernel_size: 3, init: {normal: {std: "${std}"}}}}
graph:
  - residual:
      name: block
      body: {batch_norm: {name: bn, init: {constant: {val: 0.5}}}}
  - conv: {name: small, std: 0.01}
  - conv: {name: large, std: 1}
  - conv2d: {name: other, out_channels: 4, kernel_size: 1, init: {bias: ones}}
  - prelu: {name: act, init: 0.1}
  - flatten
  - linear:
      name: fc
      out_features: ${num_classes}
      init: {weight: {normal: {std: 0.01}}, bias: ones}
"""


@every_target
def test_an_op_states_its_own_init_which_replaces_the_networks(target) -> None:
    torch.manual_seed(0)
    net = cnngraph.compile(OWN, **target)
    assert spread(net.small.weight.detach()) == pytest.approx(0.01, rel=0.05)
    assert spread(net.large.weight.detach()) == pytest.approx(1, rel=0.05)
    assert torch.equal(net.small.bias, torch.zeros(64))
    assert torch.equal(net.other.weight, torch.ones(4, 64, 1, 1))
    assert torch.equal(net.other.bias, torch.ones(4))
    assert torch.equal(net.block.bn.weight, torch.full((8,), 0.5))
    assert net.act.weight.item() == pytest.approx(0.1)


def test_a_new_classifier_keeps_its_own_init() -> None:
    net = cnngraph.compile(OWN)
    net.reset_classifier(50)
    assert spread(net.fc.weight.detach()) == pytest.approx(0.01, rel=0.1)
    assert torch.equal(net.fc.bias, torch.ones(50))


def torchvisions(name: str, torchvision) -> nn.Module:
    models = torchvision.models
    match name:
        case "deeplabv3_resnet50":
            return models.segmentation.deeplabv3_resnet50(weights_backbone=None, aux_loss=True)
        case "fpn_resnet50":
            from torchvision.models.detection import backbone_utils

            return backbone_utils.resnet_fpn_backbone(
                backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d
            )
        case "googlenet_aux" | "inception_v3_aux":
            build = getattr(models, name.removesuffix("_aux"))
            return build(weights=None, init_weights=True, aux_logits=True)
        case _:
            return getattr(models, name)(weights=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny", "deeplabv3_resnet50", "densenet121", "efficientnet_b0", "fpn_resnet50",
        "googlenet_aux", "inception_v3_aux", "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_small",
        "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11",
    ],
)  # fmt: skip
def test_shipped_specs_have_torchvisions_initial_weights(name: str, torchvision) -> None:
    torch.manual_seed(0)
    theirs = torchvisions(name, torchvision).state_dict()
    ours = cnngraph.compile(SPECS / f"{name}.yaml").state_dict()
    assert set(ours) == set(theirs)
    for key, expected in theirs.items():
        found = ours[key].float()
        if expected.numel() < 2 or expected.float().std() == 0:
            assert torch.equal(found, expected.float()), key
            continue
        few = 6 / sqrt(expected.numel())
        assert spread(found) == pytest.approx(spread(expected.float()), rel=max(0.02, few)), key
        shift = (found.mean() - expected.float().mean()).abs().item()
        assert shift <= 8 * spread(expected.float()) / sqrt(expected.numel()), key
