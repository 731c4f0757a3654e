"""Sparse tensors and convolutions on them, with two backends of the same results and the same weights.

from hpcreco import sparse

x, inverse = sparse.voxelize(coords, features)      # coords (N, 4): batch, x, y, z
fine = sparse.SubmanifoldConv(3, 16)(x)
coarse = sparse.DownConv(16, 32, kernel=2, stride=2)(fine)
back = sparse.UpConv(32, 16, kernel=2, stride=2)(coarse, onto=fine)
rows = sparse.concatenate(fine, back).features[inverse]
"""

from hpcreco.sparse.modules import DownConv, SubmanifoldConv, UpConv, triple
from hpcreco.sparse.tensor import (
    BACKENDS,
    Sites,
    SparseError,
    SparseTensor,
    Triple,
    backend,
    concatenate,
    in_order,
    use,
    voxelize,
)

__all__ = [
    "BACKENDS",
    "DownConv",
    "Sites",
    "SparseError",
    "SparseTensor",
    "SubmanifoldConv",
    "Triple",
    "UpConv",
    "backend",
    "concatenate",
    "in_order",
    "triple",
    "use",
    "voxelize",
]
