"""The networks of ProtoDUNE by their original names and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpcreco.config import ConfigError
from hpcreco.experiments.protodune.settings import CellNet, ChargeCellNet, Settings
from hpcreco.nn import lookup
from hpcreco.nn.uresnet import UResNet


class SparseCellNet(UResNet):
    """The sparse UResNet backbone under its users' argument names; see `settings.CellNet` for what they mean.

    `levels[k]` treats every drift slice by itself for k < n_2D; `momentum` is the kept fraction of the old
    running mean.
    """

    def __init__(self, arguments: CellNet, backend: str | None = None) -> None:
        super().__init__(
            arguments.nChannels,
            arguments.nStrides,
            arguments.nInputFeatures,
            repetitions=arguments.reps,
            kernel=arguments.conv_kernel,
            planar_levels=arguments.n_2D,
            down=arguments.downsample,
            down_x=arguments.downsample_t,
            spatial_size=arguments.spatial_size,
            keep=arguments.momentum,
            leakiness=arguments.leakiness,
            backend=backend,
        )


class BinarySparseCellNet(nn.Module):
    """Backbone -> Linear(m, 1) -> sigmoid: the probability that a voxel holds charge."""

    def __init__(self, arguments: CellNet, backend: str | None = None) -> None:
        super().__init__()
        self.backbone = SparseCellNet(arguments, backend)
        self.head = nn.Linear(arguments.nChannels, 1)

    def logits(self, coords: Tensor, features: Tensor) -> Tensor:
        """(N, 1) log odds; arguments as for `forward`."""
        return self.head(self.backbone(coords, features).rows)

    def forward(self, coords: Tensor, features: Tensor) -> Tensor:
        """coords (N, 4) int32 batch, x, y, z; features (N, F) -> probabilities (N, 1), row by row."""
        return torch.sigmoid(self.logits(coords, features))


class ChargeSparseCellNet(nn.Module):
    """Backbone -> nHiddenLayers x (Linear(m, m), ReLU) -> Linear(m, 1): the electrons in a voxel.

    The head has another name than the binary network's, so that its weights are never taken for it.
    """

    def __init__(self, arguments: ChargeCellNet, backend: str | None = None) -> None:
        super().__init__()
        width = arguments.nChannels
        self.backbone = SparseCellNet(arguments, backend)
        hidden = [
            part for _ in range(arguments.nHiddenLayers) for part in (nn.Linear(width, width), nn.ReLU())
        ]
        self.regression = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, coords: Tensor, features: Tensor) -> Tensor:
        """coords (N, 4) int32 batch, x, y, z; features (N, F) -> charges (N, 1) in the unit of the squeezed labels."""
        return self.regression(self.backbone(coords, features).rows)  # type: ignore[no-any-return]


#: what trains when `freeze` keeps the backbone as it is
HEAD = ("regression.*",)


def _charge(arguments: Mapping[str, Any], backend: str | None) -> nn.Module:
    return ChargeSparseCellNet(ChargeCellNet(**arguments), backend)


def _binary(arguments: Mapping[str, Any], backend: str | None) -> nn.Module:
    return BinarySparseCellNet(CellNet(**arguments), backend)


_MODELS = {"cellnet_binary": _binary, "cellnet_charge": _charge}


def build(settings: Settings) -> nn.Module:
    """The model a config names: one of ours, or ``module:Class``, called with the section's arguments.

    A class of the user's own maps (coords, features) to predictions (N, 1). Raises ConfigError.
    """
    name, arguments = settings.model.name, settings.model.arguments
    found = lookup.find(name, _MODELS, "model.name")
    if name in _MODELS:
        return found(arguments, settings.sparse_backend)  # type: ignore[no-any-return]
    made = lookup.make(found, arguments, "model")
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model.name: {name} makes a {type(made).__name__}, not a torch.nn.Module")
    return made
