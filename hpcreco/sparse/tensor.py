"""Features on the active sites of a grid, and the way from rows of coordinates to them and back."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

BACKENDS = {
    "native": "hpcreco.sparse.native:NativeSites",
    "minkowski": "hpcreco.sparse.minkowski:MinkowskiSites",
}
BATCHES = 1 << 15
EXTENT = (1 << 16) - 64
"""Coordinates are packed in 16 bits per axis; the last 64 stay free, so that a kernel never reaches into the
next row of the grid.
"""

_default = "native"

Triple = tuple[int, int, int]


class SparseError(ValueError):
    """Coordinates, features or a backend that cannot be used; the message says what was expected."""

    exit_code = 1


class Sites(Protocol):
    """The active sites of one resolution level in one backend's row order, with the kernel maps built on
    them so far.

    Weights are (K, C_in, C_out) with kernel offsets in lexicographic (x, y, z) order in every backend.
    Features are (N, C) in row order.
    """

    coords: Tensor
    """(N, 4) int32: batch, x, y, z in units of this level's cells."""
    stride: Triple
    """Cells of the finest level per cell of this one."""

    def submanifold(
        self, features: Tensor, weight: Tensor, kernel: Triple, base: Tensor | None
    ) -> Tensor: ...

    def coarser(self, kernel: Triple, stride: Triple) -> Sites: ...

    def pairs(self, kernel: Triple, stride: Triple | None) -> Any:
        """The native backend's map from these sites to themselves, or to `coarser` where a stride is given; None of
        another backend.
        """

    def down(self, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple) -> Tensor: ...

    def up(self, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple) -> Tensor: ...


@dataclass(frozen=True)
class SparseTensor:
    """Features (N, C) on N active sites.

    moments (2, C) float64: sums over the rows of the features and of their squares, where the layer that made the
    features took them too.
    """

    features: Tensor
    sites: Sites
    moments: Tensor | None = None

    @property
    def coords(self) -> Tensor:
        """(N, 4) int32: batch, x, y, z in units of this level's cells."""
        return self.sites.coords

    @property
    def stride(self) -> Triple:
        """Cells of the finest level per cell of this one."""
        return self.sites.stride

    def replace(self, features: Tensor) -> SparseTensor:
        """The same sites with other features."""
        return SparseTensor(features, self.sites)


def use(backend: str) -> contextlib.AbstractContextManager[None]:
    """Make `backend` ("native" or "minkowski") the default; as a context manager, until its end.

    Raises SparseError for a name that is not known or a backend that is not installed.
    """
    global _default
    _sites_class(backend).require()
    before, _default = _default, backend
    return _restoring(before)


@contextlib.contextmanager
def _restoring(before: str) -> Iterator[None]:
    global _default
    try:
        yield
    finally:
        _default = before


def backend() -> str:
    """The name of the default backend."""
    return _default


def _sites_class(name: str) -> Any:
    if name not in BACKENDS:
        raise SparseError(f"sparse.backend: {name!r} is not one of {', '.join(BACKENDS)}")
    module, attribute = BACKENDS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def voxelize(
    coords: Tensor, features: Tensor, spatial_size: Sequence[int] | None = None, backend: str | None = None
) -> tuple[SparseTensor, Tensor]:
    """Rows of coordinates and features -> one site per distinct coordinate, features of duplicates summed.

    coords (N, 4) integers (batch, x, y, z) in any order; features (N, C); spatial_size: exclusive upper
    limits of x, y, z.
    Returns the tensor and the int64 inverse map (N,): `tensor.features[inverse]` has the rows of the input
    again. The order of the sites depends on the coordinates only, not on the order of the rows.
    Raises SparseError for other shapes and for coordinates outside of spatial_size.
    """
    if coords.ndim != 2 or coords.shape[1] != 4 or coords.is_floating_point():
        raise SparseError(
            f"coords must be integers of shape (N, 4) = batch, x, y, z; "
            f"got {coords.dtype} {tuple(coords.shape)}"
        )
    if features.ndim != 2 or len(features) != len(coords):
        raise SparseError(
            f"features must have shape ({len(coords)}, C) like coords; got {tuple(features.shape)}"
        )
    keys, inverse = _distinct(coords, spatial_size)
    sites, order = _sites_class(backend or _default).build(unpack(keys), keys)
    if order is not None:
        inverse = torch.empty_like(order).index_put_((order,), torch.arange(len(order), device=order.device))[
            inverse
        ]
    if in_order(inverse, len(keys)):
        return SparseTensor(features, sites), inverse
    summed = features.new_zeros(len(keys), features.shape[1]).index_add(0, inverse, features)
    return SparseTensor(summed, sites), inverse


def in_order(inverse: Tensor, n_sites: int) -> bool:
    """Whether the rows that were voxelised are the sites in their order, as far as this is known without waiting for a
    device.
    """
    if inverse.device.type != "cpu" or len(inverse) != n_sites:
        return False
    return bool((inverse == torch.arange(n_sites)).all())


def _distinct(coords: Tensor, spatial_size: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Sorted keys of the distinct coordinates (N, 4) and each row's place among them. Raises SparseError for
    coordinates outside of spatial_size.
    """
    if coords.device.type == "cpu":
        from hpcreco.sparse import search

        keys, low, high, ascending = search.pack(coords.long().contiguous().numpy())
        if len(coords):
            _check_range(low.tolist(), high.tolist(), spatial_size)
        if ascending:
            return torch.from_numpy(keys), torch.arange(len(coords))
        distinct, number = search.number(keys, torch.sort(torch.from_numpy(keys)).indices.numpy())
        return torch.from_numpy(distinct), torch.from_numpy(number).long()
    if len(coords):
        _check_range(coords.amin(0).tolist(), coords.amax(0).tolist(), spatial_size)
    return torch.unique(pack(coords), return_inverse=True)


def _check_range(low: list[int], high: list[int], spatial_size: Sequence[int] | None) -> None:
    limits = (BATCHES, *(min(EXTENT, size) for size in spatial_size or (EXTENT,) * 3))
    for axis, lowest, highest, limit in zip(("batch", "x", "y", "z"), low, high, limits, strict=True):
        if lowest < 0 or highest >= limit:
            raise SparseError(
                f"sparse coordinates: {axis} runs from {lowest} to {highest}, expected 0 to {limit - 1}; "
                "check spatial_size and the data's cell size"
            )


def pack(coords: Tensor) -> Tensor:
    """(N, 4) batch, x, y, z -> (N,) int64 keys that sort like the rows; differences of keys are differences
    of coordinates.
    """
    b, x, y, z = coords.long().unbind(1)
    return (b << 48) + (x << 32) + (y << 16) + z


def unpack(keys: Tensor) -> Tensor:
    """The inverse of `pack`, as int32."""
    return torch.stack([keys >> 48, keys >> 32 & 0xFFFF, keys >> 16 & 0xFFFF, keys & 0xFFFF], 1).int()


def concatenate(first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """Channels of two tensors on the same sites side by side, `first` first. Raises SparseError when the
    sites differ.
    """
    if first.sites is not second.sites:
        raise SparseError("concatenate: the two tensors live on different sites")
    features = torch.cat([first.features, second.features], 1)
    if first.moments is None or second.moments is None:
        return first.replace(features)
    return SparseTensor(features, first.sites, torch.cat([first.moments, second.moments], 1))
