"""hpcreco: train and run particle-physics reconstruction networks on HPC systems."""

import os

# OpenMP threads that wait by spinning take the core from the threads they wait for wherever ranks, jobs or loader
# threads share cores: a training step then takes five times as long. OpenMP reads this when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
