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
from pathlib import Path

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
  mpiexec -n 2 hpcreco train my.yaml --timeline trace.json      what each rank does when: open it in ui.perfetto.dev

keys of `parallel:` (the same for every experiment), with their defaults:
  timeout: 1800          seconds without progress after which the job is ended
  bucket_mb: 1           gradients are summed over ranks in pieces of so many MB, in one order on all ranks
  overlap: true          each piece while (the last) backward still computes the next; false: all of them after it
  compression: none      fp16 or bf16 send 16 bits of each gradient instead of 32, with 11 or 8 bits of precision (bf16
                         needs --backend ddp); ranks stay equal, but no longer compute what one rank does. For slow
                         networks: between ranks of one node sums in fp16 take two to three times as
                         long as in float32. hpcreco plan --set parallel.compression=fp16 weighs one against the other
  sync_batch_norm: false batch statistics of all ranks' rows, instead of each rank's own
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
    parser.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="write what every rank does during steps 3 to 8 to FILE (JSON, for ui.perfetto.dev or chrome://tracing)",
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

    request = Request(resume, args.overwrite, args.lenient)
    return train(settings, found, detect(), request, verbose=args.verbose, timeline=args.timeline)
