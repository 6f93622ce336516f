"""Text, tables and drawings for the terminal and notebooks. `import cnngraph` loads none of it."""
