"""Networks for images: a plain CNN, and whatever torchvision has under a name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpcreco.config import ConfigError, nearest
from hpcreco.experiments.protodune.plugins import data
from hpcreco.experiments.protodune.settings import Settings
from hpcreco.nn import lookup


class CNN(nn.Module):
    """conv 3x3 + ReLU + max-pooling for each of `conv_sizes`, then `fc_sizes` with dropout: scores (N, n_classes)."""

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        conv_sizes: Sequence[int] = (8, 16),
        fc_sizes: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        shrink = 2 ** len(conv_sizes)
        if height < shrink or width < shrink:
            raise ValueError(
                f"{len(conv_sizes)} conv_sizes halve an image that often; {height} x {width} is too small"
            )
        layers: list[nn.Module] = []
        for before, after in zip((channels, *conv_sizes), conv_sizes, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        flat = (conv_sizes[-1] if conv_sizes else channels) * (height // shrink) * (width // shrink)
        layers.append(nn.Flatten())
        for before, after in zip((flat, *fc_sizes), fc_sizes, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(fc_sizes[-1] if fc_sizes else flat, n_classes))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) -> scores (N, n_classes), not yet exponentiated."""
        scores: Tensor = self.layers(images)
        return scores


def build(settings: Settings) -> nn.Module:
    """The model of a config with images: `cnn`, ``module:Class``, or a model of torchvision by its name.

    Image shape and number of classes come from the data set where the config leaves them out. Raises ConfigError.
    """
    name, arguments = settings.model.name, dict(settings.model.arguments)
    assert settings.made is not None  # images are always made
    source = data.build(settings.made)
    if name == "cnn":
        known = {k: getattr(source, k) for k in ("input_shape", "n_classes") if hasattr(source, k)}
        return lookup.make(CNN, {**known, **arguments}, "model")  # type: ignore[no-any-return]
    if ":" not in name:
        if hasattr(source, "n_classes"):
            arguments.setdefault("num_classes", source.n_classes)
        return of_torchvision(name, arguments)
    made = lookup.make(lookup.find(name, {}, "model.name"), arguments, "model")
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model.name: {name} makes a {type(made).__name__}, not a torch.nn.Module")
    return made


def of_torchvision(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """``torchvision.models.NAME(**arguments)``; ConfigError when torchvision is absent or has no such model."""
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ConfigError(
            f"model.name: {name} is not one of hpcreco's (cnn, or module:Class of your own), and torchvision, which "
            f"may have it, cannot be imported ({error}); install the version that belongs to torch {torch.__version__}"
        ) from error
    known = list(models.list_models())
    if name not in known:
        close = nearest(name, [*known, "cnn"])
        hint = f"; did you mean {close!r}?" if close else ""
        raise ConfigError(f"model.name: neither hpcreco nor torchvision has a model {name!r}{hint}")
    try:
        made: nn.Module = models.get_model(name, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: torchvision's {name}: {error}") from error
    return made
