"""What is remembered of a sample beside its curves: segments, particles, distances of errors, charge.

Arrays by name, in a form that adds up over files: histograms are summed, tables are concatenated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hpcreco.experiments.protodune.analysis import charge as _charge
from hpcreco.experiments.protodune.analysis import distances, particles, segments
from hpcreco.experiments.protodune.analysis import track as _track
from hpcreco.experiments.protodune.analysis.curve import N_BINS, histogram
from hpcreco.experiments.protodune.analysis.sample import ScoredEvent

#: histograms; every other array is a table whose first axis is events, particles or pieces of tracks
SUMMED = ("to_ghost", "to_true", "charge_kept", "charge_missed", "residuals")
#: per event (n_events, n_y, n_z, ...): files of other sizes are filled up with empty segments
PADDED = ("segment_true", "segment_ghost", "segment_missed")
STEP_MM, DEVIATION_MM = 20.0, 30.0
#: PDG codes, without sign, that leave tracks
TRACKS = (13, 211, 2212)


@dataclass(frozen=True)
class Grid:
    """The voxels' frame: cells (x, y, z), fine voxels per cell, mm per cell; electrons per unit of the truth."""

    shape: tuple[int, int, int]
    downsample: tuple[int, int, int]
    cell_mm: tuple[float, float, float]
    electrons: float = 1.0


@dataclass(frozen=True)
class EventTruth:
    """All true cells of an event above the cut: coords (M, 3), value (M,), ids (M,) where known, particles table."""

    coords: np.ndarray
    value: np.ndarray
    track_id: np.ndarray | None = None
    pdg: np.ndarray | None = None
    table: Mapping[str, np.ndarray] | None = None


@dataclass
class Detail:
    """Arrays by name, see `of_scores` and `of_charges`."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Nothing was added."""
        return not self.arrays

    def merge(self, other: Detail) -> None:
        """Add another's events behind these."""
        for name, array in other.arrays.items():
            if name not in self.arrays:
                self.arrays[name] = array
            elif name in SUMMED:
                self.arrays[name] = self.arrays[name] + array
            else:
                ours, theirs = _same_size(name, self.arrays[name], array)
                self.arrays[name] = np.concatenate([ours, theirs])

    def shift_events(self, first: int) -> None:
        """Number the events of the tables from `first` on."""
        for name in self.arrays:
            if name.endswith("_event"):
                self.arrays[name] = self.arrays[name] + first

    def table(self, prefix: str) -> dict[str, np.ndarray]:
        """Columns of the table with a prefix ("particle", "piece", "charge")."""
        return {n.removeprefix(f"{prefix}_"): a for n, a in self.arrays.items() if n.startswith(f"{prefix}_")}


def _same_size(name: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if name not in PADDED or a.shape[2] == b.shape[2]:
        return a, b
    n_z = max(a.shape[2], b.shape[2])

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, n_z - n if axis == 2 else 0) for axis, n in enumerate(x.shape)])

    return padded(a), padded(b)


def of_scores(event: ScoredEvent, coords: np.ndarray, truth: EventTruth | None, grid: Grid) -> Detail:
    """What the scores of one event's candidates (N, 3) tell beside its curve; nothing without truth.

    segment_*: score histograms (1, n_y, n_z, 51), missed true cells (1, n_y, n_z)
    to_ghost, to_true: see `distances.of_event`
    charge_kept (28, 51): true candidates by true value and score; charge_missed (28,): true cells that are none
    particle_*: see `of_particles`
    """
    if truth is None or event.truth is None:
        return Detail()
    n = segments.count(grid.shape, grid.downsample)
    where = segments.segment(coords, grid.downsample, n)
    arrays = {
        f"segment_{name}": segments.histograms(event.scores[mask], where[mask], n)[None]
        for name, mask in (("true", event.truth), ("ghost", ~event.truth))
    }
    absent = _absent(truth.coords, coords)
    lost = truth.coords[absent]
    lost_in = segments.segment(lost, grid.downsample, n)
    arrays["segment_missed"] = np.bincount(lost_in, minlength=n[0] * n[1]).reshape(1, *n).astype(np.int32)
    to_ghost, to_true = distances.of_event(coords, event.scores, event.truth, truth.coords)
    value = event.charge[event.truth] * grid.electrons
    arrays |= {"to_ghost": to_ghost, "to_true": to_true}
    arrays["charge_kept"] = _by_value(value, event.scores[event.truth])
    arrays["charge_missed"] = np.bincount(
        _value_bin(truth.value[absent] * grid.electrons), minlength=len(_charge.CHARGES)
    )
    return Detail(arrays | of_particles(event, coords, truth, grid))


def of_particles(
    event: ScoredEvent, coords: np.ndarray, truth: EventTruth, grid: Grid
) -> dict[str, np.ndarray]:
    """Particles with enough true cells and candidates: ids, shape, true value, score histograms (K, 51)."""
    if truth.track_id is None or truth.pdg is None or not len(truth.coords) or not len(coords):
        return {}
    groups = particles.group(truth.track_id, truth.pdg)
    of_candidate = particles.owners(coords, truth.coords, groups.of_cell)
    k = len(groups.track_id)
    n_true = np.bincount(groups.of_cell, minlength=k)
    n_candidates = np.bincount(of_candidate, minlength=k)
    kept = np.flatnonzero((n_candidates >= particles.MIN_CANDIDATES) & (n_true >= particles.MIN_TRUE))
    shapes = [
        particles.shape(truth.coords[groups.of_cell == number] * np.array(grid.cell_mm)) for number in kept
    ]
    origin, kinetic = particles.tags(groups.track_id[kept], truth.table)
    columns: dict[str, np.ndarray] = {
        "event": np.zeros(len(kept), np.int64), "track_id": groups.track_id[kept], "pdg": groups.pdg[kept],
        "origin": origin, "kinetic_mev": kinetic, "true": n_true[kept], "candidates": n_candidates[kept],
        "value": np.bincount(groups.of_cell, truth.value, minlength=k)[kept],
    }  # fmt: skip
    for name in ("theta", "phi", "length", "linearity"):
        columns[name] = np.array([getattr(shape, name) for shape in shapes], np.float64)
    for name, mask in (("hist_true", event.truth), ("hist_ghost", ~event.truth)):
        made = [histogram(event.scores[mask & (of_candidate == number)]) for number in kept]
        columns[name] = np.array(made, np.int32).reshape(len(kept), N_BINS)
    return {f"particle_{name}": column for name, column in columns.items()}


def of_charges(
    charge: np.ndarray,
    coords: np.ndarray,
    labels: np.ndarray,
    kept: np.ndarray,
    truth: EventTruth,
    grid: Grid,
) -> Detail:
    """Measured charge (N,) electrons of the candidates (N, 3) of one event, of which `kept` (N,) passed a ghost mask.

    charge_*: one row per event: sums over kept voxels and over the truth, sums of residuals of true kept voxels
    residuals (28, 92): `charge.by_charge` of them
    measured_*: one row per particle: true and measured charge
    piece_*: pieces of particles' tracks: residual range, dQ/dx from the truth and from the measurement, e/mm
    """
    charge = np.where(kept, charge, 0.0).astype(np.float64)
    voxel = kept & (labels > 0)
    r = _charge.residuals(charge[voxel], labels[voxel])
    arrays = {
        "charge_event": np.zeros(1, np.int64),
        "charge_true": np.array([truth.value.sum(dtype=np.float64)]),
        "charge_measured": np.array([charge.sum()]),
        "charge_on_true": np.array([charge[voxel].sum()]),
        "charge_voxels": np.array([len(r)]),
        "charge_sum": np.array([r.sum()]),
        "charge_squares": np.array([(r**2).sum()]),
        "residuals": _charge.by_charge(labels[voxel], r),
    }
    return Detail(arrays | _measured_particles(charge, coords, kept, truth, grid))


def _measured_particles(
    charge: np.ndarray, coords: np.ndarray, kept: np.ndarray, truth: EventTruth, grid: Grid
) -> dict[str, np.ndarray]:
    if truth.track_id is None or truth.pdg is None or not len(truth.coords) or not kept.any():
        return {}
    cell = np.array(grid.cell_mm)
    groups = particles.group(truth.track_id, truth.pdg)
    of_candidate = particles.owners(coords[kept], truth.coords, groups.of_cell)
    k = len(groups.track_id)
    big = np.flatnonzero(np.bincount(groups.of_cell, minlength=k) >= particles.MIN_TRUE)
    measured = np.bincount(of_candidate, charge[kept], minlength=k)
    true = np.bincount(groups.of_cell, truth.value, minlength=k)
    arrays = {
        "measured_event": np.zeros(len(big), np.int64), "measured_track_id": groups.track_id[big],
        "measured_pdg": groups.pdg[big], "measured_true": true[big], "measured_charge": measured[big],
    }  # fmt: skip
    pieces: dict[str, list[np.ndarray]] = {}
    for number in big[np.isin(np.abs(groups.pdg[big]), TRACKS)]:
        own, theirs = groups.of_cell == number, of_candidate == number
        found = _pieces(
            (truth.coords[own] + 0.5) * cell, truth.value[own],
            (coords[kept][theirs] + 0.5) * cell, charge[kept][theirs],
        )  # fmt: skip
        for name, column in found.items():
            pieces.setdefault(name, []).append(column)
        if found:
            ids = np.full(len(found["true"]), groups.track_id[number])
            pieces.setdefault("track_id", []).append(ids)
            pieces.setdefault("pdg", []).append(np.full(len(ids), groups.pdg[number]))
            pieces.setdefault("event", []).append(np.zeros(len(ids), np.int64))
    return arrays | {f"piece_{name}": np.concatenate(columns) for name, columns in pieces.items()}


def _pieces(
    truth: np.ndarray, true: np.ndarray, measured: np.ndarray, charge: np.ndarray
) -> dict[str, np.ndarray]:
    """The truth's path, and what both leave along it; nothing if no track is found."""
    found = _track.fit(truth, true, STEP_MM, DEVIATION_MM)
    if found is None:
        return {}
    lengths = np.linalg.norm(np.diff(found.path, axis=0), axis=1)
    along = _track.charge_along(found.path, measured, charge, DEVIATION_MM) / lengths
    return {"range": found.residual_range, "true": found.dqdx, "measured": along}


def _absent(cells: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    from hpcreco.experiments.protodune.labels import CoarseTruth, missed

    return missed(CoarseTruth(cells, np.zeros((len(cells), 1))), candidates)


def _value_bin(value: np.ndarray) -> np.ndarray:
    edges = _charge.CHARGES
    return np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 1)


def _by_value(value: np.ndarray, scores: np.ndarray) -> np.ndarray:
    rows = [histogram(scores[_value_bin(value) == k]) for k in range(len(_charge.CHARGES))]
    return np.array(rows)
