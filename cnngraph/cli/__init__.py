"""The commands, one file each: they parse arguments, call the library and print its report."""

from cnngraph.cli import (
    bench,
    bench_kernels,
    catalog,
    check,
    compile,
    draw,
    evaluate,
    experiment,
    import_module,
    literature,
    ops,
    predict,
    report,
    schema,
    train,
    zoo,
)
from cnngraph.cli.app import app, main

__all__ = [
    "app",
    "bench",
    "bench_kernels",
    "catalog",
    "check",
    "compile",
    "draw",
    "evaluate",
    "experiment",
    "import_module",
    "literature",
    "main",
    "ops",
    "predict",
    "report",
    "schema",
    "train",
    "zoo",
]
