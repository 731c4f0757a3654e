"""Train a network on shards: alone, under mpiexec, or under srun.

CONFIG is a YAML file or the name of a shipped config (`hpcreco config list`). Results go to its output_dir:
checkpoints/, summaries.csv, train.log, configs/ and, when store_inference asks for it, yinf files.

TERM, INT, USR1, USR2 or the job's time limit: the step is finished, a checkpoint is saved and the exit code is 75;
the same command with --resume (or --resume auto, for job scripts) goes on where it stopped.
"""

from __future__ import annotations

import argparse

from hpcreco import config, experiment
from hpcreco.world import detect

EPILOG = """\
examples:
  hpcreco train ghost3d_tiny
  mpiexec -n 2 hpcreco train ghost3d_tiny --set output_dir=runs/two
  srun -N 5 hpcreco train configs/protodune/ghost3d.yaml --resume auto
  hpcreco train my.yaml --resume 24 --set optimizer.lr=0.001 --lenient
"""


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every verb that takes a config."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped config")
    parser.add_argument(
        "--set", metavar="a.b=c", action="append", default=[], help="override a key; may be repeated"
    )
    parser.add_argument(
        "--lenient", action="store_true", help="unknown keys and changed settings warn instead of failing"
    )
    parser.add_argument(
        "--backend",
        choices=["serial", "horovod", "ddp", "mpi", "nccl", "gloo"],
        help="how ranks add gradients (default: serial alone, horovod or else ddp when launched with several ranks)",
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], help="where to compute (default: a GPU if there is one)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step")


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


def load_run(args: argparse.Namespace) -> tuple[config.Run, experiment.Experiment]:
    """The `Run` that the config and the flags describe, and its experiment."""
    raw = config.load(args.config, args.set)
    found = experiment.recognise(raw)
    run = found.load("normalise")(raw, args.lenient)
    changes = {name: getattr(args, name) for name in ("backend", "device") if getattr(args, name, None)}
    return (run.model_copy(update=changes) if changes else run), found


def resume_request(text: str | None) -> str | int | None:
    """``--resume`` as None, "last", "auto" or an epoch number."""
    if text is None or text in ("last", "auto"):
        return text
    if not text.isdigit():
        raise config.ConfigError(f"--resume {text}: write an epoch number, auto, or nothing after it")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Train, or infer when the config names no training data."""
    settings, found = load_run(args)
    resume = resume_request(args.resume)
    if not settings.trains:
        from hpcreco.infer import infer

        return infer(settings, found, which=resume if isinstance(resume, int) else None)
    from hpcreco.train.run import train
    from hpcreco.train.start import Request

    return train(
        settings, found, detect(), Request(resume, args.overwrite, args.lenient), verbose=args.verbose
    )
