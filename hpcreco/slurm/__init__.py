"""Slurm: sending jobs, asking how they do, deciding whether they try again. Free of torch, numba and h5py."""
