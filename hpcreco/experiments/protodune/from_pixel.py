"""xy files from stored pixel files, without tiling again: bit by bit what tiling gives."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import collective, filewise
from hpcreco.experiments.protodune import labels, names
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE
from hpcreco.experiments.protodune.parsed import TruthVoxels
from hpcreco.experiments.protodune.recipes import unfinished
from hpcreco.experiments.protodune.tiling.exact import cell_charges
from hpcreco.experiments.protodune.tiling.tiler import Tiles, TilingError
from hpcreco.experiments.protodune.xy import PIXEL, XY
from hpcreco.experiments.protodune.xy_writer import columns_of, tables
from hpcreco.shards import Shard, ShardWriter


class PixelError(ValueError):
    """There are no pixel files to start from."""

    exit_code = 2


@dataclass(frozen=True)
class Pixels:
    """A pixel file and the xy file that is made of it."""

    path: Path
    output: Path

    @property
    def key(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Coarsener:
    """Sums pixels into coarse cells. Raises TilingError for a grid that does not fit the readout."""

    downsample: tuple[int, int, int]
    downsample_y: tuple[int, int, int] | None = None
    compression: str = "default"

    def recipe(self, pixels: Pixels) -> dict[str, Any]:
        """That of tiling itself: both routes give the same file."""
        with Shard(pixels.path, PIXEL) as shard:
            recorded = shard.attributes.get("recipe") or {}
        coarser = list(self.downsample_y) if self.downsample_y else None
        changed = {
            "downsample": list(self.downsample),
            "downsample_y": coarser,
            "schema": XY.version,
        }
        return {**recorded, **changed}

    def finished(self, pixels: Pixels) -> str | None:
        """None when the xy file is complete and current, else why not."""
        return unfinished(pixels.output, self.recipe(pixels))

    def write(self, pixels: Pixels) -> dict[str, Any]:
        """Make one xy file; counts for the run report."""
        recipe = self.recipe(pixels)
        report = {"candidates": 0, "fine candidates": 0, "missed": 0}
        with Shard(pixels.path, PIXEL) as shard:
            attributes = self._attributes(shard) | {"recipe": recipe}
            truth_columns = shard.columns("truth", "values") if shard.has("truth") else ()
            columns = columns_of(
                shard.columns("voxels", "features"), truth_columns, self.downsample_y is not None
            )
            with ShardWriter(pixels.output, XY, attributes, columns, self.compression) as writer:
                for event, event_id in enumerate(shard.event_ids):
                    tiles = self._tiles(shard, event)
                    fine = _truth(shard, event, truth_columns) if truth_columns else None
                    rows = tables(tiles, fine, self.downsample, self.downsample_y)
                    writer.append(int(event_id), rows)
                    report["candidates"] += len(tiles.coords)
                    report["fine candidates"] += tiles.pixels
                    report["missed"] += int(rows["tiling"].get("missed", 0))
            return {"events": shard.n_events, **report}

    def _attributes(self, shard: Shard) -> dict[str, Any]:
        n_ticks = shard.attributes["spatial_shape"][0]
        if min(self.downsample) < 1 or n_ticks % self.downsample[0]:
            raise TilingError(
                f"{shard.path}: downsample {self.downsample} does not fit: factors are at least 1 and the first "
                f"must divide the {n_ticks} ticks"
            )
        kept = {attribute.name for attribute in XY.attributes}
        shape = shard.attributes["spatial_shape"]
        return {name: value for name, value in shard.attributes.items() if name in kept} | {
            "downsample": list(self.downsample),
            "voxel_size_mm": [v * d for v, d in zip(VOXEL_SIZE, self.downsample, strict=True)],
            "spatial_shape": [-(-n // d) for n, d in zip(shape, self.downsample, strict=True)],
            **({"downsample_y": list(self.downsample_y)} if self.downsample_y else {}),
        }

    def _tiles(self, shard: Shard, event: int) -> Tiles:
        voxels, counts = shard.read(event, "voxels"), shard.read(event, "tiling")
        coords, features = coarsen(voxels["coords"], voxels["features"], self.downsample)
        return Tiles(coords, features, counts["lost_charge"][0], int(counts["fine_voxels"][0]))


def coarsen(
    coords: np.ndarray, features: np.ndarray, downsample: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3) with charges float64 (N, P) -> coarse cells int32 (M, 3), sorted, and charges float32 (M, P).

    Charges are added as tiling adds them, so that they agree to the last bit.
    """
    cells = coords // np.asarray(downsample, np.int32)
    (key,) = labels.keys(cells)
    _, first, cell = np.unique(key, return_index=True, return_inverse=True)
    charges = cell_charges(coords[:, 0], cell, features, len(first))
    return cells[first].astype(np.int32), charges.astype(np.float32)


def _truth(shard: Shard, event: int, columns: tuple[str, ...]) -> TruthVoxels:
    rows = shard.read(event, "truth")
    return TruthVoxels(rows["coords"], rows["values"], columns, rows.get("track_id"), rows.get("pdg"))


def run(args: argparse.Namespace, coarsener: Coarsener, folder: Path) -> int:
    """Make the xy files of all pixel files that the flags of `hpcreco tile` choose; the exit code."""
    ranks = collective.connect()
    index_range = tuple(args.index_range) if args.index_range else None
    planned = collective.on_root(
        ranks.rank, ranks.broadcast, lambda: plan(args.input, folder, args.tpc, index_range)
    )
    by_key = {pixels.key: pixels for pixels in planned}
    jobs = [
        filewise.Job(p.key, (p.path,), (p.output,), json.dumps(coarsener.recipe(p)), p.path.stat().st_size)
        for p in planned
    ]
    return filewise.run(
        jobs,
        lambda job: coarsener.write(by_key[job.key]),
        finished=lambda job: coarsener.finished(by_key[job.key]),
        title=f"tile TPC {args.tpc} from pixels",
        report=folder / f"tile-TPC{args.tpc}.json",
        collective=ranks,
        **filewise.options(args),
    )


def plan(folder: Path, output: Path, tpc: int, index_range: tuple[int, int] | None) -> list[Pixels]:
    """The pixel files of a folder that are of a TPC, in sorted order. PixelError when there is none."""
    known, _ = names.scan([folder])
    found = [
        Pixels(name.path, output / names.replace_product(name.path, "xy"))
        for name in known
        if name.product == "pixel"
        and name.tpc == tpc
        and name.path.suffix == ".h5"
        and (index_range is None or index_range[0] <= name.index <= index_range[1])
    ]
    if not found:
        raise PixelError(f"{folder}: no pixel file of TPC {tpc}; hpcreco tile --save-pixel makes them")
    return found
