"""YAML text -> document: positions, models, imports, expressions, and suggestions."""
