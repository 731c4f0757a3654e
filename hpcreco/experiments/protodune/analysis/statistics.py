"""The statistics of one yinf or solved file, read with its xy file one event at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune import names
from hpcreco.experiments.protodune.analysis import detail as _detail
from hpcreco.experiments.protodune.analysis.cut import ELECTRONS_PER_MEV, Cut, Label
from hpcreco.experiments.protodune.analysis.detail import Detail, EventTruth, Grid
from hpcreco.experiments.protodune.analysis.join import (
    JoinError,
    is_solved,
    label_of,
    opened,
    scored_events,
)
from hpcreco.experiments.protodune.analysis.sample import Sample
from hpcreco.experiments.protodune.labels import CoarseTruth, label
from hpcreco.experiments.protodune.masking import read_column
from hpcreco.experiments.protodune.voxels import at_least
from hpcreco.shards import Shard

VERSION = 1
PLANES = ("V", "X", "U")


@dataclass(frozen=True)
class Options:
    """What decides the statistics beside the files: cut (None: each file's own), denominator, masking of charge."""

    cut: Cut | None = None
    all_truth: bool = False
    mask_threshold: float = 0.35


@dataclass(frozen=True)
class Source:
    """A yinf file with the xy file it is of, its ghost mask and particles table, and a digest of all of it."""

    yinf: Path
    xy: Path
    kind: str
    checkpoint: str
    mask: Path | None
    particles: Path | None
    fingerprint: str
    size: int


@dataclass
class Statistics:
    """Sums over the events of one sample: curves (`sample`) and what is beside them (`detail`)."""

    kind: str
    sample: Sample
    detail: Detail = field(default_factory=Detail)
    meaning: str = ""
    unit: str = ""

    def merge(self, other: Statistics) -> None:
        """Add another file's events."""
        if self.sample.feature_names != other.sample.feature_names:
            raise JoinError(
                f"{other.sample.keys[:1]}: features {other.sample.feature_names}, others of the same event type have "
                f"{self.sample.feature_names}"
            )
        other.detail.shift_events(len(self.sample.keys))
        self.sample.merge(other.sample)
        self.detail.merge(other.detail)


def plan(
    path: Path, options: Options, xy_folders: Sequence[Path], masks: Sequence[Path], particles: Path | None
) -> Source:
    """What there is to do for a yinf file. Raises YinfError or JoinError if it and its xy file do not match."""
    with opened(path, xy_folders) as (yinf, xy):
        mask = _mask_of(xy, path, masks, xy_folders)
        table = _particles_of(xy, particles)
        digests = [yinf.digest, xy.digest, *(_digest(extra) for extra in (mask, table))]
        content = [VERSION, str(options.cut), options.all_truth, options.mask_threshold, *digests]
        fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return Source(
            path, xy.path, *_maker(yinf), mask, table,
            fingerprint, path.stat().st_size + xy.path.stat().st_size,
        )  # fmt: skip


def _maker(made: Shard) -> tuple[str, str]:
    """Kind ("probability", "electrons" or "solved") and what made a file."""
    a = made.attributes
    if is_solved(made):
        return "solved", f"{a['method']}, {a['cells']} cells"
    return str(a["kind"]), str(a["checkpoint_digest"])[:12]


def _digest(path: Path | None) -> str:
    if path is None:
        return ""
    with Shard(path) as shard:
        return shard.digest


def _mask_of(xy: Shard, path: Path, masks: Sequence[Path], folders: Sequence[Path]) -> Path | None:
    """The yinf file with probabilities, among `masks`, of the same xy file."""
    for candidate in masks:
        if candidate != path and names.derived(xy.path, "yinf") in candidate.name:
            with opened(candidate, folders) as (yinf, source):
                if yinf.attributes["kind"] == "probability" and source.digest == xy.digest:
                    return candidate
    return None


def _particles_of(xy: Shard, folder: Path | None) -> Path | None:
    """The particles file of the events of an xy file: in `folder`, or where its parsed files were."""
    parsed = [Path(source) for source in xy.attributes.get("source_files", ())]
    for source in parsed:
        if names.parse(source) is None:
            continue
        place = (folder or source.parent) / names.replace_product(source, "mcbeamcosmic")
        if place.is_file() and place.suffix == ".h5":
            return place
    return None


def compute(source: Source, options: Options, xy_folders: Sequence[Path]) -> Statistics:
    """Read the files of a source, one event at a time."""
    with opened(source.yinf, xy_folders) as (yinf, xy):
        own = options.cut or Cut(float(yinf.attributes.get("threshold") or 0.0))
        what = label_of(xy)
        name = str(xy.attributes["event_type"]) + ("" if what else " (no truth)")
        features = tuple(xy.attributes["feature_names"])
        order = PLANES if sorted(features) == sorted(PLANES) else features
        sample = Sample(name, order, comp_true=options.all_truth)
        made = Statistics(source.kind, sample, meaning=meaning(own, what) if what else "")
        made.unit = what.unit if what else ""
        columns = [features.index(plane) for plane in order]
        truths = _truths(xy, source.particles, own.against(what) if what else 0.0)
        grid = _grid(xy, what)
        if source.kind == "probability":
            for number, event in enumerate(scored_events(yinf, xy, own)):
                sample.add(event.reordered(columns))
                coords = xy.read(number, "voxels", ["coords"])["coords"]
                part = _detail.of_scores(event, coords, next(truths), grid)
                part.shift_events(number)
                made.detail.merge(part)
        else:
            _charges(made, source, yinf, xy, truths, grid, options)
        return made


def _charges(
    made: Statistics,
    source: Source,
    yinf: Shard,
    xy: Shard,
    truths: Iterator[EventTruth | None],
    grid: Grid,
    options: Options,
) -> None:
    mask = Shard(source.mask) if source.mask else None
    try:
        for number, event_id in enumerate(xy.event_ids):
            made.sample.keys.append(f"{xy.path.stem}:{event_id}")
            truth = next(truths)
            charge, kept = _charge_of(yinf, xy, number)
            if mask is not None:
                kept = kept & at_least(read_column(mask, number), options.mask_threshold)
            if truth is None or made.unit != "e":
                continue
            voxels = xy.read(number, "voxels", ["coords", "labels"])
            labels = voxels["labels"][:, 0]
            part = _detail.of_charges(charge, voxels["coords"], labels, kept, truth, grid)
            part.shift_events(number)
            made.detail.merge(part)
    finally:
        if mask is not None:
            mask.close()


def _charge_of(made: Shard, xy: Shard, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Charge (N,) of the candidates of an event, and mask (N,) of those that were given any."""
    if not is_solved(made):
        charge = read_column(made, number)
        masked = "mask_threshold" in made.attributes  # by `hpcreco protodune mask`
        return charge, charge != 0 if masked else np.ones(len(charge), bool)
    rows = made.read(number, "voxels")
    cells = CoarseTruth(rows["coords"], rows["charge"][:, None])
    charge = label(xy.read(number, "voxels", ["coords"])["coords"], cells)[:, 0]
    return charge, charge != 0


def _grid(xy: Shard, what: Label | None) -> Grid:
    a = xy.attributes
    scale = ELECTRONS_PER_MEV / what.times if what and what.quantity == "energy" else 1.0
    return Grid(*(tuple(a[n]) for n in ("spatial_shape", "downsample", "voxel_size_mm")), scale)


def _truths(xy: Shard, particles: Path | None, least: float) -> Iterator[EventTruth | None]:
    """All true cells above the cut of every event, with the event's particles."""
    table = Shard(particles) if particles else None
    try:
        places = {int(i): k for k, i in enumerate(table.event_ids)} if table else {}
        for number, event_id in enumerate(xy.event_ids):
            if not xy.has("truth"):
                yield None
                continue
            rows = xy.read(number, "truth")
            value = rows["values"][:, 0]
            above = value > least
            ids = [rows[n][above] if n in rows else None for n in ("track_id", "pdg")]
            known = table.read(places[int(event_id)], "particles") if int(event_id) in places else None
            yield EventTruth(rows["coords"][above], value[above], ids[0], ids[1], known)
    finally:
        if table is not None:
            table.close()


def meaning(cut: Cut, what: Label) -> str:
    """Which voxels are true, in words."""
    text = f"{cut.against(what):g} {what.unit}"
    converted = cut.unit is not None and (cut.unit == "MeV") != (what.quantity == "energy")
    return f"label > {text} ({cut})" if converted or what.times > 1 else f"label > {text}"
