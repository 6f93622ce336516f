"""Builds the optional C++/CUDA extension, and installs the specs.

All other settings are in pyproject.toml.

cnngraph works without the extension, so a failure here does not stop an installation: one line
reports what was missing and how to get the kernels later.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = Path("csrc")
SPECS = Path("specs")
BUILT_FOR = (
    '"""The torch that the extension was built with; written by setup.py."""\n\ntorch = "{}"\n'
)
LATER = "later, in this folder: pip install --no-build-isolation --force-reinstall --no-deps ."


def without(kernels: str, reason: str) -> None:
    print(
        f"cnngraph: installing without {kernels} kernels: {reason}. Get them {LATER}",
        file=sys.stderr,
    )


def unsupported_platform() -> str:
    """The platform, if it is one of those that the kernels are not written for."""
    if platform.system() == "Windows":
        return "Windows"
    if sys.maxsize < 2**32:
        return "32-bit Python"
    return "big-endian processors" if sys.byteorder == "big" else ""


def builds_cuda(torch: ModuleType, home: str | None) -> bool:
    """Whether to build the CUDA kernels: torch has CUDA, nvcc matches, and FORCE_CUDA is not 0.

    With FORCE_CUDA=1, reports why they cannot be built.
    """
    asked = os.environ.get("FORCE_CUDA")
    if asked == "0" or (asked != "1" and torch.version.cuda is None):
        return False
    nvcc = f"{home}/bin/nvcc"
    if torch.version.cuda is None:
        problem = "this torch is not for CUDA"
    elif home is None:
        problem = "torch finds no CUDA toolkit (set CUDA_HOME)"
    elif not (version := version_of(nvcc)):
        problem = f"{nvcc} does not run"
    elif version.split(".")[0] != torch.version.cuda.split(".")[0]:
        problem = f"{nvcc} is of CUDA {version}, torch of {torch.version.cuda}"
    else:
        return True
    without("CUDA", problem)
    return False


def version_of(nvcc: str) -> str:
    """Such as 13.0; empty if nvcc does not run."""
    try:
        said = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, errors="replace", timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return "".join(re.findall(r"release (\d+[.]\d+)", said))


def extension() -> dict[str, Any]:
    """The arguments ext_modules and cmdclass; empty if there is nothing to build with."""
    if os.environ.get("CNNGRAPH_NO_EXTENSION") == "1":
        without("compiled", "CNNGRAPH_NO_EXTENSION=1")
        return {}
    if platform_name := unsupported_platform():
        print(
            f"cnngraph: installing without compiled kernels: not supported on {platform_name}. "
            "Networks run with plain torch",
            file=sys.stderr,
        )
        return {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError:
        without("compiled", "torch cannot be imported while building (build isolation hides it)")
        return {}

    class BuildOrGoWithout(cpp_extension.BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            # Not pip's temporary folder: an installation only recompiles what changed.
            self.build_temp = f"build/torch-{torch.__version__}"

        def run(self) -> None:
            try:
                super().run()
                kernels = Path(self.get_ext_fullpath("cnngraph._C")).parent / "kernels"
                kernels.mkdir(parents=True, exist_ok=True)
                (kernels / "_built_for.py").write_text(BUILT_FOR.format(torch.__version__))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.extensions = []  # nothing to copy or install
                said = str(error).strip() or type(error).__name__
                hint = "; FORCE_CUDA=0 builds only the CPU kernels" if cuda else ""
                without("compiled", f"the build failed ({said.splitlines()[0]}{hint})")

        def get_outputs(self) -> list[str]:
            return [path for path in super().get_outputs() if Path(path).exists()]

    cuda = builds_cuda(torch, cpp_extension.CUDA_HOME)
    if (
        cuda
        and not torch.cuda.is_available()
        and os.environ.get("TORCH_CUDA_ARCH_LIST", "native") in {"", "native"}
    ):
        os.environ["TORCH_CUDA_ARCH_LIST"] = "8.0;9.0+PTX"  # no GPU to query
    sources = sorted(
        str(path)
        for path in SOURCES.rglob("*.c*")
        if path.suffix in {".cpp", ".cu"} and (cuda or "_cuda" not in path.name)
    )
    cxx = ["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
    link: list[str] = []
    if platform.system() == "Linux":
        cxx.append("-fopenmp")
        link.append("-fopenmp")
    kind = cpp_extension.CUDAExtension if cuda else cpp_extension.CppExtension
    module = kind(
        "cnngraph._C",
        sources,
        define_macros=[("CNNGRAPH_CUDA", None)] if cuda else [],
        extra_compile_args={"cxx": cxx, "nvcc": ["-O3", "-std=c++20"]},
        extra_link_args=link,
    )
    return {"ext_modules": [module], "cmdclass": {"build_ext": BuildOrGoWithout}}


class BuildWithSpecs(build_py):
    """Copies `specs/` into the package. An editable installation reads the folder itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for spec in sorted(SPECS.rglob("*.yaml")):
                copy = Path(self.build_lib, "cnngraph", spec)
                copy.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(spec), str(copy))


arguments = extension()
commands = {"build_py": BuildWithSpecs, **arguments.pop("cmdclass", {})}
setup(cmdclass=commands, **arguments)
