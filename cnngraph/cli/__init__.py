"""The commands, one file each. They parse, call the library and print; what is printed is made in `report/`."""

from cnngraph.cli import bench, bench_kernels, catalog, check, compile, literature, ops, schema
from cnngraph.cli.app import app, main

__all__ = ["app", "bench", "bench_kernels", "catalog", "check", "compile", "literature", "main", "ops", "schema"]
