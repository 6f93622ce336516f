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
    ["errors", "shape", "allocator", "kernels"],
    ["options", "atomic_write", "nn"],
    ["ops"],
    ["spec", "graph"],
    ["elaborate", "passes"],
    ["lowering", "report", "drawing"],
    ["checker"],
    ["compiler", "zoo"],
    ["weights", "bench", "comparison", "importer", "export", "page"],
    ["info"],
    ["training"],
    ["probing"],
    ["cli"],
    ["__main__"],
]
"""From the bottom up: a module may import those below it and its neighbours, nothing above."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def area(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, at_the_top: bool = False) -> list[str]:
    """Names of the modules a file imports, in functions and for type checkers too unless only those
    at the top count."""
    tree = ast.parse(path.read_text())
    found: list[str] = []
    for statement in tree.body if at_the_top else ast.walk(tree):
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            module = statement.module
            names = [f"{module}.{alias.name}" for alias in statement.names]
            found += [name if name in MODULES else module for name in names]
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


MODULES = {module_name(path): path for path in sources()}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = area(path)
    assert own in RANK, f"give {own} a place in LAYERS"
    for module in imports(path):
        if module.startswith("cnngraph."):
            other = module.split(".")[1]
            assert other in RANK, module
            assert RANK[other] <= RANK[own], f"{own} is below {other}, and must not import it"


def test_no_files_import_each_other_in_a_cycle() -> None:
    edges = {
        name: [module for module in imports(path) if module in MODULES]
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, (
            f"a cycle of imports: {' -> '.join([*chain[chain.index(name) :], name])}"
        )
        if name not in done:
            for module in edges[name]:
                if module != name:
                    visit(module, (*chain, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_package_has_at_most_ten_top_level_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def test_kernels_import_torch_and_the_extension_only() -> None:
    for path in sorted((PACKAGE / "kernels").glob("*.py")):
        for module in imports(path, at_the_top=True):
            top = module.split(".")[0]
            if top == "cnngraph":
                assert module.startswith(("cnngraph.kernels", "cnngraph._C", "cnngraph.errors"))
            else:
                assert top in {"torch", *sys.stdlib_module_names}, module


def test_passes_never_see_the_spec() -> None:
    for path in sorted((PACKAGE / "passes").glob("*.py")):
        for module in imports(path, at_the_top=True):
            assert not module.startswith(
                ("cnngraph.spec.document", "cnngraph.spec.spec", "cnngraph.elaborate")
            )


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
        "import cnngraph\nassert cnngraph.diff('resnet18', 'resnet34').weights.new",
    ],
    ids=["import", "check", "schema", "diff"],
)
def test_light_work_imports_nothing_heavy(statement: str) -> None:
    assert not modules_after(statement) & HEAVY


def test_compiling_imports_nothing_that_is_optional() -> None:
    statement = f"import cnngraph\ncnngraph.compile({str(SPECS / 'lenet.yaml')!r})"
    assert not modules_after(statement) & {"lightning", "matplotlib", "sklearn", "kornia"}


def test_type_checkers_see_the_public_names() -> None:
    import cnngraph

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    imported["register_op"] = imported.pop(None)
    homes = {name: f"cnngraph.{module}" for name, module in cnngraph._HOMES.items()}
    assert imported == homes


def test_the_packages_public_names_exist() -> None:
    import cnngraph

    for name in cnngraph.__all__:
        assert getattr(cnngraph, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cnngraph.nothing  # pyright: ignore[reportAttributeAccessIssue]
