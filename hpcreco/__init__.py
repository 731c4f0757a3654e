"""hpcreco: train and run particle-physics reconstruction networks on HPC systems."""

import os

# OpenMP threads that wait by spinning take the core from the threads they wait for wherever ranks, jobs or loader
# threads share cores: a training step then takes five times as long. OpenMP reads this when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# torch's larger tensors in huge pages, where the system lends them: sparse convolutions read rows from all over their
# input, and looking up small pages takes a sixth of the time of inference. torch reads this once.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
