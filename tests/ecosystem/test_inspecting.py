"""Tools that hook a network's modules to explain or summarize it."""

from __future__ import annotations

from typing import Any

import pytest
from networks import BACKENDS, FORMS, close, images, small
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.usefixtures("one_thread", "convolutions_of_any_size")

attributions = pytest.mark.parametrize("method", ["IntegratedGradients", "DeepLift", "Saliency"])


def captum() -> Any:
    return pytest.importorskip("captum.attr", reason="captum is not installed")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ["layer", "layer.1", "dense", "stem.conv"])
def test_captum_grad_cam_of_any_layer(path: str) -> None:
    results = []
    for form in BACKENDS:
        network = small(form).eval()
        explain = captum().LayerGradCam(network, network.get_submodule(path))
        results.append(explain.attribute(images(), target=1))
    close(*results)
    assert results[0].abs().max() > 0


@pytest.mark.filterwarnings("ignore")
@attributions
def test_captum_attributions(method: str) -> None:
    results = []
    for form in FORMS:
        network = small(form).eval()
        results.append(getattr(captum(), method)(network).attribute(images(), target=1))
    for found in results:
        close(found, results[1])


def test_torchinfo_summary() -> None:
    torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")
    found = []
    for form in BACKENDS:
        summary = torchinfo.summary(small(form).eval(), (2, 3, 16, 16), verbose=0)
        layers = [
            (layer.var_name, layer.output_size, layer.num_params) for layer in summary.summary_list
        ]
        found.append((summary.total_params, summary.total_mult_adds, layers))
    assert found[0] == found[1]
    assert torchinfo.summary(small("inference"), (2, 3, 16, 16), verbose=0).total_params > 0


@pytest.mark.parametrize("form", FORMS)
def test_flop_counter(form: str) -> None:
    def flops(network: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            network.eval()(images())
        return counter.get_total_flops()

    assert flops(small(form)) == flops(small("eager")) > 0


def test_flops_of_a_training_step() -> None:
    counts = []
    for form in BACKENDS:
        with FlopCounterMode(display=False) as counter:
            small(form)(images()).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_symbolic_trace(form: str) -> None:
    network = small(form).eval()
    traced = fx.symbolic_trace(network)
    close(traced(images()), small("eager").eval()(images()))
    assert "cnngraph" not in traced.code.replace("cnngraph_nn", "")


@pytest.mark.parametrize("form", FORMS)
def test_a_hook_on_a_block_reads_features(form: str) -> None:
    network, seen = small(form).eval(), []
    network.layer.register_forward_hook(lambda module, args, result: seen.append(result))
    network(images())
    assert [tuple(value.shape) for value in seen] == [(4, 8, 8, 8)]


def test_torchvision_feature_extraction() -> None:
    extraction = pytest.importorskip(
        "torchvision.models.feature_extraction",
        reason="torchvision does not import beside this torch",
        exc_type=Exception,
    )
    results = []
    for form in BACKENDS:
        extractor = extraction.create_feature_extractor(small(form).eval(), ["layer.0", "dense"])
        results.append(extractor(images()))
    close(*results)
