"""Saved traces of torch's profiler: steps of engines, kernels by what they do, operators where there are shapes."""
