"""The array of DOMs: where they hang, how well they see, how much noise they make, which are dead.

DOMs are numbered through the whole detector, ``string * doms_per_string + dom``. Strings with fewer DOMs than the
longest are filled up with dead ones of efficiency 0 that hang where the string's last DOM hangs.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hpcreco import shards

DETECTOR = shards.Schema(
    "hpcreco/icecube/detector",
    1,
    attributes=(shards.Attribute("sha256", "str"), shards.Attribute("name", "str", volatile=True)),
)


class DetectorError(ValueError):
    """A detector that cannot be used: unknown name, unreadable file, not the one that the data were made for."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class Detector:
    """S strings of D DOMs.

    positions: (S, D, 3) float64, m, centred, z up. efficiency: (S, D) float32, relative. noise_rate: (S, D) float64,
    1/ns. dead: (S, D) bool, DOMs that never see anything: excluded from every event.
    """

    positions: np.ndarray
    efficiency: np.ndarray
    noise_rate: np.ndarray
    dead: np.ndarray
    name: str = ""

    def __post_init__(self) -> None:
        if self.positions.ndim != 3 or self.positions.shape[2] != 3:
            raise DetectorError(f"positions should be (strings, DOMs, 3), they are {self.positions.shape}")
        for name, dtype in (("efficiency", np.float32), ("noise_rate", np.float64), ("dead", np.bool_)):
            array = np.ascontiguousarray(getattr(self, name), dtype)
            if array.shape != self.positions.shape[:2]:
                raise DetectorError(
                    f"{name} should be {self.positions.shape[:2]} (strings, DOMs), it is {array.shape}"
                )
            object.__setattr__(self, name, array)
        object.__setattr__(self, "positions", np.ascontiguousarray(self.positions, np.float64))

    @property
    def n_strings(self) -> int:
        return self.positions.shape[0]

    @property
    def doms_per_string(self) -> int:
        return self.positions.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(strings, DOMs per string)."""
        return self.n_strings, self.doms_per_string

    @property
    def n_doms(self) -> int:
        """M, all places of the grid."""
        return self.n_strings * self.doms_per_string

    @property
    def flat_positions(self) -> np.ndarray:
        """(M, 3) float64, m."""
        return self.positions.reshape(-1, 3)

    @property
    def flat_efficiency(self) -> np.ndarray:
        """(M,) float32."""
        return self.efficiency.reshape(-1)

    @property
    def flat_noise_rate(self) -> np.ndarray:
        """(M,) float64, 1/ns."""
        return self.noise_rate.reshape(-1)

    @property
    def flat_dead(self) -> np.ndarray:
        """(M,) bool."""
        return self.dead.reshape(-1)

    @property
    def radius(self) -> float:
        """Largest distance of a DOM from the z axis, m."""
        return float(np.hypot(self.positions[..., 0], self.positions[..., 1]).max())

    @property
    def half_height(self) -> float:
        """Largest |z| of a DOM, m."""
        return float(np.abs(self.positions[..., 2]).max())

    @cached_property
    def sha256(self) -> str:
        """Digest of the little-endian float64 bytes of positions, efficiency and noise."""
        digest = hashlib.sha256()
        for array in (self.positions, self.efficiency, self.noise_rate):
            digest.update(np.ascontiguousarray(array, "<f8").tobytes())
        return digest.hexdigest()


def file_name(sha256: str) -> str:
    """Name of the artefact of a detector, which lies beside its shards."""
    return f"detector-{sha256[:12]}.h5"


def write(detector: Detector, folder: str | os.PathLike[str]) -> Path:
    """Write the artefact into `folder`, unless it is there; returns its path."""
    path = Path(folder) / file_name(detector.sha256)
    if not path.is_file():
        arrays = {name: getattr(detector, name) for name in ("positions", "efficiency", "noise_rate", "dead")}
        shards.write_artefact(path, DETECTOR, {"sha256": detector.sha256, "name": detector.name}, arrays)
    return path


def read(path: str | os.PathLike[str]) -> Detector:
    """The detector of an artefact. Raises DetectorError when its content is not what its digest says."""
    artefact = shards.read_artefact(path, DETECTOR)
    detector = Detector(**artefact.arrays, name=artefact.attributes["name"])
    if detector.sha256 != artefact.attributes["sha256"]:
        raise DetectorError(f"{path}: positions, efficiency or noise were changed; make the file again")
    return detector


def beside(shard: str | os.PathLike[str], sha256: str) -> Detector:
    """The detector of a shard, from the artefact in the same folder."""
    path = Path(shard).parent / file_name(sha256)
    if not path.is_file():
        raise DetectorError(
            f"{shard}: its detector {path.name} is not beside it; copy it from the folder the shard was made in"
        )
    detector = read(path)
    if detector.sha256 != sha256:
        raise DetectorError(
            f"{path} is not the detector of {shard}: {detector.sha256[:12]}, not {sha256[:12]}"
        )
    return detector
