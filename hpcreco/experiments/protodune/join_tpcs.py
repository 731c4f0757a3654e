"""Join the files of several TPCs into one image: xy shards, and parsed truth and particles likewise."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcreco.experiments.protodune import names
from hpcreco.experiments.protodune.tile_flags import add_index_range
from hpcreco.filewise import Job, add_filewise_arguments

if TYPE_CHECKING:
    from hpcreco.experiments.protodune.joining.groups import Group, Joiner

LOG = logging.getLogger("hpcreco")
BEAM_SIDE = "1,5,9"
LEAVE_TIME_IN = -250.0
PARTICLES = "mcbeamcosmic"

EPILOG = """\
examples:
  hpcreco join-tpcs -i xy -o joined                          TPCs 1, 5 and 9, the beam side
  mpiexec -n 4 hpcreco join-tpcs -i xy -o joined             four workers (also under srun, or as a Slurm array)
  hpcreco join-tpcs -i xy -o joined --tpcs 1,5,10            names with the token TPCJ1-5-10
  hpcreco join-tpcs -i parsed -o joined --product depoElectron,mcbeamcosmic
  hpcreco join-tpcs -i xy -o joined --tpcs 1,2 --t0 0 --drop-negative

A group is one (event type, index, batch): one file for each TPC, with the same events. A group that lacks a TPC is
skipped. The frame starts at the low corner of the first TPC's box. Cells that two TPCs share are summed and
counted; labels are looked up again in the joined truth. Whole cells are moved, so that what is left over (the
residual, under half a cell) goes into the run report and the file's attribute `joined`.
A network needs a spatial_size that holds the joined image: [1024, 1024, 1024] for 1, 5 and 9.
"""


class JoinUsageError(ValueError):
    """Options of join-tpcs that make no sense, or a folder with nothing to join."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("-i", "--input", type=Path, required=True, metavar="DIR", help="folder of the files of single TPCs")
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the results, may be the same",
    )
    add("--tpcs", default=BEAM_SIDE, metavar="T,T,...", help="in the order wanted (default: %(default)s)")
    add(
        "--product",
        default="xy",
        metavar="NAMES",
        help="xy, energy, depo, depoElectron, spacepoint, wirecell, mcbeamcosmic (default: %(default)s)",
    )
    add(
        "--t0",
        type=float,
        default=LEAVE_TIME_IN,
        metavar="US",
        help="time relative to the trigger that all charge is placed for; the default %(default)s leaves the offset "
        "of 250 us of drift in, as it is in the single TPCs",
    )
    add(
        "--legacy-mirror",
        action="store_true",
        help="mirror TPCs on the other side as the original program did, one cell too far",
    )
    add(
        "--drop-negative",
        action="store_true",
        help="leave out cells at negative coordinates, which networks do not take (they arise with --t0)",
    )
    add_index_range(add)
    add("--geometry", default="pdsp", help="the one the files were made with (default: %(default)s)")
    add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Join what is not finished; exit code 0, or 1 when a group failed."""
    from hpcreco import collective, filewise

    joiner = _joiner(args)
    ranks = collective.connect()
    groups = collective.on_root(ranks.rank, ranks.broadcast, lambda: plan(args, joiner.options.tpcs))
    by_key = {group.key: group for group in groups}
    token = names.tpc_token(joiner.options.tpcs)
    return filewise.run(
        [_job(group, joiner) for group in groups],
        lambda job: write(joiner, by_key[job.key]),
        finished=lambda job: joiner.finished(by_key[job.key]),
        title=f"join {token}",
        report=args.output / f"join-{token}.json",
        collective=ranks,
        **filewise.options(args),
    )


def write(joiner: Joiner, group: Group) -> dict[str, Any]:
    """Join one group; counts and residuals for the run report."""
    from hpcreco.experiments.protodune.joining import images, truth

    if group.product == "xy":
        return images.write(joiner, group)
    if group.product == PARTICLES:
        return truth.write_particles(joiner, group)
    return truth.write_truth(joiner, group)


def plan(args: argparse.Namespace, tpcs: tuple[int, ...]) -> list[Group]:
    """Groups of the folder that have all TPCs, in sorted order. JoinUsageError when there is none."""
    from hpcreco.experiments.protodune.joining.groups import Group
    from hpcreco.experiments.protodune.parsed import VALUE_COLUMNS

    products = tuple(args.product.split(","))
    possible = ("xy", *VALUE_COLUMNS, PARTICLES)
    unknown = [product for product in products if product not in possible]
    if unknown:
        raise JoinUsageError(f"--product {unknown[0]}: cannot be joined; choose from {', '.join(possible)}")
    if not args.input.is_dir():
        raise JoinUsageError(f"{args.input}: no such folder")
    low, high = args.index_range or (0, float("inf"))
    known, _ = names.scan([args.input])
    wanted = [name for name in known if name.product in products and low <= name.index <= high]
    wanted = [name for name in wanted if name.tpc in tpcs and _readable(name)]
    complete, lacking = [], []
    for key, members in names.group(wanted, ("event_type", "index", "batch", "product")).items():
        by_tpc = {tpc: [name for name in members if name.tpc == tpc] for tpc in tpcs}
        missing = [tpc for tpc, files in by_tpc.items() if not files]
        if missing:
            lacking.append(f"{_words(key)} lacks TPC {', '.join(map(str, missing))}")
            continue
        # the HDF5 file sorts before the legacy npz of the same events
        inputs = tuple(min(by_tpc[tpc], key=lambda n: n.path.suffix != ".h5").path for tpc in tpcs)
        output = args.output / Path(names.replace_tpc(inputs[0], tpcs)).with_suffix(".h5")
        complete.append(Group(_words(key), key[3], inputs, output))
    for line in lacking:
        LOG.warning("%s: skipped", line)
    if not complete:
        raise JoinUsageError(
            f"{args.input}: no group of {args.product} files has all of the TPCs {list(tpcs)}"
            + (f" ({lacking[0]})" if lacking else "; legacy xy .npz files: hpcreco convert them first")
        )
    return complete


def _readable(name: names.FileName) -> bool:
    """Shards; of parsed truth also the original's npz."""
    return name.path.suffix == ".h5" or (name.path.suffix == ".npz" and name.product not in ("xy", PARTICLES))


def _words(key: tuple) -> str:
    event_type, index, batch, product = key
    return f"{event_type} {index}" + ("" if batch is None else f" batch {batch}") + f" {product}"


def _joiner(args: argparse.Namespace) -> Joiner:
    from hpcreco.experiments.protodune import geometry
    from hpcreco.experiments.protodune.joining.groups import Joiner, Options

    try:
        tpcs = tuple(int(tpc) for tpc in args.tpcs.split(","))
    except ValueError:
        raise JoinUsageError(f"--tpcs {args.tpcs}: expected numbers, e.g. {BEAM_SIDE}") from None
    if len(tpcs) < 2 or len(set(tpcs)) != len(tpcs):
        raise JoinUsageError(f"--tpcs {args.tpcs}: expected two or more different TPCs, e.g. {BEAM_SIDE}")
    detector = geometry.load(args.geometry)
    for tpc in tpcs:
        detector.face(tpc)
    return Joiner(detector, Options(tpcs, args.t0, args.legacy_mirror, args.drop_negative))


def _job(group: Group, joiner: Joiner) -> Job:
    recipe = json.dumps(joiner.recipe(group), sort_keys=True)
    size = sum(path.stat().st_size for path in group.inputs)
    return Job(group.key, group.inputs, (group.output,), recipe, size)
