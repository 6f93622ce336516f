"""The direction of imports, and what `import cnngraph` and `check` may not cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SPECS

PACKAGE = ROOT / "cnngraph"

LAYERS = [
    ["errors", "kernels", "memory_settings"],
    ["expressions", "options", "yaml_mistakes", "nn", "whole_file"],
    ["yaml_source", "naming"],
    ["hints"],
    ["graph"],
    ["ops"],
    ["spec", "provenance", "analysis", "memory", "sizes", "stages"],
    ["validation", "schema"],
    ["imports"],
    ["expectations", "elaborate"],
    ["checking", "features", "passes"],
    ["lowering", "literature"],
    ["network"],
    ["compiler"],
    ["artifact", "bench", "weights"],
    ["report"],
    ["catalog"],
    ["cli"],
    ["__main__"],
]
"""From the bottom up: a module may import those below it and its neighbours, nothing above."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def area(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_at_the_top(path: Path) -> list[str]:
    """Names of modules imported when this one is: neither inside functions nor for type checkers only."""
    found: list[str] = []
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            module = statement.module
            names = [f"{module}.{alias.name}" for alias in statement.names if alias.name[0] != "_"]
            found += names if module == "cnngraph" else [module]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = area(path)
    assert own in RANK, f"give {own} a place in LAYERS"
    for module in imported_at_the_top(path):
        if module.startswith("cnngraph."):
            other = module.split(".")[1]
            assert other in RANK, module
            assert RANK[other] <= RANK[own], f"{own} is below {other}, and must not import it"


def test_kernels_import_torch_and_the_extension_only() -> None:
    for path in sorted((PACKAGE / "kernels").glob("*.py")):
        for module in imported_at_the_top(path):
            top = module.split(".")[0]
            if top == "cnngraph":
                assert module.startswith(("cnngraph.kernels", "cnngraph._C", "cnngraph.errors"))
            else:
                assert top in {"torch", *sys.stdlib_module_names}, module


def test_passes_never_see_the_spec() -> None:
    for path in sorted((PACKAGE / "passes").glob("*.py")):
        for module in imported_at_the_top(path):
            assert not module.startswith(("cnngraph.spec", "cnngraph.imports", "cnngraph.elaborate"))


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.split()}


HEAVY = {"torch", "numpy", "lightning", "matplotlib", "sklearn", "kornia", "typer", "rich", "onnx"}


@pytest.mark.parametrize(
    "statement",
    [
        "import cnngraph",
        f"import cnngraph\nassert cnngraph.check({str(SPECS / 'googlenet.yaml')!r}).ok",
        "import cnngraph\ncnngraph.json_schema()",
    ],
    ids=["import", "check", "schema"],
)
def test_light_work_imports_nothing_heavy(statement: str) -> None:
    assert not modules_after(statement) & HEAVY


def test_compiling_imports_nothing_that_is_optional() -> None:
    statement = f"import cnngraph\ncnngraph.compile({str(SPECS / 'lenet.yaml')!r})"
    assert not modules_after(statement) & {"lightning", "matplotlib", "sklearn", "kornia"}


def test_the_packages_public_names_exist() -> None:
    import cnngraph

    for name in cnngraph.__all__:
        assert getattr(cnngraph, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cnngraph.nothing  # pyright: ignore[reportAttributeAccessIssue]
