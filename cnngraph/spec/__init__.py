"""YAML text -> document: positions, models, imports, expressions, and what a wrong word was meant to be."""
