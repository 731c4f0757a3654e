"""The native backend on GPUs: kernels in Triton, what launches them, and the choice of their block sizes."""
