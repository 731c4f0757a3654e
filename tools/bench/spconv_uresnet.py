"""hpcreco's UResNet of spconv's modules, layer by layer and width by width, for a comparison of speed."""

from __future__ import annotations

import spconv.pytorch as spconv
import torch
from torch import Tensor, nn


class SpconvUResNet(nn.Module):
    """Widths width, 2 width, ..., levels * width; two residual blocks per level and direction, windows of 2 cells."""

    def __init__(self, width: int, levels: int, in_features: int = 3) -> None:
        super().__init__()
        self.stem = spconv.SubMConv3d(in_features, width, 3, bias=False, indice_key="sites0")
        self.levels = nn.ModuleList(Level(width * (i + 1), width, i, i + 1 == levels) for i in range(levels))
        self.norm = Normalised(width)

    def forward(self, coords: Tensor, features: Tensor) -> Tensor:
        """coords (N, 4) int32 distinct: batch, x, y, z; features (N, in_features) -> (N, width)."""
        size = [int(n) + 1 for n in coords[:, 1:].amax(0)]
        x = self.stem(spconv.SparseConvTensor(features, coords, size, int(coords[:, 0].max()) + 1))
        skips = []
        for level in self.levels:
            x = level.before(x)
            skips.append(x)
            if level.down is not None:
                x = level.down(level.down_norm(x))
        x = skips.pop()
        for level, skip in zip(reversed(self.levels[:-1]), reversed(skips), strict=True):
            raised = level.up(level.up_norm(x))
            x = level.after(skip.replace_feature(torch.cat([skip.features, raised.features], 1)))
        return self.norm(x).features


class Level(nn.Module):
    """One resolution; the deepest has blocks on the way down only."""

    def __init__(self, width: int, step: int, number: int, deepest: bool) -> None:
        super().__init__()
        sites, window = f"sites{number}", f"window{number}"
        self.before = nn.Sequential(Block(width, width, sites), Block(width, width, sites))
        self.down = None
        if deepest:
            return
        self.down_norm, self.up_norm = Normalised(width), Normalised(width + step)
        self.down = spconv.SparseConv3d(width, width + step, 2, stride=2, bias=False, indice_key=window)
        self.up = spconv.SparseInverseConv3d(width + step, width, 2, bias=False, indice_key=window)
        self.after = nn.Sequential(Block(2 * width, width, sites), Block(width, width, sites))


class Block(nn.Module):
    """x, or a linear map of it, + two rounds of norm, activation, convolution."""

    def __init__(self, c_in: int, c_out: int, sites: str) -> None:
        super().__init__()
        self.shortcut = None if c_in == c_out else spconv.SubMConv3d(c_in, c_out, 1, bias=False)
        self.norm1, self.norm2 = Normalised(c_in), Normalised(c_out)
        self.conv1 = spconv.SubMConv3d(c_in, c_out, 3, bias=False, indice_key=sites)
        self.conv2 = spconv.SubMConv3d(c_out, c_out, 3, bias=False, indice_key=sites)

    def forward(self, x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        """The same sites."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return y.replace_feature(y.features + shortcut.features)


class Normalised(nn.Module):
    """Batch norm and ReLU of the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-4, momentum=0.01)

    def forward(self, x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        """The same sites."""
        return x.replace_feature(torch.relu_(self.norm(x.features)))
