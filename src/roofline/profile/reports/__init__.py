"""Reports of the vendors' profilers on kernels: Nsight Compute, Nsight Systems, rocprofv3."""
