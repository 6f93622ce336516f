"""setup.py: nothing that goes wrong while building the extension stops an installation."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in a checkout")


@pytest.fixture
def arguments(monkeypatch):
    """What setup.py hands to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("CNNGRAPH_NO_EXTENSION", raising=False)
    runpy.run_path("setup.py")
    return given


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
def test_a_failed_build_is_said_in_one_line(arguments, error, said, monkeypatch, capsys):
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

    command = arguments["cmdclass"]["build_ext"](Distribution({"ext_modules": arguments["ext_modules"]}))
    command.build_temp = "a folder that pip makes for this installation alone"
    command.finalize_options()
    assert Path(command.build_temp).parent == Path("build")
