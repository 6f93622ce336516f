"""Text and tables for the terminal and notebooks. `import cnngraph` loads none of it."""
