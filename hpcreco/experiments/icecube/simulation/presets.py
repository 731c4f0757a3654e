"""What `hpcreco simulate icecube --preset NAME` makes."""

from __future__ import annotations

from dataclasses import dataclass

from hpcreco.experiments.icecube.simulation.settings import Hypothesis, Readout, Settings


@dataclass(frozen=True)
class Preset:
    """`events` events of one kind in files of `per_file`, in the detector of that name."""

    summary: str
    detector: str
    events: int
    per_file: int
    settings: Settings


_UNMERGED = Readout(max_pulses=0)  # photons one by one: the analytic densities hold exactly
_HEX86 = Hypothesis(radius=550.0, half_height=550.0)

PRESETS = {
    "tiny": Preset(
        "2000 cascades of 1 to 100 TeV in 7 strings of 10 DOMs; seconds, for trying things out",
        "hex7x10",
        2000,
        250,
        Settings(hypothesis=Hypothesis(energy=(1e3, 1e5)), readout=_UNMERGED),
    ),
    "tiny-pairs": Preset(
        "500 pairs of cascades in a row, in the same small detector",
        "hex7x10",
        500,
        250,
        Settings(
            hypothesis=Hypothesis(kind="cascades", energy=(1e3, 1e5), max_distance=100.0), readout=_UNMERGED
        ),
    ),
    "tiny-tracks": Preset(
        "500 tracks of 10 equidistant cascades, in the same small detector",
        "hex7x10",
        500,
        250,
        Settings(
            hypothesis=Hypothesis(
                kind="track",
                energy=(1e3, 1e5),
                n_cascades=10,
                cylinder_radius=125.0,
                cylinder_half_height=76.5,
            ),
            readout=_UNMERGED,
        ),
    ),
    "hex86": Preset(
        "10 000 cascades of 100 GeV to 1 PeV in 86 strings of 60 DOMs; minutes",
        "hex86",
        10_000,
        1000,
        Settings(hypothesis=_HEX86),
    ),
    "pairs": Preset(
        "10 000 pairs of cascades up to 500 m apart, in 86 strings of 60 DOMs",
        "hex86",
        10_000,
        1000,
        Settings(hypothesis=_HEX86.model_copy(update={"kind": "cascades"})),
    ),
    "tracks": Preset(
        "10 000 tracks of 10 equidistant cascades, in 86 strings of 60 DOMs",
        "hex86",
        10_000,
        1000,
        Settings(hypothesis=_HEX86.model_copy(update={"kind": "track", "n_cascades": 10})),
    ),
    "full": Preset(
        "a million cascades in 86 strings of 60 DOMs; for a cluster",
        "hex86",
        1_000_000,
        1000,
        Settings(hypothesis=_HEX86),
    ),
}
