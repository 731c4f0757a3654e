"""Events of parsed files: waveforms as an image, truth and reference algorithms' space points as voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune import geometry, names
from hpcreco.experiments.protodune.analysis.compare import PRODUCTS as REFERENCES
from hpcreco.experiments.protodune.analysis.compare import SHIFT
from hpcreco.experiments.protodune.analysis.cut import Cut, Label
from hpcreco.experiments.protodune.display.events import position
from hpcreco.experiments.protodune.display.scene import DisplayError, Scene, WireImage
from hpcreco.experiments.protodune.parsed import WAVEFORM_PRODUCTS, Parsed, open_parsed
from hpcreco.experiments.protodune.voxels import downsample


def event_id(path: Path, wanted: int | None) -> int:
    """The number of the wanted event (None: the first)."""
    with open_parsed(path) as parsed:
        return int(parsed.event_ids[position(parsed.event_ids, wanted, path)])


def read(
    path: Path, wanted: int | None, cut: Cut | None, cell: tuple[float, float, float] | None = None
) -> Scene | WireImage:
    """One event; voxels are summed into cells of `cell` mm (None: as fine as they are). Raises DisplayError."""
    with open_parsed(path) as parsed:
        event = position(parsed.event_ids, wanted, path)
        number = int(parsed.event_ids[event])
        title = f"{path.stem}, event {number}"
        if parsed.product in WAVEFORM_PRODUCTS:
            return _waveforms(parsed, event, number, title)
        coords, values, columns, *_ = parsed.truth(event)
        tpc = parsed.attributes.get("tpc")
    charge, voxel = values[:, 0], geometry.VOXEL_SIZE
    if parsed.product in REFERENCES:
        coords = coords + np.array([SHIFT[parsed.product], 0, 0], coords.dtype)
    if cell is not None:
        coords, charge = downsample(coords, charge, _factors(path, cell))
        coords, charge, voxel = coords.astype(np.int32), charge.astype(np.float32), cell
    tpcs = (int(tpc),) if tpc in geometry.REAL_TPCS else ()
    if parsed.product in REFERENCES:
        return Scene(title, number, voxel, coords, charge, predicted=charge, tpcs=tpcs, found_only=True)
    label = Label.of(parsed.product, columns[0])
    above = charge > (cut.against(label) if cut else 0.0)
    none = np.zeros((0, 3), np.int32)
    return Scene(
        title,
        number,
        voxel,
        none,
        np.zeros(0, np.float32),
        missed=coords[above],
        missed_charge=charge[above],
        truth_unit=label.unit,
        tpcs=tpcs,
    )


def _factors(path: Path, cell: tuple[float, float, float]) -> tuple[int, ...]:
    factors = np.asarray(cell) / geometry.VOXEL_SIZE
    if not np.allclose(factors, np.rint(factors), rtol=0.01) or np.rint(factors).min() < 1:
        raise DisplayError(f"{path}: its voxels do not fit into cells of {cell} mm")
    return tuple(int(f) for f in np.rint(factors))


def _waveforms(parsed: Parsed, event: int, number: int, title: str) -> WireImage:
    name = names.parse(parsed.path)
    tpc = parsed.attributes.get("tpc") if name is None or name.tpc is None else name.tpc
    return WireImage(
        title,
        number,
        parsed.n_ticks,
        parsed.n_channels,
        *parsed.waveform(event),
        planes=_planes(parsed),
        tpc=tpc,
        dead=tuple(int(c) for c in parsed.attributes.get("dead_channels") or ()),
    )


def _planes(parsed: Parsed) -> tuple[tuple[str, int, int], ...]:
    """Names and channel ranges of an APA's planes."""
    if parsed.n_channels != geometry.N_CHANNELS:
        return ()
    return (("U", 0, 800), ("V", 800, 1600), ("X, face 1", 1600, 2080), ("X, face 2", 2080, 2560))
