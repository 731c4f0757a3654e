"""The flags of ``hpcreco tile``, by what they are about."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from hpcreco.experiments.protodune import names
from hpcreco.filewise import add_filewise_arguments

EPILOG = """\
examples:
  hpcreco tile -i parsed -o xy -t 1                      every group of TPC 1, one xy file each
  hpcreco tile -i parsed -o xy -t 1 -b 20 -n 8           20 events a file, 8 threads
  mpiexec -n 4 hpcreco tile -i parsed -o xy -t 1         four workers (also under srun, or as a Slurm array)
  hpcreco tile -i real -o xy -t 2 --y-type none --dead-channels recorded
  hpcreco tile -i parsed -o xy -t 1 --save-pixel         keep the fine candidates, in the folder parsed, and then
  hpcreco tile -i parsed -o xy4 -t 1 --from-pixel --downsample 4,2,2       another grid without tiling again

A group is one (event type, index, TPC): its channel file and the first truth file in the order of --y-type.
Finished files are skipped; missing, broken or stale ones (other input, options or geometry) are made again.
A relative -o is taken below $BASE_DIR when that is set. Threads and workers never change a bit of the result.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the original program keep their letter and meaning."""
    parser.epilog = EPILOG
    _add_folders(parser)
    _add_input(parser)
    _add_candidates(parser)
    _add_output(parser)
    add_filewise_arguments(parser)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        *("-i", "--input"),
        type=Path,
        required=True,
        metavar="PARSED",
        help="folder of parsed files (.h5, or legacy .npz)",
    )
    add(
        *("-o", "--output"),
        type=Path,
        required=True,
        metavar="XY",
        help="folder for the xy files, made if missing",
    )
    add("-t", "--tpc", type=int, default=1, help="TPC number (default: 1)")
    add(
        *("-b", "--batch-size"),
        type=int,
        metavar="EVENTS",
        help="events per xy file (default: all of a group in one)",
    )
    add("-n", "--threads", type=int, help="threads per worker (default: cores / workers on this machine)")


def add_index_range(add: Callable[..., object]) -> None:
    """The flag that chooses groups by their index, by the `add_argument` of a parser or group."""
    add(
        "--index-range",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="only groups with LOW <= index <= HIGH",
    )


def _add_input(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is read").add_argument
    add(
        "--x-type",
        default="wire",
        choices=("wire", "hit"),
        help="product that holds the channels (default: wire)",
    )
    add(
        "--y-type",
        default=",".join(names.TRUTH_PRODUCTS),
        metavar="TYPES",
        help="truth products in the order to look for them, or none for data without truth (default: %(default)s)",
    )
    add_index_range(add)
    add("--geometry", default="pdsp", help="pdsp or larsoft:<wire dump .json.bz2> (default: %(default)s)")


def _add_candidates(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("which voxels become candidates, and with what charge").add_argument
    add(
        "--downsample",
        default="8,4,4",
        metavar="X,Y,Z",
        help="fine voxels per coarse cell (default: %(default)s)",
    )
    add(
        "--threshold",
        type=float,
        default=1e-3,
        metavar="E",
        help="a sample counts above this (default: %(default)s)",
    )
    add(
        "--dead-channels",
        default="none",
        metavar="WHICH",
        help="local channels that are always active and carry no charge: none, recorded (as the channel file lists "
        "them), numbers and ranges (12,40-47), or a text file of these (default: none)",
    )
    add("--no-active-none", action="store_true", help="pixels that a plane does not cover are inactive in it")
    add("--clip-negative", action="store_true", help="negative samples count as zero when charge is shared")
    add(
        "--legacy-rounding",
        action="store_true",
        help="a wire whose share rounds to 0.000 does not light a pixel",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is written").add_argument
    add(
        "--save-pixel",
        action="store_true",
        help="also write the fine candidates, in the folder of the parsed files",
    )
    add(
        "--from-pixel",
        action="store_true",
        help="make xy files from the pixel files in the folder -i, without tiling again; what tiling was told is "
        "recorded in them, so that only -t, --downsample, --downsample-y and --index-range matter",
    )
    add(
        "--downsample-y",
        metavar="X,Y,Z",
        help="also write the truth on a grid that many coarse cells coarser: sums per cell, and the cell of every "
        "candidate",
    )
    add("--compression", default="default", help="default, none, lzf, gzip-0 ... gzip-9")
