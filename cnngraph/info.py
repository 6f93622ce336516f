"""What a report of a problem needs: versions, processor, threads and kernels."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cnngraph import __version__

_PACKAGES = (
    "torch", "torchvision", "timm", "pydantic", "pyyaml", "typer", "rich", "safetensors", "numpy",
    "lightning", "kornia", "onnx", "onnxscript", "onnxruntime", "openvino",
)  # fmt: skip


def info() -> dict[str, Any]:
    """Versions, machine, threads and kernels; what is unknown or not installed is None.

    Keys: cnngraph, packages (name -> version), machine (as in the benchmarks), threads (torch's
    threads, and the variables that limit them), kernels (loaded, why not, what they were built for,
    and the instruction set that they use), cuda (torch's CUDA and the GPU).
    """
    import torch

    from cnngraph import kernels
    from cnngraph.bench.machine import describe

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY")
    return {
        "cnngraph": __version__,
        "packages": {package: _version(package) for package in _PACKAGES},
        "machine": describe(),
        "threads": {
            "torch": torch.get_num_threads(),
            "environment": {name: os.environ[name] for name in variables if name in os.environ},
        },
        "kernels": {
            "loaded": kernels.available(),
            "problem": kernels.problem(),
            **kernels.build_info(),
            "torch_capability": torch.backends.cpu.get_cpu_capability(),
        },
        "cuda": {"torch": torch.version.cuda, "gpu": gpu},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def info_text(data: dict[str, Any]) -> str:
    """The same as lines of text."""
    machine, kernels = data["machine"], data["kernels"]
    installed = [f"{name} {found}" for name, found in data["packages"].items() if found]
    missing = [name for name, found in data["packages"].items() if not found]
    memory = machine["memory_bytes"]
    loaded = (
        f"built for torch {kernels['torch']}, using {kernels['cpu_capability']}"
        if kernels["loaded"]
        else f"not loaded: {kernels['problem']}"
    )
    limits = "".join(f", {name}={value}" for name, value in data["threads"]["environment"].items())
    cuda = f"{data['cuda']['torch']}, {data['cuda']['gpu'] or 'no GPU'}"
    lines = {
        "cnngraph": data["cnngraph"],
        "python": f"{machine['python']}, {machine['system']}",
        "packages": ", ".join(installed),
        "missing": ", ".join(missing) or "none",
        "processor": f"{machine['cpu']}, {machine['cpus']} CPUs"
        + (f", {memory / 1e9:.1f} GB" if memory else ""),
        "capability": kernels["torch_capability"],
        "threads": f"{data['threads']['torch']}{limits}",
        "kernels": loaded,
        "cuda": cuda if data["cuda"]["torch"] else "torch was built without CUDA",
    }
    return "\n".join(f"{name:<11} {text}" for name, text in lines.items())
