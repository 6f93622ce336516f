"""Inputs that nobody would write: `python -m tests.fuzz --help`.

Each module has one kind of input: operators (calls with wrong arguments), documents (texts and
data in the place of specs), hostile (specs that keep `check` busy), networks (valid specs), sizes
(of inputs) and files (damaged and hostile artifacts). An input follows from its number alone, so a
finding is reproduced by its number. What was found is in corpus/, which `test_fuzz.py` runs too.
"""
