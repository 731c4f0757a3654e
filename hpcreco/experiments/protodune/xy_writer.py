"""One batch of parsed events, tiled and labelled, into one xy shard."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import labels, names
from hpcreco.experiments.protodune.batches import Batch, Source
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE, Geometry
from hpcreco.experiments.protodune.parsed import Parsed, ParsedError, TruthVoxels, open_parsed
from hpcreco.experiments.protodune.recipes import unfinished
from hpcreco.experiments.protodune.tiling.events import tiled
from hpcreco.experiments.protodune.tiling.tiler import (
    ALGORITHM_VERSION,
    Tiler,
    Tiles,
    TilingError,
    TilingOptions,
)
from hpcreco.experiments.protodune.xy import PIXEL, XY
from hpcreco.shards import Schema, ShardWriter

LOG = logging.getLogger("hpcreco")
UNITS = {"energy": "MeV", "electrons": "electrons", "charge": "electrons"}


def inspect(path: Path) -> Source:
    """Event count and content digest of a parsed file, from its header alone."""
    with open_parsed(path) as parsed:
        digest = parsed.attributes.get("content_digest") or _npz_digest(path)
        return Source(path, parsed.n_events, digest)


def _npz_digest(path: Path) -> str:
    """Digest of the checksums in a zip file's directory: follows the content without reading it."""
    with zipfile.ZipFile(path) as archive:
        members = sorted((m.filename, m.CRC, m.file_size) for m in archive.infolist())
    return hashlib.sha256(repr(members).encode()).hexdigest()


@dataclass(frozen=True)
class XYWriter:
    """Writes batches with one set of options; tables of the geometry are built once per process and kept.

    `recorded_dead` takes the dead channels that the channel file itself lists. `pixel_dir` is where fine
    candidates go, if wanted. `downsample_y` adds the truth on a grid that many coarse cells coarser.
    """

    geometry: Geometry
    options: TilingOptions
    x_type: str
    threads: int = 1
    compression: str = "default"
    recorded_dead: bool = False
    pixel_dir: Path | None = None
    downsample_y: tuple[int, int, int] | None = None

    def recipe(self, batch: Batch) -> dict[str, Any]:
        """All that decides a batch's content; a finished file with another recipe is stale."""
        group = batch.group
        options = {**asdict(self.options), "downsample": list(self.options.downsample)}
        options["dead_channels"] = "recorded" if self.recorded_dead else list(self.options.dead_channels)
        return {
            "input": group.x.digest if group.x else "",
            "truth": group.y.digest if group.y else "",
            "truth type": group.y_type,
            "geometry": self.geometry.digest,
            "tpc": group.name.tpc,
            "events": [batch.first, batch.last, batch.n_batches],
            **options,
            "downsample_y": list(self.downsample_y) if self.downsample_y else None,
            "schema": XY.version,
            "algorithm": ALGORITHM_VERSION,
        }

    def outputs(self, batch: Batch) -> tuple[Path, ...]:
        """The files a batch makes."""
        if self.pixel_dir is None:
            return (batch.output,)
        return (batch.output, self.pixel_dir / names.replace_product(batch.output, "pixel"))

    def finished(self, batch: Batch) -> str | None:
        """None when the batch's files are complete and current, else why not."""
        reasons = (unfinished(path, self._recipe_of(path, batch)) for path in self.outputs(batch))
        return next((reason for reason in reasons if reason), None)

    def _recipe_of(self, path: Path, batch: Batch) -> dict[str, Any]:
        recipe = self.recipe(batch)
        if path == batch.output:
            return recipe
        return {**recipe, "downsample": [1, 1, 1], "downsample_y": None, "schema": PIXEL.version}

    def write(self, batch: Batch) -> dict[str, Any]:
        """Tile and label the events of a batch; counts and charges for the run report.

        Raises TilingError or ParsedError naming the file when the input does not fit.
        """
        group = batch.group
        if group.problem or group.x is None or group.name.tpc is None:
            raise TilingError(group.problem)
        with ExitStack() as stack:
            x = stack.enter_context(open_parsed(group.x.path))
            y = stack.enter_context(open_parsed(group.y.path)) if group.y else None
            if y is not None and not np.array_equal(x.event_ids, y.event_ids):
                raise TilingError(f"{x.path} and {y.path} hold different events: their ids must agree")
            options = self._options_for(x)
            report = self._write(batch, batch.output, XY, x, y, options)
            if self.pixel_dir is not None:
                fine = replace(options, downsample=(1, 1, 1))
                self._write(batch, self.outputs(batch)[1], PIXEL, x, y, fine)
        return report

    def _options_for(self, x: Parsed) -> TilingOptions:
        recorded = tuple(x.attributes.get("dead_channels") or ())
        if self.recorded_dead:
            return replace(self.options, dead_channels=recorded)
        if recorded and not self.options.dead_channels:
            LOG.warning(
                "%s lists %d dead channels; --dead-channels recorded uses them", x.path, len(recorded)
            )
        known = x.attributes.get("geometry_digest")
        if known and known != self.geometry.digest:
            LOG.warning(
                "%s was made with geometry %s, not %s", x.path, x.attributes["geometry"], self.geometry.name
            )
        return self.options

    def _write(
        self, batch: Batch, path: Path, schema: Schema, x: Parsed, y: Parsed | None, options: TilingOptions
    ) -> dict[str, Any]:
        tiler = self._tiler(batch, x, options)
        names_of_truth: tuple[str, ...] = ()
        if y is not None:
            names_of_truth = y.truth(batch.first).columns if batch.last > batch.first else ()
        pixel = schema is PIXEL
        coarser = None if pixel else self.downsample_y
        attributes = self._attributes(batch, tiler, options, names_of_truth)
        attributes |= {"recipe": self._recipe_of(path, batch)}
        attributes |= {"downsample_y": list(coarser)} if coarser else {}
        columns = columns_of(tiler.face.feature_names, names_of_truth, coarser is not None)
        report = {"events": batch.last - batch.first, "candidates": 0, "fine candidates": 0, "missed": 0}
        with ShardWriter(path, schema, attributes, columns, self.compression) as writer:
            events = range(batch.first, batch.last)
            for event, tiles in zip(events, tiled(tiler, x, events, pixel), strict=True):
                truth = y.truth(event) if y is not None else None
                if truth is not None and len(truth.coords) and int(truth.coords.min()) < 0:
                    raise ParsedError(
                        f"{x.path}: the truth of event {event} is at negative voxels; local voxels start at 0"
                    )
                rows = tables(tiles, truth, options.downsample, coarser)
                if pixel and truth is not None:
                    rows = {**rows, "truth": as_parsed(truth)}
                writer.append(int(x.event_ids[event]), rows)
                report["candidates"] += len(tiles.coords)
                report["fine candidates"] += tiles.pixels
                report["missed"] += int(rows["tiling"].get("missed", 0))
        return report

    def _tiler(self, batch: Batch, x: Parsed, options: TilingOptions) -> Tiler:
        assert batch.group.name.tpc is not None
        key = (self.geometry.digest, batch.group.name.tpc, options, x.n_ticks, x.n_channels, self.threads)
        if key not in _TILERS:
            while len(_TILERS) >= _KEPT_TILERS:  # each holds about 120 MB of tables
                _TILERS.pop(next(iter(_TILERS)))
            face = self.geometry.face(batch.group.name.tpc)
            try:
                _TILERS[key] = Tiler(face, options, x.n_ticks, x.n_channels, self.threads)
            except TilingError as error:
                raise TilingError(f"{x.path}: {error}") from error
        return _TILERS[key]

    def _attributes(
        self, batch: Batch, tiler: Tiler, options: TilingOptions, truth: tuple[str, ...]
    ) -> dict[str, Any]:
        group = batch.group
        sources = [source for source in (group.x, group.y) if source is not None]
        return {
            "event_type": group.name.event_type,
            "index": group.name.index,
            "batch": batch.number,
            "n_batches": batch.n_batches,
            "tpc": [tiler.face.tpc],
            "downsample": list(options.downsample),
            "voxel_size_mm": [v * d for v, d in zip(VOXEL_SIZE, options.downsample, strict=True)],
            "frame_origin_mm": list(tiler.face.r_min),
            "spatial_shape": list(tiler.shape),
            "feature_names": list(tiler.face.feature_names),
            "x_type": self.x_type,
            "y_type": group.y_type,
            "y_unit": UNITS.get(truth[0], "") if truth else "",
            "tiling_threshold": options.threshold,
            "active_none": options.active_none,
            "clip_negative": options.clip_negative,
            "legacy_rounding": options.legacy_rounding,
            "dead_channels": list(options.dead_channels),
            "tiling_version": ALGORITHM_VERSION,
            "geometry": self.geometry.name,
            "geometry_digest": self.geometry.digest,
            "source_digests": [source.digest for source in sources],
            "source_files": [str(source.path) for source in sources],
        }


_TILERS: dict[tuple[Any, ...], Tiler] = {}
_KEPT_TILERS = 3


def columns_of(
    features: tuple[str, ...], truth: tuple[str, ...], coarser: bool
) -> dict[str, tuple[str, ...]]:
    """Names of the columns of an xy file: planes, and truth values if there is truth."""
    columns = {"voxels/features": features, "tiling/lost_charge": features}
    if truth:
        columns |= {"voxels/labels": truth[:1], "truth/values": truth}
    if truth and coarser:
        columns["coarser/values"] = truth
    return columns


def tables(
    tiles: Tiles,
    fine: TruthVoxels | None,
    downsample: tuple[int, int, int],
    downsample_y: tuple[int, int, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """The rows of one event by table and field, given its tiles and its truth in fine voxels."""
    voxels: dict[str, Any] = {"coords": tiles.coords, "features": tiles.features}
    counts: dict[str, Any] = {"lost_charge": tiles.lost, "fine_voxels": tiles.pixels}
    if fine is None:
        return {"voxels": voxels, "tiling": counts}
    truth = labels.coarse(fine.coords, fine.values, downsample, fine.track_id, fine.pdg)
    voxels["labels"] = labels.label(tiles.coords, truth)
    counts["missed"] = int(labels.missed(truth, tiles.coords).sum())
    rows = {"voxels": voxels, "truth": truth.columns(), "tiling": counts}
    if downsample_y is not None:
        coarser = labels.coarser(tiles.coords, truth, downsample_y)
        voxels["coarser_row"] = coarser.row
        rows["coarser"] = {"coords": coarser.coords, "values": coarser.values}
    return rows


def as_parsed(truth: TruthVoxels) -> dict[str, np.ndarray]:
    """Truth rows in the order and number they came in."""
    ids = {"track_id": truth.track_id, "pdg": truth.pdg}
    return {"coords": truth.coords, "values": truth.values} | {
        name: column for name, column in ids.items() if column is not None
    }
