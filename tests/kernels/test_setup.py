"""setup.py: nothing that goes wrong while building the extension stops an installation."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in a checkout")


@pytest.fixture
def run_setup(monkeypatch):
    """What setup.py hands to setuptools when it is called."""
    setuptools = pytest.importorskip("setuptools")
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
    monkeypatch.chdir(ROOT)
    for name in ("CNNGRAPH_NO_EXTENSION", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")  # so that what setup.py sets is gone afterwards
        monkeypatch.delenv(name)

    def run():
        runpy.run_path("setup.py")
        return given

    return run


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (("platform.system", lambda: "Windows"), "Windows"),
        (("sys.maxsize", 2**31 - 1), "32-bit Python"),
        (("sys.byteorder", "big"), "big-endian processors"),
    ],
)
def test_where_kernels_do_not_run_they_are_not_built(run_setup, change, name, monkeypatch, capsys):
    monkeypatch.setattr(*change)
    assert "ext_modules" not in run_setup()
    assert capsys.readouterr().err == (
        f"cnngraph: installing without compiled kernels: not supported on {name}. "
        "Networks run with plain torch\n"
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize(
    "option", ["-m32", "-D_WIN32", "-U__BYTE_ORDER__ -D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__", ""]
)
def test_sources_say_where_they_compile(option):
    command = ["g++", "-fsyntax-only", "-x", "c++", *option.split(), "csrc/platform.h"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) == (not option)
    assert ("need a 64-bit little-endian system" in result.stderr) == bool(option)


@pytest.fixture
def arguments(run_setup):
    return run_setup()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no compiler\nat all"), "(no compiler)"),
        (RuntimeError(""), "(RuntimeError)"),
        (RuntimeError("\n"), "(RuntimeError)"),
        (SystemExit(), "(SystemExit)"),
    ],
    ids=repr,
)
def test_failed_build_is_reported_in_one_line(arguments, error, said, monkeypatch, capsys):
    def fail(self):
        raise error

    build = arguments["cmdclass"]["build_ext"]
    monkeypatch.setattr(build.__mro__[1], "run", fail)
    command = build.__new__(build)
    command.run()
    assert command.extensions == []
    assert f"the build failed {said}. Get them later" in capsys.readouterr().err


def test_an_interrupted_build_stays_interrupted(arguments, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    build = arguments["cmdclass"]["build_ext"]
    monkeypatch.setattr(build.__mro__[1], "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.__new__(build).run()


def test_an_editable_installation_keeps_what_was_compiled(arguments):
    from setuptools import Distribution

    command = arguments["cmdclass"]["build_ext"](
        Distribution({"ext_modules": arguments["ext_modules"]})
    )
    command.build_temp = "a folder that pip makes for this installation alone"
    command.finalize_options()
    assert Path(command.build_temp).parent == Path("build")


@pytest.fixture
def toolkit(monkeypatch, tmp_path):
    """A function that makes a CUDA toolkit of that version the one torch finds, and torch one for
    CUDA 13.0."""
    from torch.utils import cpp_extension

    def make(version):
        monkeypatch.setattr("torch.version.cuda", "13.0")
        monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
        if version is not None:
            nvcc = tmp_path / "bin" / "nvcc"
            nvcc.parent.mkdir()
            nvcc.write_text(
                f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n"
            )
            nvcc.chmod(0o755)

    return make


def builds_cuda(arguments):
    (module,) = arguments["ext_modules"]
    return any(source.endswith(".cu") for source in module.sources)


@pytest.mark.parametrize("version", ["13.0", "13.2"])
def test_cuda_kernels_are_built_where_nvcc_fits_torch(run_setup, toolkit, version, monkeypatch):
    toolkit(version)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert builds_cuda(run_setup())
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "8.0;9.0+PTX"


@pytest.mark.parametrize("asked", [None, "1"])
@pytest.mark.parametrize(
    ("version", "said"),
    [(None, "nvcc does not run"), ("12.4", "nvcc is of CUDA 12.4, torch of 13.0")],
)
def test_a_toolkit_that_does_not_fit_costs_the_cuda_kernels_alone(
    run_setup, toolkit, version, said, asked, monkeypatch, capsys
):
    toolkit(version)
    if asked is not None:
        monkeypatch.setenv("FORCE_CUDA", asked)
    assert not builds_cuda(run_setup())
    problem = capsys.readouterr().err
    assert problem.startswith("cnngraph: installing without CUDA kernels: ")
    assert f"{said}. Get them later" in problem


def test_without_a_toolkit_there_are_no_cuda_kernels(run_setup, toolkit, monkeypatch, capsys):
    from torch.utils import cpp_extension

    toolkit(None)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    assert not builds_cuda(run_setup())
    assert "torch finds no CUDA toolkit" in capsys.readouterr().err


def test_force_cuda_decides(run_setup, toolkit, monkeypatch, capsys):
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setenv("FORCE_CUDA", "1")
    assert not builds_cuda(run_setup())
    assert "this torch is not for CUDA" in capsys.readouterr().err
    toolkit("13.0")
    monkeypatch.setenv("FORCE_CUDA", "0")
    assert not builds_cuda(run_setup())
    assert capsys.readouterr().err == ""
