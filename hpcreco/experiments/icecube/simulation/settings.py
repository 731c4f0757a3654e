"""Everything that decides a simulated event besides the seed, its number and the detector."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcreco.config import Strict
from hpcreco.experiments.icecube.light import Ice

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]

VERSION = 1  # raise when equal settings give other numbers: finished files become stale


class Hypothesis(Strict):
    """What is simulated, and where.

    kind: one cascade; `n_cascades` in a row, uniform distances up to `max_distance` m; or a track of equidistant
    cascades with log-normal losses. energy: GeV, log-uniform; of every cascade, or the sum over a track's.
    radius, half_height: of the cylinder that holds the vertices (a track's anchor), m; by default a little less than
    the detector's radius, a little more than its height. time: of the vertex, ns.
    """

    kind: Literal["cascade", "cascades", "track"] = "cascade"
    energy: Range = (1e2, 1e6)
    radius: Positive | None = None
    half_height: Positive | None = None
    time: Range = (9500.0, 10500.0)
    n_cascades: int = Field(default=2, ge=1)
    max_distance: Positive = 500.0
    spacing: Positive = 15.0
    loss_sigma: float = Field(default=1.0, ge=0)
    cylinder_radius: Positive = 600.0
    cylinder_half_height: Positive = 500.0


class Readout(Strict):
    """window: ns, moved by up to ± `jitter`. max_pulses: of a DOM, 0 for no limit; a DOM with more photons has them
    grouped in the order of time. charge: every photon 1 PE, or single-photo-electron charges around 1.
    """

    window: Range = (5000.0, 17000.0)
    jitter: float = Field(default=0.0, ge=0)
    max_pulses: int = Field(default=200, ge=0)
    charge: Literal["unit", "spe"] = "unit"
    time_jitter: float = Field(default=0.0, ge=0)


class DeadTime(Strict):
    """A DOM that saw light has a random gap with `probability`, of log-uniform length; above `saturation` PE one
    around the peak of its light.
    """

    probability: Fraction = 0.03
    length: Range = (100.0, 3000.0)
    saturation: Positive | None = 1000.0


class Bright(Strict):
    """DOMs with more than `fraction` of the event's charge and more than `at_least` PE are excluded."""

    fraction: Positive = 0.4
    at_least: float = Field(default=100.0, ge=0)


class Smearing(Strict):
    """Widths of the start value `smeared` around the truth: m, degrees, of ln E, ns."""

    position: float = 10.0
    angle: float = 15.0
    energy: float = 0.3
    time: float = 30.0


class Settings(Strict):
    """systematics: α of the Gamma factor on each DOM's light, which makes counts negative binomial. noise: factor on
    the DOMs' noise rates.
    """

    hypothesis: Hypothesis = Hypothesis()
    ice: Ice = Ice()
    systematics: float = Field(default=0.0, ge=0)
    noise: float = Field(default=1.0, ge=0)
    readout: Readout = Readout()
    dead_time: DeadTime = DeadTime()
    bright: Bright | None = Bright()
    smearing: Smearing = Smearing()
