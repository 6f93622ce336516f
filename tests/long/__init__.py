"""Long runs, which take minutes and are not part of the tests: `python -m tests.long`.

Each module is one run. Its `main` prints what it saw, and raises `AssertionError` if it is not what
docs/reliability.md promises.
"""
