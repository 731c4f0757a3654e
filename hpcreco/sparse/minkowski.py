"""The MinkowskiEngine backend (Choy et al. 1904.08755): its coordinate manager and functions, our weights.

MinkowskiEngine numbers kernel offsets with x running fastest and keeps the rows of every level in an order of
its own; both are put right here, so that weights and results are those of the native backend.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpcreco.sparse.native import NativeSites
from hpcreco.sparse.tensor import SparseError, Triple


@functools.cache
def engine() -> ModuleType:
    """The MinkowskiEngine package. Raises SparseError where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a CPU-only build
            import MinkowskiEngine
    except ImportError as error:
        raise SparseError(
            f"sparse.backend: minkowski needs MinkowskiEngine, which cannot be imported ({error}); "
            "install it or use sparse.backend: native"
        ) from None
    return MinkowskiEngine


@functools.cache
def _convolution_mode() -> Any:
    engine()
    return importlib.import_module("MinkowskiEngineBackend._C").ConvolutionMode.DEFAULT


class MinkowskiSites:
    """Active sites in MinkowskiEngine's order; its manager keeps the kernel maps of the level."""

    def __init__(self, manager: Any, key: Any, stride: Triple = (1, 1, 1)) -> None:
        self._manager, self.key = manager, key
        self.stride = stride
        coords = manager.get_coordinates(key)
        cells = torch.tensor([1, *stride], dtype=coords.dtype, device=coords.device)
        self.coords = torch.div(coords, cells, rounding_mode="floor")
        self._coarser: dict[tuple[Triple, Triple], MinkowskiSites] = {}

    @staticmethod
    def require() -> None:
        """Raises SparseError where MinkowskiEngine cannot be imported."""
        engine()

    @classmethod
    def build(cls, coords: Tensor, keys: Tensor) -> tuple[MinkowskiSites | NativeSites, Tensor | None]:
        """Sites of distinct coordinates and, for each of them in their order, its row of `coords`.

        MinkowskiEngine refuses an empty set of coordinates: then the sites are native ones, on which nothing is
        computed. Raises SparseError for coordinates on a GPU when the engine was built for the CPU only.
        """
        me = engine()
        if coords.is_cuda and not me.is_cuda_available():
            raise SparseError(
                f"sparse.backend: minkowski was built for the CPU only, and the data are on {coords.device}; build it "
                "for GPUs (HPCRECO_CUDA=torch tools/setup minkowski), or use sparse.backend: native or --device cpu"
            )
        if not len(coords):
            return NativeSites.build(coords, keys)
        kind = me.CoordinateMapType.CUDA if coords.is_cuda else me.CoordinateMapType.CPU
        manager = me.CoordinateManager(D=3, num_threads=torch.get_num_threads(), coordinate_map_type=kind)
        key, (order, _) = manager.insert_and_map(coords.contiguous(), [1, 1, 1])
        return cls(manager, key), order.long() if len(order) else None

    def submanifold(
        self, features: Tensor, weight: Tensor, kernel: Triple, base: Tensor | None = None
    ) -> Tensor:
        """See NativeSites.submanifold."""
        if kernel == (1, 1, 1):
            out = features @ weight[0]
        else:
            out = self._apply("MinkowskiConvolutionFunction", features, weight, kernel, (1, 1, 1), self, self)
        return out if base is None else base + out

    def coarser(self, kernel: Triple, stride: Triple) -> MinkowskiSites:
        """See NativeSites.coarser. Raises SparseError unless kernel == stride: other windows have other sites here."""
        if kernel != stride:
            raise SparseError(f"sparse.backend: minkowski needs kernel == stride, got {kernel} and {stride}")
        if (kernel, stride) not in self._coarser:
            x, y, z = (a * b for a, b in zip(self.stride, stride, strict=True))
            if stride == (1, 1, 1):
                key = self.key
            else:
                key = self._manager.stride(self.key, list(stride))
            self._coarser[kernel, stride] = MinkowskiSites(self._manager, key, (x, y, z))
        return self._coarser[kernel, stride]

    def pairs(self, kernel: Triple, stride: Triple | None) -> None:
        """None: the maps are the engine's own."""

    def down(self, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple) -> Tensor:
        """See NativeSites.down."""
        coarser = self.coarser(kernel, stride)
        return self._apply("MinkowskiConvolutionFunction", features, weight, kernel, stride, self, coarser)

    def up(self, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple) -> Tensor:
        """See NativeSites.up."""
        coarser = self.coarser(kernel, stride)
        return self._apply(
            "MinkowskiConvolutionTransposeFunction", features, weight, kernel, stride, coarser, self
        )

    def _apply(
        self, name: str, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple, come: Any, go: Any
    ) -> Tensor:
        me = engine()
        spatial = weight.unflatten(0, kernel)
        if stride != (1, 1, 1):
            # MinkowskiEngine centres odd kernels; with a plane of zeros at the end they start at 0 like even ones.
            missing = [int(size > 1 and size % 2 == 1) for size in kernel]
            spatial = F.pad(spatial, (0, 0, 0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        size = list(spatial.shape[:3])
        generator = me.KernelGenerator(kernel_size=size, stride=list(stride), dilation=1, dimension=3)
        ours = spatial.transpose(0, 2).flatten(0, 2)  # x fastest
        return getattr(me, name).apply(
            features.to(ours.dtype), ours, generator, _convolution_mode(), come.key, go.key, self._manager
        )
