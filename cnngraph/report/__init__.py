"""What the commands and notebooks show: one file a thing. Nothing here is imported by `import cnngraph`."""
