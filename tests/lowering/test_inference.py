"""Networks for evaluation: separate, folded once, and equal to what they were made of."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from test_lowering import BODIES, batch, both, compiled, every_body, logits, spec
from torch import Tensor, nn

import cnngraph
from cnngraph.nn.folded import FoldedConv2d, FoldedLinear

pytestmark = pytest.mark.usefixtures("one_thread")


def folded_of(network: nn.Module) -> list[str]:
    kinds = (FoldedConv2d, FoldedLinear)
    return [path for path, module in network.named_modules() if isinstance(module, kinds)]


@every_body
@pytest.mark.parametrize("backend", ["fused", "eager"])
@torch.inference_mode()
def test_results_equal_eagers(name: str, backend: str) -> None:
    expected = logits(compiled(BODIES[name], "eager").eval()(batch()))
    network = compiled(BODIES[name], backend).eval().for_inference()
    torch.testing.assert_close(network(batch()), expected, rtol=1e-9, atol=1e-10)


def test_batch_norms_additions_and_activations_are_gone() -> None:
    network = compiled(BODIES["residual"]).eval().for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert set(folded_of(network)) == {
        "layer.0.conv1", "layer.0.conv2", "layer.0.downsample.0", "layer.1.conv1", "layer.1.conv2",
    }  # fmt: skip
    assert "+" not in network.layer[0].code
    assert isinstance(network.layer[0].conv2.activation, nn.ReLU)


def test_batch_norms_of_linear_layers_are_folded() -> None:
    body = "- flatten\n- linear: {name: fc, out_features: 6}\n- batch_norm: {name: bn}\n- relu\n- linear: {name: out, out_features: 2}"
    network = compiled(body).eval()
    fast = network.for_inference()
    assert folded_of(fast) == ["fc"]
    torch.testing.assert_close(fast(batch()), network(batch()), rtol=1e-9, atol=1e-10)


def test_it_is_a_snapshot() -> None:
    network = compiled(BODIES["residual"]).eval()
    fast = network.for_inference()
    before = fast(batch())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.data.zero_()
    assert torch.equal(fast(batch()), before)
    assert not {p.data_ptr() for p in fast.parameters()} & {
        p.data_ptr() for p in network.parameters()
    }
    twin = network.for_inference()
    assert not torch.equal(twin(batch()), before)
    assert torch.equal(fast(batch()), before)


def test_training_is_refused() -> None:
    network = compiled(BODIES["residual"])
    with pytest.raises(cnngraph.CnngraphError, match="in training mode"):
        network.for_inference()
    fast = network.eval().for_inference()
    with pytest.raises(cnngraph.CnngraphError, match="cannot train"):
        fast.train()
    assert not any(module.training for module in fast.eval().modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_it_follows_to_and_is_saved_and_loaded() -> None:
    network = compiled(BODIES["parallel"], dtype=torch.float32).eval()
    fast = network.for_inference()
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    x = batch(torch.float32)
    for twin in (torch.load(file, weights_only=False), copy.deepcopy(fast)):
        assert torch.equal(twin(x), fast(x))
    assert fast.double()(batch()).dtype is torch.float64
    other = compiled(BODIES["parallel"], seed=3).eval().for_inference()
    other.load_state_dict(fast.state_dict())
    torch.testing.assert_close(other(batch()), fast(batch()))


def test_side_heads_are_left_out() -> None:
    fast = compiled(BODIES["aux"]).eval().for_inference()
    assert isinstance(fast(batch()), Tensor)
    assert not hasattr(fast, "side")


def test_selected_outputs_are_returned() -> None:
    text = spec(BODIES["residual"])
    network = cnngraph.compile(text, outputs=["layer.0", "layer.1"]).eval()
    fast, x = network.for_inference(), torch.randn(2, 3, 8, 8)
    found, expected = fast(x), network(x)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_hooked_and_replaced_layers_are_kept_as_they_are() -> None:
    for network in both(BODIES["residual"]):
        network.get_submodule("layer.0").conv1 = nn.Sequential(
            network.get_submodule("layer.0").conv1
        )
        network.get_submodule("layer.1").bn2 = nn.Identity()
        network.eval()
        fast = network.for_inference()
        torch.testing.assert_close(fast(batch()), network(batch()), rtol=1e-9, atol=1e-10)


def test_a_replaced_level_is_refused() -> None:
    network = compiled(BODIES["residual"]).eval()
    network.set_submodule("layer.1", nn.Identity())
    with pytest.raises(
        cnngraph.CnngraphError, match=r"`layer\.1\.conv1` is no longer in this network"
    ):
        network.for_inference()
