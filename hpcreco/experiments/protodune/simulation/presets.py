"""What `hpcreco simulate protodune --preset NAME` makes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcreco.experiments.protodune.geometry import DRIFT_PER_TICK, REAL_TPCS
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.generator import Crop


@dataclass(frozen=True)
class Sample:
    """`files` files of `events` events each, numbered from `first_index`."""

    event_type: str
    first_index: int
    files: int
    events: int
    tpcs: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Preset:
    """Samples made with the same settings."""

    summary: str
    samples: tuple[Sample, ...]
    settings: Settings = field(default_factory=Settings)


#: 300 ticks x 400 mm x 400 mm in the middle of the face
TINY_BOX = Crop(low=(2000 * DRIFT_PER_TICK, 2800.0, 900.0), high=(2300 * DRIFT_PER_TICK, 3200.0, 1300.0))

PRESETS = {
    "tiny": Preset(
        "12 files of 2 events, one muon and one shower in a small box; seconds, for trying things out",
        (Sample("BeamCosmic", 1, 12, 2),),
        Settings(crop=TINY_BOX),
    ),
    "small": Preset(
        "10 files of 5 cosmic events of TPC 1; about a minute",
        (Sample("BeamCosmic", 1, 10, 5),),
    ),
    "full": Preset(
        "1000 files of 5 cosmic events in all six TPCs, and of 100 electrons, muons and pions each in TPC 1; "
        "for a cluster",
        (
            Sample("BeamCosmic", 1, 1000, 5, REAL_TPCS),
            *(Sample(particle, 1, 1000, 100) for particle in ("Electron", "Mu", "Pion")),
        ),
    ),
}
