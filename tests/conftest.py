"""Shared options, fixtures and helpers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers with several threads each, on the same cores, are many times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts jobs in the background with SIGINT ignored, and so would be the tests' processes.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in each run, so that failures can be reproduced.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parent.parent
SPECS = ROOT / "specs"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens",
        action="store_true",
        help="write the output to the golden files instead of comparing it",
    )


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-goldens"))


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    """Undoes what a test registers."""
    from cnngraph.ops import OPS, registry

    before, loaded = dict(OPS), registry._loaded_plugins
    yield
    OPS.clear()
    OPS.update(before)
    registry._loaded_plugins = loaded


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny networks, which several threads only slow down."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def gpu() -> str:
    """`cuda`, without TensorFloat32. Skips the test if there is no GPU, or no kernels for it."""
    import torch

    from cnngraph import CnngraphError
    from cnngraph.bench.machine import require

    try:
        require("cuda")
    except CnngraphError as error:
        pytest.skip(str(error).partition(". ")[0])
    torch.backends.cudnn.allow_tf32 = False
    return "cuda"


@pytest.fixture(scope="session", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    return request.param if request.param == "cpu" else request.getfixturevalue("gpu")


def on_every_device(*dtypes: Any) -> pytest.MarkDecorator:
    """Parametrizes `device` and `dtype`; on a GPU it adds float16."""
    import torch

    cases = [("cpu", dtype) for dtype in dtypes] + [
        ("cuda", dtype) for dtype in (*dtypes, torch.float16)
    ]
    return pytest.mark.parametrize(("device", "dtype"), cases, ids=str, indirect=["device"])


TARGETS: tuple[dict[str, Any], ...] = ({"backend": "fused"}, {"backend": "eager"})
"""Arguments of `compile` for each backend."""
every_target = pytest.mark.parametrize(
    "target", TARGETS, ids=lambda target: "".join(target.values())
)


def value_shapes(network: Any, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shape, without the batch, of each value that a network computes for an input."""
    import torch
    from torch import fx

    from cnngraph.nn import with_aux
    from cnngraph.nn.level import JoinLevel, Level, Sequential

    shapes: list[tuple[int, ...]] = []

    class Tracer(fx.Tracer):
        """Traces into levels, and into no other module."""

        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
            return not isinstance(m, Level | JoinLevel | Sequential)

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            computes = (
                n.op not in ("placeholder", "output", "get_attr") and n.target is not with_aux
            )
            if computes and isinstance(result, torch.Tensor):
                shapes.append(tuple(result.shape[1:]))
            return result

    network = network.to("meta").eval()
    graph = fx.GraphModule(network, Tracer().trace(network))
    Recorder(graph).run(torch.empty(2, *shape, device="meta"))
    return shapes


@pytest.fixture
def convolutions_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small convolutions use the operator too."""
    monkeypatch.setattr("cnngraph.kernels.conv2d.LEAST_MACS", 0)


def operators_of(run: Callable[[], object]) -> list[Any]:
    """The operators that a call runs, in order."""
    from torch.utils._python_dispatch import TorchDispatchMode

    calls: list[Any] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    with Recorder():
        run()
    return calls


def profiled(run: Callable[[], object]) -> set[str]:
    """The names of all operators that a call runs, including nested ones."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    events: Any = profile.key_averages()
    return {event.key for event in events}


def result_and_gradients(run: Callable[[Any], Any], module: Any, x: Any) -> list[Any]:
    """The result of `run(x)`, and the gradients of `x` and the parameters of a weighted sum."""
    import torch

    x = x.clone().requires_grad_()
    result = run(x)
    weights = torch.linspace(0.5, 1.5, result.numel(), dtype=torch.float32).view_as(result)
    return [
        result.detach(),
        *torch.autograd.grad((result * weights).sum(), [x, *module.parameters()]),
    ]


def in_subprocess(code: str, **environment: str) -> tuple[Any, str]:
    """Runs `code` in a new process: the last line of stdout as JSON, and stderr."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stderr}"
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """torchvision, which timm needs too. Skips the test if it is not installed.

    A torchvision whose compiled operators do not fit this torch fails to import; they are declared
    first, without an implementation. Its networks do not use them.
    """
    import importlib.util
    import re

    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        text = (Path(found.origin).parent / "_meta_registrations.py").read_text()
        names = re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', text)
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in dict.fromkeys(names):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor input) -> Tensor")
        return importlib.import_module("torchvision")
