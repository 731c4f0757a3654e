"""A U-shaped residual network on sparse voxels (UResNet; Ronneberger et al. 1505.04597, He et al.
1603.05027, sparse: 1903.05663).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from hpcreco import sparse
from hpcreco.nn import fused
from hpcreco.nn.normalisation import BatchNorm
from hpcreco.sparse import SparseTensor, in_order

Norm = Callable[[int], BatchNorm]


@dataclass(frozen=True)
class Maps:
    """What the network gives back.

    decoder: the decoder's map at every level, finest first; the deepest level's is the bottleneck. Its i-th
    entry has (i + 1) * width channels. rows: normalised and activated features (N, width) of the finest one,
    one row per input row, in their order.
    """

    rows: Tensor
    decoder: tuple[SparseTensor, ...]


class UResNet(nn.Module):
    """Residual U-network of level widths width, 2 width, ..., levels * width.

    width: channels of the finest level. levels: number of resolutions. in_features: columns of the input.
    repetitions: residual blocks per level on the way down and on the way up. kernel: size of the submanifold
    convolutions. down: (kernel, stride) of the step to the next level along y and z, down_x: along x.
    planar_levels: the finest levels that treat every x slice by itself: kernels and down-steps there have
    size 1 along x. spatial_size: exclusive upper limits of the coordinates x, y, z (None: those of the
    packing). keep: fraction of the old running statistics kept per step. leakiness: of the activation, 0 for
    ReLU. stem: makes `width` channels of the voxelised input; default: a convolution. backend: of the sparse
    operations; None: the default one.
    """

    def __init__(
        self,
        width: int,
        levels: int,
        in_features: int = 3,
        *,
        repetitions: int = 2,
        kernel: int = 3,
        planar_levels: int = 0,
        down: tuple[int, int] = (2, 2),
        down_x: tuple[int, int] = (2, 2),
        spatial_size: Sequence[int] | None = None,
        keep: float = 0.99,
        leakiness: float = 0.0,
        eps: float = 1e-4,
        stem: nn.Module | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.spatial_size, self.backend = spatial_size, backend

        def norm(channels: int) -> BatchNorm:
            return BatchNorm(channels, eps=eps, keep=keep, leakiness=leakiness)

        plans = [
            LevelPlan(
                width=width * (level + 1),
                kernel=(1 if level < planar_levels else kernel, kernel, kernel),
                down_kernel=(1 if level < planar_levels else down_x[0], down[0], down[0]),
                down_stride=(1 if level < planar_levels else down_x[1], down[1], down[1]),
            )
            for level in range(levels)
        ]
        self.stem = stem or sparse.SubmanifoldConv(in_features, width, plans[0].kernel)
        self.levels = nn.ModuleList(
            Level(plan, deeper.width if deeper else None, repetitions, norm)
            for plan, deeper in zip(plans, [*plans[1:], None], strict=True)
        )
        self.norm = norm(width)

    def forward(self, coords: Tensor, features: Tensor) -> Maps:
        """coords (N, 4) int32: batch, x, y, z, any order, duplicates summed; features (N, in_features).
        Events never mix.

        Raises SparseError for coordinates outside of spatial_size.
        """
        x, inverse = sparse.voxelize(coords, features, self.spatial_size, self.backend)
        decoder = self.decode(self.stem(x))
        rows = self.norm(decoder[0].features, decoder[0].moments)
        return Maps(rows if in_order(inverse, len(rows)) else rows.index_select(0, inverse), decoder)

    def decode(self, x: SparseTensor) -> tuple[SparseTensor, ...]:
        """Stem output (width channels) -> the decoder's maps, finest first."""
        levels = cast(Sequence[Level], self.levels)
        skips = []
        for level in levels:
            x = level.encode(x)
            skips.append(x)
            x = level.descend(x)
        x = skips.pop()
        maps = [x]
        for level, skip in zip(reversed(levels[:-1]), reversed(skips), strict=True):
            x = level.decode(skip, x)
            maps.append(x)
        return tuple(reversed(maps))


@dataclass(frozen=True)
class LevelPlan:
    """Sizes of one level and of the step below it."""

    width: int
    kernel: sparse.Triple
    down_kernel: sparse.Triple
    down_stride: sparse.Triple


class Level(nn.Module):
    """One resolution: blocks on the way down, the step down and back up, blocks on the way up; the deepest
    has only the first.
    """

    def __init__(self, plan: LevelPlan, deeper: int | None, repetitions: int, norm: Norm) -> None:
        super().__init__()
        width = plan.width
        self.before = nn.Sequential(
            *(ResidualBlock(width, width, plan.kernel, norm) for _ in range(repetitions))
        )
        if deeper is None:
            return
        self.down_norm = norm(width)
        self.down = sparse.DownConv(width, deeper, plan.down_kernel, plan.down_stride)
        self.up_norm = norm(deeper)
        self.up = sparse.UpConv(deeper, width, plan.down_kernel, plan.down_stride)
        self.after = nn.Sequential(
            *(ResidualBlock(width if i else 2 * width, width, plan.kernel, norm) for i in range(repetitions))
        )

    def encode(self, x: SparseTensor) -> SparseTensor:
        """The residual blocks of the way down."""
        return self.before(x)

    def descend(self, x: SparseTensor) -> SparseTensor:
        """To the next level's sites; the deepest level has none and returns x."""
        if not hasattr(self, "down"):
            return x
        return fused.convolved(self.down_norm, self.down, x)

    def decode(self, skip: SparseTensor, below: SparseTensor) -> SparseTensor:
        """The level's own map and the one of the next level below -> the decoder's map."""
        raised = fused.convolved(self.up_norm, self.up, below, onto=skip)
        return self.after(sparse.concatenate(skip, raised))


class ResidualBlock(nn.Module):
    """x (or a linear map of it, where the width changes) + two rounds of norm, activation, submanifold
    convolution.
    """

    def __init__(self, c_in: int, c_out: int, kernel: sparse.Triple, norm: Norm) -> None:
        super().__init__()
        self.shortcut = None if c_in == c_out else sparse.SubmanifoldConv(c_in, c_out, 1)
        self.norm1 = norm(c_in)
        self.conv1 = sparse.SubmanifoldConv(c_in, c_out, kernel)
        self.norm2 = norm(c_out)
        self.conv2 = sparse.SubmanifoldConv(c_out, c_out, kernel)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Sparse tensor of c_in channels -> of c_out channels, on the same sites."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        if self.norm2.training:
            y = fused.convolved(self.norm1, self.conv1, x)
            return fused.convolved(self.norm2, self.conv2, y, base=shortcut.features)
        y = fused.activated(self.conv1, self.norm2, x.replace(self.norm1(x.features, x.moments)))
        return self.conv2(y, base=shortcut.features)
