"""Put the output of several TPCs into one frame and bridge the gaps between neighbouring APAs.

FILE are solved, yinf or xy files of one TPC each, or folders of them. Files of the same event type, index, batch and
epoch are merged; a group in which a TPC is missing is skipped. Between two APAs lie 2.5 coarse cells without wires:
there every value goes linearly from the last slice of one TPC to the first of the next.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from hpcreco import collective, filewise
from hpcreco.experiments.protodune import geometry, names
from hpcreco.experiments.protodune.joining.merger import MergeError, Merger
from hpcreco.filewise import Job, add_filewise_arguments

LOG = logging.getLogger("hpcreco")
PRODUCTS = ("solved", "yinf", "xy")
EPILOG = """\
examples:
  hpcreco protodune merge-tpcs solved -o merged                     TPCs 1, 5 and 9
  hpcreco protodune merge-tpcs solved -o merged -t 1 5
  hpcreco protodune merge-tpcs runs/ghost3d/inference -o merged --t0 0

The frame begins at the corner of the first TPC. The gap is bridged at the same (x, y), so a steep track is bridged
by two short stubs; voxels there have TPC -1. To train on joined images use `hpcreco join-tpcs` instead.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="solved, yinf or xy files, or folders of them")
    add("-o", "--output", type=Path, required=True, metavar="MERGED", help="folder for the merged files")
    add("-t", "--tpcs", type=int, nargs="+", default=[1, 5, 9], metavar="T", help="(default: 1 5 9)")
    add(
        "--t0",
        type=float,
        default=-250.0,
        metavar="US",
        help="time of the event relative to the trigger, taken off the drift coordinate; -250 leaves it as read out "
        "(default: %(default)s)",
    )
    add(
        "--least",
        type=float,
        default=0.01,
        metavar="V",
        help="interpolated voxels have a value above it (default: %(default)s)",
    )
    add("--geometry", default="pdsp", help="pdsp or larsoft:<wire dump .json.bz2> (default: %(default)s)")
    add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Merge what is not finished; exit code 0, or 1 when a file failed."""
    detector = geometry.load(args.geometry)
    if len(set(args.tpcs)) < len(args.tpcs) or len(args.tpcs) < 2:
        raise MergeError(f"-t {' '.join(map(str, args.tpcs))}: at least two TPCs, each once")
    merger = Merger(detector, tuple(args.tpcs), args.t0, args.least)
    ranks = collective.connect()
    jobs = collective.on_root(ranks.rank, ranks.broadcast, lambda: _plan(args, merger))
    return filewise.run(
        jobs,
        merger.write,
        finished=_unfinished,
        title="merge TPCs",
        report=args.output / "merge-tpcs.json",
        collective=ranks,
        **filewise.options(args),
    )


def _plan(args: argparse.Namespace, merger: Merger) -> list[Job]:
    for path in args.files:
        if not path.exists():
            raise MergeError(f"{path}: no such file or folder")
    known, _ = names.scan(args.files)
    wanted = [name for name in known if name.product in PRODUCTS and name.tpc in merger.tpcs]
    jobs = []
    for members in names.group(wanted, ("event_type", "index", "batch", "epoch", "product")).values():
        by_tpc = {name.tpc: name.path for name in members}
        missing = [str(tpc) for tpc in merger.tpcs if tpc not in by_tpc]
        if missing or len(by_tpc) < len(members):
            LOG.warning(
                "%s: %s, skipped",
                members[0].path,
                f"no file of TPC {', '.join(missing)} beside it" if missing else "several files of one TPC",
            )
            continue
        jobs.append(merger.job([by_tpc[tpc] for tpc in merger.tpcs], args.output))
    if not jobs:
        raise MergeError(
            f"{' '.join(map(str, args.files))}: no {', '.join(PRODUCTS)} files of all TPCs "
            f"{' '.join(map(str, merger.tpcs))}"
        )
    return jobs


def _unfinished(job: Job) -> str | None:
    """Why the merged file has to be made (again), or None."""
    otherwise = "stale: made from other files, or with other options"
    return filewise.unfinished(job.outputs[0], "recipe", json.loads(job.fingerprint), otherwise)
