"""Benchmarks of networks and kernels, with every variant in a process of its own.

`networks` and `kernels` drive the processes and need no torch; `worker` is what they start.
"""
