"""Measures networks and kernels against their peers, each in a process of its own.

`networks` and `kernels` lead, and need no torch; `worker` is the process that they drive.
"""
