"""Train a network on shards: alone, under mpiexec, or under srun.

CONFIG is a YAML file or the name of a shipped config (`hpcreco config list`). Results go to its output_dir:
checkpoints/, summaries.csv, train.log, configs/ and, when store_inference asks for it, yinf files.

TERM, INT, USR1, USR2 or the job's time limit: the step is finished, a checkpoint is saved and the exit code is 75;
the same command with --resume (or --resume auto, for job scripts) goes on where it stopped.

A config may name classes of your own as module:Class, for model, data set, loss, metric and optimizer; the docstring of
hpcreco.experiments.protodune.plugins says what each must offer.
"""

from __future__ import annotations

import argparse

from hpcreco.config import ConfigError
from hpcreco.config_arguments import add_config_arguments, load_run
from hpcreco.world import detect

EPILOG = """\
examples:
  hpcreco train hello        is this machine ready? Seconds, no data; so are cnn and random_sparse
  hpcreco train ghost3d_tiny
  mpiexec -n 2 hpcreco train ghost3d_tiny --set output_dir=runs/two
  srun -N 5 hpcreco train configs/protodune/ghost3d.yaml --resume auto
  hpcreco train my.yaml --resume 24 --set optimizer.lr=0.001 --lenient
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add_config_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        metavar="EPOCH|auto",
        help="go on from the last checkpoint, from that of EPOCH, or (auto) from the last if there is one",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the checkpoints in output_dir and start again"
    )


def resume_request(text: str | None) -> str | int | None:
    """``--resume`` as None, "last", "auto" or an epoch number."""
    if text is None or text in ("last", "auto"):
        return text
    if not text.isdigit():
        raise ConfigError(f"--resume {text}: write an epoch number, auto, or nothing after it")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Train, or infer when the config names no training data."""
    settings, found = load_run(args)
    resume = resume_request(args.resume)
    if resume is None and not args.overwrite and settings.resume is not None:
        resume = settings.resume
    if not settings.trains:
        from hpcreco.infer import infer

        return infer(settings, found, which=resume if isinstance(resume, int) else None)
    from hpcreco.train.run import train
    from hpcreco.train.start import Request

    return train(
        settings, found, detect(), Request(resume, args.overwrite, args.lenient), verbose=args.verbose
    )
