"""Tile parsed files of one TPC: the voxels where all three wire planes may have seen charge, into xy shards."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.experiments.protodune.tile_flags import add_arguments
from hpcreco.filewise import Job

if TYPE_CHECKING:
    from hpcreco.experiments.protodune.batches import Batch
    from hpcreco.experiments.protodune.xy_writer import XYWriter

__all__ = ["TileUsageError", "add_arguments", "run"]
LOG = logging.getLogger("hpcreco")


class TileUsageError(ValueError):
    """Options of tile that contradict each other or the file system."""

    exit_code = 2


def run(args: argparse.Namespace) -> int:
    """Tile what is not finished; exit code 0, or 1 when a group failed."""
    from hpcreco import collective, filewise
    from hpcreco.experiments.protodune import batches

    folder = output_folder(args.output)
    if args.from_pixel:
        return _from_pixel(args, folder)
    writer = _writer(args)
    ranks = collective.connect()

    def plan() -> list[Batch]:
        planned = _plan(args, folder)
        if not args.dry_run:
            _remove(batches.leftovers(planned, folder))
        return planned

    by_key = {batch.key: batch for batch in collective.on_root(ranks.rank, ranks.broadcast, plan)}
    jobs = [_job(batch, writer) for batch in by_key.values()]
    return filewise.run(
        jobs,
        lambda job: writer.write(by_key[job.key]),
        finished=lambda job: writer.finished(by_key[job.key]),
        title=f"tile TPC {args.tpc}",
        report=folder / f"tile-TPC{args.tpc}.json",
        collective=ranks,
        **filewise.options(args),
    )


def _from_pixel(args: argparse.Namespace, folder: Path) -> int:
    """The other route: xy files from pixel files."""
    from hpcreco.experiments.protodune import from_pixel

    if args.batch_size is not None or args.save_pixel:
        raise TileUsageError(
            "--from-pixel: pixel files keep their batches; leave out --batch-size and --save-pixel"
        )
    if not args.input.is_dir():
        raise TileUsageError(f"{args.input}: no such folder of pixel files")
    coarsener = from_pixel.Coarsener(_three(args.downsample), _coarser(args), args.compression)
    return from_pixel.run(args, coarsener, folder)


def output_folder(output: Path) -> Path:
    """`output`, below $BASE_DIR when it is relative and that is set."""
    base = os.environ.get("BASE_DIR")
    return Path(base) / output if base and not output.is_absolute() else output


def _writer(args: argparse.Namespace) -> XYWriter:
    from hpcreco.experiments.protodune import geometry
    from hpcreco.experiments.protodune.channel_list import channel_list
    from hpcreco.experiments.protodune.tiling.tiler import TilingOptions
    from hpcreco.experiments.protodune.xy_writer import XYWriter

    detector = geometry.load(args.geometry)
    detector.face(args.tpc)
    if args.batch_size is not None and args.batch_size < 1:
        raise TileUsageError(f"--batch-size {args.batch_size}: at least one event per file")
    recorded = args.dead_channels == "recorded"
    options = TilingOptions(
        downsample=_three(args.downsample),
        threshold=args.threshold,
        active_none=not args.no_active_none,
        dead_channels=() if recorded else channel_list(args.dead_channels),
        clip_negative=args.clip_negative,
        legacy_rounding=args.legacy_rounding,
    )
    return XYWriter(
        geometry=detector,
        options=options,
        x_type=args.x_type,
        threads=args.threads or _cores_per_worker(),
        compression=args.compression,
        recorded_dead=recorded,
        pixel_dir=args.input if args.save_pixel else None,
        downsample_y=_coarser(args),
    )


def _plan(args: argparse.Namespace, folder: Path) -> list[Batch]:
    from hpcreco.experiments.protodune import batches, xy_writer
    from hpcreco.experiments.protodune.parsed import VALUE_COLUMNS

    if not args.input.is_dir():
        raise TileUsageError(f"{args.input}: no such folder of parsed files")
    y_types = () if args.y_type == "none" else tuple(args.y_type.split(","))
    unknown = [y for y in y_types if y not in VALUE_COLUMNS]
    if unknown:
        raise TileUsageError(
            f"--y-type {unknown[0]}: no such product of true voxels; choose from {', '.join(VALUE_COLUMNS)}"
        )
    index_range = tuple(args.index_range) if args.index_range else None
    found = batches.groups(args.input, args.tpc, args.x_type, y_types, index_range, xy_writer.inspect)
    if not found:
        raise TileUsageError(
            f"{args.input}: no {args.x_type} file of TPC {args.tpc}"
            + (f" with index in {list(index_range)}" if index_range else "")
            + "; names look like reco_BeamCosmic_001_wire-TPC1.h5"
        )
    return [batch for group in found for batch in batches.plan(group, folder, args.batch_size)]


def _job(batch: Batch, writer: XYWriter) -> Job:
    sources = [source.path for source in (batch.group.x, batch.group.y) if source is not None]
    recipe = json.dumps(writer.recipe(batch), sort_keys=True)
    size = sum(path.stat().st_size for path in sources) // batch.n_batches
    return Job(batch.key, tuple(sources), writer.outputs(batch), recipe, size)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        LOG.warning("%s: left over from another batch size, removed", path)
        path.unlink()


def _coarser(args: argparse.Namespace) -> tuple[int, int, int] | None:
    return _three(args.downsample_y, "--downsample-y") if args.downsample_y else None


def _three(text: str, flag: str = "--downsample") -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
        if flag == "--downsample-y" and min(x, y, z) < 1:
            raise ValueError
    except ValueError:
        raise TileUsageError(f"{flag} {text}: expected three whole numbers, e.g. 8,4,4") from None
    return x, y, z


def _cores_per_worker() -> int:
    from hpcreco import world

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, world.detect().local_size))
