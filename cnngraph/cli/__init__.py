"""The commands, one file each. They parse, call the library and print; what is printed is made in `report/`."""

from cnngraph.cli import check, compile, ops, schema
from cnngraph.cli.app import app, main

__all__ = ["app", "check", "compile", "main", "ops", "schema"]
