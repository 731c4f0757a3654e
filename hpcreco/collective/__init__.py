"""Collective operations on numpy arrays and objects, over mpi4py or alone; never torch.

Sums are exact in the sense that matters here: all contributions are gathered and added in rank order, so that
every rank holds the same bits and a repeated run gives them again, whatever algorithm the MPI library
prefers.
"""

from hpcreco.collective.operations import Alone, Collective, on_root
from hpcreco.collective.start import connect, finish

__all__ = ["Alone", "Collective", "connect", "finish", "on_root"]
