"""What must hold for each valid network: whatever runs it agrees, and it survives files."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

import cnngraph
from cnngraph.export.python import python_source

from .batches import batch
from .network_specs import checked, specs
from .odd_networks import check_odd_network, odd_specs

Results = dict[str, Tensor]

MEMORY_POLICIES = ("fast", "lean", "100KB")


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """With its gradient in float64, for which torch's takes 1/6 from float32."""
    return functional.hardtanh(x + 3, 0, 6) / 6


@mock.patch.object(functional, "hardsigmoid", hardsigmoid)
def check_network(text: str, number: int = 0) -> str:
    """All ways to run a valid network agree in float64, and it survives copies and files."""
    graph = checked(text)
    torch.manual_seed(number)
    eager = cnngraph.compile(text, backend="eager")
    check_initial_weights(text, number, eager.state_dict())
    eager = randomized(eager).double()
    inputs = [torch.randn(6, *shape, dtype=torch.float64) for shape in graph.inputs.values()]
    source = source_of(eager)
    for training in (True, False):
        reference = Reference(eager.train(training), inputs, one_step)
        for memory in MEMORY_POLICIES:
            try:
                network = cnngraph.compile(text, memory=memory).double()
            except cnngraph.CnngraphError as error:
                assert memory == "100KB" and "does not fit" in str(error), error  # noqa: PT018
                continue
            reference.require(network, f"memory={memory}, training={training}")
        if source:
            what = f"emitted code, training={training}\n{source}"
            reference.require(emitted_module(source), what)
    check_copies(text, eager, inputs)
    return "with emitted code" if source else "without emitted code"


def check_initial_weights(text: str, number: int, expected: Results) -> None:
    """Every backend starts with the same weights."""
    torch.manual_seed(number)
    found = cnngraph.compile(text).state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


def check_copies(text: str, eager: nn.Module, inputs: Sequence[Tensor]) -> None:
    """The network for inference agrees with eager; copies, and files, agree bit for bit."""
    fused = cnngraph.compile(text).double().eval()
    fused.load_state_dict(eager.state_dict())
    expected = results_of(fused, inputs)
    inference = fused.for_inference()
    reference = Reference(eager.eval(), inputs, results_of)
    reference.require_results(results_of(inference, inputs), "inference")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        cnngraph.save_compiled(fused, path)
        copies = {
            "deepcopy": copy.deepcopy(fused),
            "pickle": pickle.loads(pickle.dumps(fused)),
            "artifact": cnngraph.load_compiled(path).eval(),
        }
        for suffix in (".safetensors", ".pt"):
            cnngraph.save_weights(fused, path.with_suffix(suffix))
            copies[suffix] = cnngraph.compile(text).double().eval()
            cnngraph.load_weights(copies[suffix], path.with_suffix(suffix))
    for name, network in copies.items():
        require_same_bits(results_of(network, inputs), expected, name)
    expected = results_of(inference, inputs)
    for name, network in (
        ("deepcopy of inference", copy.deepcopy(inference)),
        ("pickle of inference", pickle.loads(pickle.dumps(inference))),
    ):
        require_same_bits(results_of(network, inputs), expected, name)


# --- the reference --------------------------------------------------------------------------------

Run = Callable[[nn.Module, Sequence[Tensor]], Results]


class Reference:
    """What a network computes, with which others are compared.

    Args:
        network: the network, in float64.
        inputs: its inputs.
        run: `one_step` or `results_of`.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor], run: Run) -> None:
        self._network = copy.deepcopy(network)
        self._inputs = inputs
        self._run = run
        self._expected = run(copy.deepcopy(network), inputs)

    def require(self, network: nn.Module, what: str) -> None:
        """Raises unless another network computes the same from the same weights."""
        assert list(network.state_dict()) == list(self._network.state_dict()), what
        network.load_state_dict(self._network.state_dict())
        network.train(self._network.training)
        self.require_results(self._run(network, self._inputs), what)

    def require_results(self, found: Results, what: str) -> None:
        """Raises unless these are the same values, up to rounding."""
        expected = self._expected
        assert found.keys() == expected.keys(), f"{what}: {found.keys() ^ expected.keys()}"
        for name, value in expected.items():
            if not torch.allclose(found[name], value, rtol=1e-6, atol=1e-7, equal_nan=True):
                torch.testing.assert_close(
                    found[name], value, rtol=1e-6, atol=1e-7 + 100 * self._noise[name],
                    equal_nan=True, msg=lambda m, n=name: f"{what}: {n}: {m}",
                )  # fmt: skip

    @cached_property
    def _noise(self) -> dict[str, float]:
        """How much each value changes with the last bits of the weights and inputs.

        Batch norms magnify rounding, in the gradients of what they cancel above all.
        """
        changes = dict.fromkeys(self._expected, 0.0)
        for _ in range(3):
            network = copy.deepcopy(self._network)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.mul_(last_bits(parameter))
            found = self._run(network, [x * last_bits(x) for x in self._inputs])
            for name, value in self._expected.items():
                change = (found[name] - value).abs().nan_to_num()
                changes[name] = max(changes[name], change.max().item() if value.numel() else 0)
        return changes


def last_bits(values: Tensor) -> Tensor:
    return 1 + 1e-15 * torch.randn_like(values)


def one_step(network: nn.Module, inputs: Sequence[Tensor]) -> Results:
    """Results, gradients and buffers of a forward and a backward pass."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    results = named(network(*inputs))
    weights = (
        torch.linspace(0.5, 1.5, r.numel(), dtype=r.dtype).view_as(r) for r in results.values()
    )
    terms = [(r * w).sum() for r, w in zip(results.values(), weights, strict=True)]
    torch.stack(terms).sum().backward()
    found = {f"result {name}": value.detach() for name, value in results.items()}
    for index, x in enumerate(inputs):
        found[f"gradient of input {index}"] = torch.zeros_like(x) if x.grad is None else x.grad
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
    return found | dict(network.named_buffers())


def results_of(network: nn.Module, inputs: Sequence[Tensor]) -> Results:
    with torch.no_grad():
        return named(network(*inputs))


def named(results: Any) -> Results:
    return results if isinstance(results, dict) else {"logits": results}


def randomized(network: nn.Module) -> nn.Module:
    """With other weights and statistics: a batch norm of ones and zeros would hide mistakes."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5) if name.endswith("_var") else value.add_(
                    torch.rand_like(value) / 2
                )
    return network


def require_same_bits(found: Results, expected: Results, what: str) -> None:
    assert list(found) == list(expected), what
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=what)


# --- emitted code ---------------------------------------------------------------------------------


def source_of(network: Any) -> str:
    """The network as Python; empty if the export says that it cannot write such networks yet."""
    try:
        return python_source(network)
    except cnngraph.CnngraphError as error:
        assert "cannot write yet" in str(error), error
        return ""


def emitted_module(source: str) -> nn.Module:
    """An instance of the last class of the source, with its parameters in float64."""
    assert "cnngraph" not in source
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(source, "emitted.py", "exec"), namespace)
    classes = [each for each in namespace.values() if getattr(each, "__module__", "") == "emitted"]
    return classes[-1]().double()


def run(number: int) -> Counter[str]:
    if number % 2:
        return batch(check_odd_network, odd_specs(), number, 40)
    return batch(lambda text: check_network(text, number), specs(), number, 10)
