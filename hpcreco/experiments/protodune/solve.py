"""Solve for the charge of cells from the waveforms alone, slice by slice: the alternative to a charge network.

FILE is a yinf file of a deghosting network (its voxels with P >= --threshold are solved for), or an xy file with
`--cells truth` or `--cells all`, or a folder of either. In each slice of the drift, the charge of the cells that a
channel crosses, weighted by area, has to add up to what the channel saw. Writes one solved file (x, y, z, electrons)
per FILE.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.filewise import Job, add_filewise_arguments

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from hpcreco.experiments.protodune.solving.sources import Sources
    from hpcreco.experiments.protodune.solving.writer import SolvedWriter

LOG = logging.getLogger("hpcreco")

EPILOG = """\
examples:
  hpcreco solve runs/ghost3d/inference -o solved            the last epoch's yinf files, P >= 0.35, non-negative
  hpcreco solve xy -o solved_true --cells truth             how good it gets with a perfect network
  hpcreco solve xy/batch0-*.h5 -i parsed -o solved --cells all --method lasso
  mpiexec -n 4 hpcreco solve runs/ghost3d/inference -o solved --grow 1

methods: nnls (default) least squares without negative charges; ols least squares (lsmr), the shortest solution;
lasso with a penalty on the sum of the charges, not negative. --grow 1 also solves for candidates one slice before and
behind: a part of the charge arrives there, and would be lost. xy and wire files are found where they were; name
their folders with --xy and -i if they were moved. The result does not depend on processes or ranks by a bit.
"""


class SolveUsageError(ValueError):
    """Options of solve that contradict each other or the files."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    _add_files(parser)
    _add_cells(parser)
    _add_method(parser)
    add_filewise_arguments(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="yinf or xy files, or folders of them")
    add("-o", "--output", type=Path, required=True, metavar="SOLVED", help="folder for the solved files")
    add(
        *("-i", "--input"),
        type=Path,
        action="append",
        default=[],
        metavar="PARSED",
        help="folder of the parsed waveforms (default: where they were when they were tiled)",
    )
    add(
        "--xy",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where the yinf files' xy files are, if moved",
    )
    add("--epoch", type=int, help="which yinf files of a folder (default: of the last epoch in it)")
    add("--geometry", default="pdsp", help="pdsp or larsoft:<wire dump .json.bz2> (default: %(default)s)")
    add(
        *("-n", "--processes"),
        type=int,
        default=1,
        help="processes per worker that share out the slices of an event (default: %(default)s)",
    )


def _add_cells(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the cells to solve for").add_argument
    add(
        "--cells",
        choices=("network", "truth", "all"),
        default="network",
        help="which cells may hold charge: those a network chose (yinf files), the true ones, or all candidates "
        "(xy files) (default: network)",
    )
    add(
        "--threshold",
        type=float,
        metavar="P",
        help="least probability of a cell; with --cells truth the charge that a true cell has to exceed "
        "(default: 0.35; truth: 0)",
    )
    add(
        "--grow",
        type=int,
        default=0,
        metavar="SLICES",
        help="also candidates so many slices before and behind a chosen cell (default: %(default)s)",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how their charge is found").add_argument
    add("--method", choices=("nnls", "ols", "lasso"), default="nnls", help="(default: %(default)s)")
    add(
        "--alpha",
        type=float,
        default=1e-4,
        metavar="A",
        help="penalty of --method lasso (default: %(default)s)",
    )
    add(
        "--dead-channels",
        default="recorded",
        metavar="WHICH",
        help="local channels to leave out: recorded (by the waveforms or by tiling), none, numbers and ranges "
        "(12,40-47), or a text file of these (default: recorded)",
    )


def run(args: argparse.Namespace) -> int:
    """Solve what is not finished; exit code 0, or 1 when a file failed."""
    from hpcreco.experiments.protodune.solving.event import pool

    with pool(args.processes) as processes:
        return _solve(args, _writer(args, processes))


def _solve(args: argparse.Namespace, writer: SolvedWriter) -> int:
    from hpcreco import collective, filewise

    ranks = collective.connect()
    planned = collective.on_root(ranks.rank, ranks.broadcast, lambda: list(_plan(args)))
    by_key = {sources.named.name: sources for sources in planned}
    if len(by_key) < len(planned):
        raise SolveUsageError("two files have the same name; solve them into different folders")
    return filewise.run(
        [_job(sources, writer) for sources in planned],
        lambda job: writer.write(by_key[job.key]),
        finished=lambda job: writer.finished(by_key[job.key]),
        title="solve",
        report=args.output / "solve.json",
        collective=ranks,
        **filewise.options(args),
    )


def _writer(args: argparse.Namespace, pool: Executor | None) -> SolvedWriter:
    from hpcreco.experiments.protodune import geometry
    from hpcreco.experiments.protodune.channel_list import channel_list
    from hpcreco.experiments.protodune.solving.cells import Choice
    from hpcreco.experiments.protodune.solving.event import SolveOptions
    from hpcreco.experiments.protodune.solving.writer import SolvedWriter

    if args.grow < 0 or args.alpha < 0 or args.processes < 1:
        raise SolveUsageError("--grow and --alpha are 0 or more, --processes 1 or more")
    threshold = args.threshold
    if threshold is None:
        threshold = 0.35 if args.cells == "network" else 0.0
    recorded = args.dead_channels == "recorded"
    return SolvedWriter(
        geometry=geometry.load(args.geometry),
        choice=Choice(args.cells, threshold, args.grow),
        options=SolveOptions(
            method=args.method,
            alpha=args.alpha,
            dead_channels=() if recorded else channel_list(args.dead_channels),
        ),
        folder=args.output,
        dead_given=not recorded,
        pool=pool,
        processes=args.processes,
    )


def _plan(args: argparse.Namespace) -> Iterator[Sources]:
    """The files to solve; one that cannot be carries its problem, the others go on."""
    from hpcreco.experiments.protodune.batches import Source
    from hpcreco.experiments.protodune.solving import sources

    for path in _files(args):
        try:
            yield sources.find(path, args.input, args.xy)
        except (RuntimeError, ValueError, OSError) as error:
            if not hasattr(error, "exit_code"):
                raise
            yield sources.Sources(Source(path, 0, ""), -1, "", (1, 1, 1), problem=str(error))


def _files(args: argparse.Namespace) -> list[Path]:
    """The yinf (or, for other cells, xy) files that are named or lie in the folders."""
    from hpcreco.experiments.protodune import names
    from hpcreco.experiments.protodune.analysis.join import find_yinf

    product = "yinf" if args.cells == "network" else "xy"
    found: list[Path] = []
    for path in args.files:
        if not path.exists():
            raise SolveUsageError(f"{path}: no such file or folder")
        if path.is_file():
            name = names.require(path)
            if name.product != product:
                raise SolveUsageError(
                    f"{path}: --cells {args.cells} needs {product} files"
                    + ("; or choose --cells truth or all" if name.product == "xy" else "")
                )
            found.append(path)
        elif product == "yinf":
            by_epoch = find_yinf(path)
            found += by_epoch.get(max(by_epoch, default=0) if args.epoch is None else args.epoch, [])
        else:
            known, _ = names.scan([path])
            found += [name.path for name in known if name.product == "xy" and name.path.suffix == ".h5"]
    if not found:
        epoch = "" if args.epoch is None else f" of epoch {args.epoch}"
        raise SolveUsageError(
            f"{' '.join(map(str, args.files))}: no {product} files{epoch}; --cells {args.cells} needs them"
        )
    return found


def _job(sources: Sources, writer: SolvedWriter) -> Job:
    inputs = [source.path for source in (sources.xy, sources.wire, sources.yinf) if source is not None]
    recipe = json.dumps(writer.recipe(sources), sort_keys=True)
    size = sum(path.stat().st_size for path in inputs if path.is_file())
    return Job(sources.named.name, tuple(inputs), (writer.output(sources),), recipe, size)
