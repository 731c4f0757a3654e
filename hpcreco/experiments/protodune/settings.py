"""What a ProtoDUNE run is made of once its config is read: the part that the core does not look into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from hpcreco.config import Strict

Range = tuple[int, int]
Triple = tuple[int, int, int]


class Named(Strict):
    """A class by name (``Adam``, ``BCEL1Loss``, ``mypackage.losses:MyLoss``) and its arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Sources(Strict):
    """Folders of xy shards and which of their files to take; all tuples run parallel to `paths`.

    `train` and `validation` hold inclusive ranges of file indices, None for a folder to skip; they are None
    themselves when the run does not train, or has nothing to validate. `tpcs` filters both.
    """

    paths: tuple[Path, ...]
    train: tuple[Range | None, ...] | None = None
    validation: tuple[Range | None, ...] | None = None
    tpcs: tuple[tuple[int, ...] | None, ...]


class Noise(Strict):
    """Gaussian noise added to the charges, in their unit."""

    mean: float = 0.0
    sd: float = Field(ge=0)


class Transforms(Strict):
    """What happens to an event on reading, in this order.

    coord_lim: [low, high) per axis, None for no limit; in training only. z_segments: upper bounds along z, a
    one-hot column each. noise: on the charges. round: charges to so many decimals. scale: factor on the labels,
    one for all folders or one each.
    """

    coord_lim: tuple[Range | None, Range | None, Range | None] | None = None
    z_segments: tuple[int, ...] | None = None
    noise: Noise | None = None
    round: int | None = None
    scale: float | tuple[float, ...] = 1.0

    @model_validator(mode="after")
    def _segments_rise(self) -> Transforms:
        if self.z_segments is not None and list(self.z_segments) != sorted(set(self.z_segments)):
            raise ValueError("z_segments are the upper bounds of segments along z and must rise")
        return self


class Normalise(Strict):
    """Squeeze charges, which reach 1e5 electrons, into the size networks learn from: q / scale (linear), asinh(q /
    scale), or sign(q) log(1 + |q| / scale).

    `scale` is about the charge of a small deposit; `auto` takes the median of the positive ones in the training data.
    """

    kind: Literal["linear", "asinh", "log"] = "asinh"
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] = 1000.0


class Reading(Strict):
    """How an event becomes network input.

    threshold: labels become label > threshold, else they stay. full_truth: all true voxels come along, for the loss.
    normalise: the charges; normalise_labels: what the network learns to say, undone on what it says.
    """

    threshold: float | None = None
    transforms: Transforms = Transforms()
    full_truth: bool = False
    normalise: Normalise | None = None
    normalise_labels: Normalise | None = None

    @property
    def extra_features(self) -> int:
        """Number of feature columns that the transforms add to the charges."""
        return len(self.transforms.z_segments or ())


class CellNet(Strict):
    """Arguments of the sparse UResNet, by their original names.

    nChannels: width of the finest level. nStrides: number of levels. n_2D: number of the finest levels that
    treat each drift slice by itself. reps: residual blocks per level. downsample: (kernel, stride) along y
    and z, downsample_t: along drift. momentum: fraction of the old running mean that batch normalisation
    keeps. leakiness: slope of the activation below 0.
    """

    spatial_size: Triple = (1024, 1024, 512)
    nChannels: int = Field(default=16, ge=1)  # noqa: N815
    nStrides: int = Field(default=4, ge=1)  # noqa: N815
    n_2D: int = Field(default=0, ge=0)  # noqa: N815
    nInputFeatures: int = Field(default=3, ge=1)  # noqa: N815
    reps: int = Field(default=2, ge=1)
    conv_kernel: int = Field(default=3, ge=1)
    downsample: tuple[int, int] = (2, 2)
    downsample_t: tuple[int, int] = (4, 4)
    momentum: float = Field(default=0.99, ge=0, le=1)
    leakiness: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _odd_kernel(self) -> CellNet:
        if self.conv_kernel % 2 == 0:
            raise ValueError("conv_kernel must be odd: a submanifold convolution is centred on its site")
        return self


class ChargeCellNet(CellNet):
    """The charge network's: hidden layers of its head, and whether the backbone stays as it is."""

    nHiddenLayers: int = Field(default=1, ge=0)  # noqa: N815
    freeze: bool = False


class Rates(Strict):
    """Learning rate: scaling with the number of ranks, warm-up, a torch scheduler moved by steps or epochs.

    `metric` is the summary column that ReduceLROnPlateau watches.
    """

    scaling: Literal["none", "linear", "sqrt"] = "none"
    warmup_epochs: float = Field(default=0.0, ge=0)
    scheduler: Named | None = None
    interval: Literal["step", "epoch"] | None = None
    metric: str | None = None


class Settings(Strict):
    """Everything of a ProtoDUNE run that is not the core's business."""

    not_identity: ClassVar[tuple[str, ...]] = ("sources", "metrics", "sparse_backend", "greets")

    sources: Sources
    #: a data set that makes its events, in the place of files
    made: Named | None = None
    reading: Reading
    model: Named
    predicts: Literal["probability", "electrons"] = "probability"
    loss: Named | None = None
    optimizer: Named | None = None
    rates: Rates = Rates()
    metrics: dict[str, str] = Field(default_factory=dict)
    sparse_backend: str | None = None
    #: every rank says where it is, as the trainer `hello` does
    greets: bool = False
