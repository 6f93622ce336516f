"""The commands, one file each. They parse, call the library and print; what is printed is made in `report/`."""

from cnngraph.cli import catalog, check, compile, literature, ops, schema
from cnngraph.cli.app import app, main

__all__ = ["app", "catalog", "check", "compile", "literature", "main", "ops", "schema"]
