"""Fit every event of pulses shards with a trained model: parameters, their uncertainties, goodness of fit.

MODEL is the folder of an export, a config whose training has saved a checkpoint, or "truth", the formulas that
simulated events were drawn from. The settings are the config's `reconstruction_settings`; flags come on top. One yinf
file per shard; runs alone, under mpiexec -n P or srun, or as Slurm array tasks. A run that was stopped goes on with the
batch of events that it was at.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcreco import filewise

EPILOG = """\
examples:
  hpcreco icecube reconstruct export -i pulses -o reco --seed MonopodFit4_PartialExclusion
  hpcreco icecube reconstruct truth -i pulses -o reco --seed smeared --covariance --circular
  mpiexec -n 4 hpcreco icecube reconstruct export -i pulses -o reco --seed data --random-seeds 3
  hpcreco icecube reconstruct export -i pulses -o scan --events 0:4 --skyscan --goodness --scans --mcmc
  mpiexec -n 8 hpcreco icecube reconstruct export -i pulses-00003.h5 -o sky --events 7 --skyscan
  hpcreco icecube reconstruct cascade_7param_tiny -i pulses -o reco --set batched_optimizer_settings.method=lbfgs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    _add_inputs(parser)
    _add_fits(parser)
    _add_more(parser)
    filewise.add_filewise_arguments(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help='folder of an export, a config, or "truth"')
    add(
        "-i",
        "--inputs",
        nargs="+",
        type=Path,
        required=True,
        metavar="PATH",
        help="pulses shards, or folders of them",
    )
    add("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the yinf files")
    add(
        "--events",
        type=_slice,
        default=slice(None),
        metavar="A:B",
        help="only these of each shard, counted from 0",
    )
    add(
        "--set",
        metavar="a.b=c",
        action="append",
        default=[],
        help="a key of reconstruction_settings; repeatable",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")


def _add_fits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("fits").add_argument
    add(
        "--seed",
        action="append",
        metavar="NAME",
        help='start values of the shard by name, "data" (from the pulses) or "x_parameters" (the truth); repeated: '
        "the best of the fits is kept",
    )
    add("--random-seeds", type=int, metavar="N", help="so many more fits from around each seed")
    add("--fix", action="append", metavar="PARAMETER", help="hold a parameter at its seed")
    add(
        "--optimizer",
        choices=("batched", "scipy", "spherical_opt"),
        help="many events at once, or one by one: with scipy, or without gradients on the sphere "
        "(settings: ..._optimizer_settings)",
    )
    add("--batch-size", type=int, metavar="N", help="events fitted together")
    add("--precision", choices=("float32", "float64"), help="of the likelihood (default float64)")
    add("--bright-doms", action="store_true", help="leave out DOMs with most of an event's charge")
    add("--merge-pulses", type=float, metavar="NS", help="merge pulses in the same slot of this length")


def _add_more(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("beyond the fit").add_argument
    add("--covariance", action="store_true", help="from second derivatives, gradients, and both")
    add("--circular", action="store_true", help="circularised error of the direction")
    add(
        "--skyscan",
        action="store_true",
        help="profile likelihood over the sky; with fewer files than ranks, all ranks fit pixels of each event",
    )
    add("--goodness", action="store_true", help="rank among events drawn from the fit")
    add("--mcmc", action="store_true", help="posterior samples")
    add("--scans", action="store_true", help="likelihood along each parameter")


def _slice(text: str) -> slice:
    first, colon, last = text.partition(":")
    if not colon:
        return slice(int(first), int(first) + 1)
    return slice(int(first) if first else None, int(last) if last else None)


def changes(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, as keys of `reconstruction_settings`."""
    plain = {
        "seed": args.seed,
        "random_seeds": args.random_seeds,
        "reco_optimizer_interface": args.optimizer,
        "batch_size": args.batch_size,
        "float_precision": args.precision,
        "minimize_parameter_dict": dict.fromkeys(args.fix, False) if args.fix else None,
    }
    switches = {
        "calculate_covariance_matrix": args.covariance,
        "estimate_angular_uncertainty": args.circular,
        "make_skyscan": args.skyscan,
        "calculate_goodness_of_fit": args.goodness,
        "run_mcmc": args.mcmc,
        "make_1d_llh_scans": args.scans,
    }
    preparation = {"bright_doms": args.bright_doms or None, "merge_pulses": args.merge_pulses}
    chosen = {name: value for name, value in plain.items() if value is not None}
    chosen |= {name: True for name, wanted in switches.items() if wanted}
    inner = {name: value for name, value in preparation.items() if value is not None}
    return chosen | ({"preparation": inner} if inner else {})


def run(args: argparse.Namespace) -> int:
    """Reconstruct as the flags say."""
    from hpcreco.experiments.icecube.reconstruct.files import reconstruct

    return reconstruct(
        args.model,
        args.inputs,
        args.out,
        events=args.events,
        changes=changes(args),
        assignments=args.set,
        device=args.device,
        **filewise.options(args),
    )
