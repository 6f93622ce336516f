"""Tools that read, change, wrap or transform a network's parameters and layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from networks import BACKENDS, close, images, small, without
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.utils import (
    parameters_to_vector,
    parametrizations,
    parametrize,
    prune,
    vector_to_parameters,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

pytestmark = pytest.mark.usefixtures("one_thread", "convolutions_of_any_size")

LABELS = torch.tensor([0, 1, 2, 3])


def trained(network: nn.Module, steps: int = 2) -> dict[str, Tensor]:
    """The state after some steps of SGD, in float64."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(images(dtype=torch.float64)), LABELS).backward()
        optimizer.step()
    return network.state_dict()


def double(form: str) -> nn.Module:
    return small(form, torch.float64)


def loss_of(network: nn.Module, weights: Any, image: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(functional_call(network, weights, (image[None],)), label[None])


@pytest.mark.parametrize("form", BACKENDS)
def test_gradients_per_sample(form: str) -> None:
    network = double(form).eval()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    x = images(dtype=torch.float64)
    found = vmap(grad(loss_of, argnums=1), in_dims=(None, None, 0, 0))(network, weights, x, LABELS)
    for index in range(len(x)):
        network.zero_grad()
        F.cross_entropy(network(x[index : index + 1]), LABELS[index : index + 1]).backward()
        for name, parameter in network.named_parameters():
            close(found[name][index], parameter.grad)


@pytest.mark.parametrize("training", [False, True])
def test_jacobians(training: bool) -> None:
    x = images(2, dtype=torch.float64)
    # A running statistic that changes in place has no derivative rule in torch.func.
    networks = [double(form).train(training) for form in BACKENDS]
    for network in networks:
        for module in network.modules():
            if training and isinstance(module, nn.BatchNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = False, None, None  # fmt: skip
    close(*(jacrev(network)(x) for network in networks))


def test_ensembles_of_stacked_networks() -> None:
    networks = [double("fused").eval() for _ in range(3)]
    assert len({type(network) for network in networks}) == 1
    with torch.no_grad():
        for scale, network in enumerate(networks):
            network.fc.weight.mul_(1 + scale)
    weights, buffers = stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def run(weights: Any, buffers: Any, x: Tensor) -> Tensor:
        return functional_call(base, (weights, buffers), (x,))

    x = images(dtype=torch.float64)
    found = vmap(run, in_dims=(0, 0, None))(weights, buffers, x)
    close(found, torch.stack([network(x) for network in networks]))


def test_lbfgs() -> None:
    states = []
    for form in BACKENDS:
        network = double(form)
        optimizer = torch.optim.LBFGS(network.parameters(), max_iter=3)

        def closure(network: Any = network, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images(dtype=torch.float64)), LABELS)
            loss.backward()
            return loss

        optimizer.step(closure)
        states.append(network.state_dict())
    close(*states)


@pytest.mark.parametrize("form", BACKENDS)
def test_parameters_as_one_vector(form: str) -> None:
    network = double(form)
    vector = parameters_to_vector(network.parameters())
    expected = parameters_to_vector(double("eager").parameters())
    assert torch.equal(vector, expected)
    vector_to_parameters(2 * vector, network.parameters())
    assert torch.equal(network.fc.weight, 2 * double("eager").fc.weight)


def test_averaged_models() -> None:
    states = []
    for form in BACKENDS:
        network = double(form)
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        trained(network)
        average.update_parameters(network)
        trained(network)
        average.update_parameters(network)
        update_bn([images(dtype=torch.float64)], average)
        states.append(average.state_dict())
    close(*states)


def test_pruning() -> None:
    states = []
    for form in BACKENDS:
        network = double(form)
        layers = [(m, "weight") for m in network.modules() if isinstance(m, nn.Conv2d)]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=0.3)
        prune.ln_structured(network.fc, "weight", amount=0.5, n=2, dim=1)
        trained(network)
        for layer, name in (*layers, (network.fc, "weight")):
            prune.remove(layer, name)
        states.append(network.state_dict())
    close(*states)
    assert float((states[0]["layer.0.conv1.weight"] == 0).double().mean()) > 0.1


CONVOLUTIONS = [name for name, m in small().named_modules() if isinstance(m, nn.Conv2d)]
on_every_convolution = pytest.mark.parametrize("path", CONVOLUTIONS)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "own"])
@on_every_convolution
def test_parametrizations(kind: str, path: str) -> None:
    states = []
    for form in BACKENDS:
        network = double(form)
        layer = network.get_submodule(path)
        torch.manual_seed(3)
        if kind == "own":
            parametrize.register_parametrization(layer, "weight", Doubled())
        else:
            getattr(parametrizations, kind)(layer)
        states.append(trained(network))
    close(*states)


class Lora(nn.Module):
    """A convolution with a low-rank update beside it."""

    def __init__(self, conv: nn.Conv2d, rank: int = 2) -> None:
        super().__init__()
        self.base = conv.requires_grad_(False)
        self.down = nn.Conv2d(
            conv.in_channels, rank, conv.kernel_size, conv.stride, conv.padding, bias=False,
            dtype=conv.weight.dtype,
        )  # fmt: skip
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False, dtype=conv.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@on_every_convolution
def test_a_lora_wrapper(path: str) -> None:
    states = []
    for form in BACKENDS:
        network = double(form)
        torch.manual_seed(3)
        network.set_submodule(path, Lora(network.get_submodule(path)))  # pyright: ignore[reportArgumentType]
        states.append(trained(network))
    close(*states)
    before, after = double("eager").get_submodule(path).weight, states[0][f"{path}.base.weight"]
    assert torch.equal(before, after)


def kept_bytes(network: nn.Module) -> int:
    """What autograd keeps for backward, each storage once, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = images(8, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network(x)
    total = sum(kept.values())
    result.sum().backward()
    return total


@pytest.mark.parametrize("form", BACKENDS)
def test_checkpoint_wrappers_keep_less(form: str) -> None:
    network = small(form)
    plain = kept_bytes(small(form))
    apply_activation_checkpointing(
        network, check_fn=lambda module: module in (network.layer[0], network.layer[1])
    )
    blocks = kept_bytes(network)
    network.dense = checkpoint_wrapper(network.dense)
    assert kept_bytes(network) < blocks < plain


def test_checkpointed_networks_train_alike() -> None:
    states = []
    for form in BACKENDS:
        network = double(form)
        network.layer[1] = checkpoint_wrapper(network.layer[1])
        states.append(without(trained(network), "_checkpoint_wrapped_module."))
    states.append(trained(double("eager")))
    # The recomputation of a batch norm in training updates its statistics a second time.
    weights = [name for name in states[0] if "running" not in name and "num_batches" not in name]
    for state in states[:2]:
        close({n: state[n] for n in weights}, {n: states[2][n] for n in weights})
    close(states[0], states[1])
