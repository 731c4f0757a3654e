"""hpcreco: train and run particle-physics reconstruction networks on HPC systems."""

__version__ = "0.1.0"
