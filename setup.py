"""Builds the optional C++/CUDA extension; everything else about the package is in pyproject.toml.

cnngraph works without the extension, so nothing that goes wrong here stops an installation: one
line says what was missing and how to get the kernels later.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import setup

SOURCES = Path("csrc")
LATER = "later, in this folder: pip install --no-build-isolation --force-reinstall --no-deps ."


def without_extension(reason):
    # Straight to the descriptor: pip swallows stdout unless asked not to.
    print(f"cnngraph: installing without compiled kernels: {reason}. Get them {LATER}", file=sys.stderr)


def extension():
    """The ext_modules and cmdclass arguments, or neither where there is nothing to build with."""
    if os.environ.get("CNNGRAPH_NO_EXTENSION") == "1":
        without_extension("CNNGRAPH_NO_EXTENSION=1")
        return {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError:
        without_extension("torch cannot be imported while building (build isolation hides it)")
        return {}

    class BuildOrGoWithout(cpp_extension.BuildExtension):
        def finalize_options(self):
            super().finalize_options()
            # Not pip's own folder, which is new each time: an installation compiles what changed since the last one.
            self.build_temp = f"build/torch-{torch.__version__}"

        def run(self):
            try:
                super().run()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.extensions = []  # nothing to copy or install
                said = str(error).strip() or type(error).__name__
                without_extension(f"the build failed ({said.splitlines()[0]})")

        def get_outputs(self):
            return [path for path in super().get_outputs() if Path(path).exists()]

    cuda = torch.version.cuda is not None and cpp_extension.CUDA_HOME is not None
    cuda = cuda or os.environ.get("FORCE_CUDA") == "1"
    cuda = cuda and any(SOURCES.rglob("*.cu"))
    sources = sorted(
        str(path)
        for path in SOURCES.rglob("*.c*")
        if path.suffix in {".cpp", ".cu"} and (cuda or "_cuda" not in path.name)
    )
    cxx = ["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
    link = []
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


setup(**extension())
