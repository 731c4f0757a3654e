"""The original program's commands with their names and flags, calling hpcreco: `hpcreco legacy install DIR`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from hpcreco.legacy import Script, Wrappers


def train(arguments: Sequence[str]) -> list[str]:
    """``train.py [CONFIG] -d BACKEND --gpu ID --ranks-per-node N --rank-gpu --resume [EPOCH] -v`` for hpcreco."""
    parser = argparse.ArgumentParser(
        prog="train.py", description="Train, or infer when CONFIG names no training data: hpcreco train."
    )
    add = parser.add_argument
    add(
        "config",
        nargs="?",
        default="hello",
        help="a YAML file, or a config that hpcreco ships (default: hello)",
    )
    add("-d", "--distributed-backend", choices=("mpi", "nccl", "gloo"), help="hpcreco train --backend")
    add("--gpu", metavar="ID", help="compute on this GPU alone")
    add("--ranks-per-node", type=int, metavar="N", help="no effect: the launcher says how many there are")
    add(
        "--rank-gpu",
        action="store_true",
        help="no effect: every rank takes the GPU of its number on the node",
    )
    add("--resume", nargs="?", const="", metavar="EPOCH", help="go on from the last epoch, or from this one")
    add("-v", "--verbose", action="store_true", help="log every step")
    args, more = parser.parse_known_args(list(arguments))
    if args.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu
    words = ["train", args.config, *more]
    words += ["--backend", args.distributed_backend] if args.distributed_backend else []
    words += ["--resume", *([args.resume] if args.resume else [])] if args.resume is not None else []
    return [*words, "--verbose"] if args.verbose else words


def make_batches(arguments: Sequence[str]) -> list[str]:
    """``make_batches.py parsed_dir out_dir tpc [batch_size]``, or ``xy_dir a a`` to join TPCs, for hpcreco."""
    parser = argparse.ArgumentParser(
        prog="make_batches.py", description="Tile parsed files, or (xy_dir a a) join their TPCs 1, 5 and 9."
    )
    for name in ("parsed_dir", "out_dir", "tpc"):
        parser.add_argument(name)
    parser.add_argument("batch_size", nargs="?")
    args = parser.parse_args(list(arguments))
    if not args.tpc.isdigit():  # a filler: three arguments had to be given, whatever for
        folder = str(Path(args.parsed_dir).absolute())
        return ["join-tpcs", "-i", folder, "-o", folder]
    words = ["tile", "-i", args.parsed_dir, "-o", args.out_dir, "-t", args.tpc]
    return [*words, "-b", args.batch_size] if args.batch_size else words


def postproc(arguments: Sequence[str]) -> list[str]:
    """``postproc.py xy_dir parsed_dir yinf_dir out_dir`` for hpcreco: the charge of the cells a network chose."""
    parser = argparse.ArgumentParser(
        prog="postproc.py", description="Solve for the charge of deghosted cells: hpcreco solve."
    )
    for name in ("xy_dir", "parsed_dir", "yinf_dir", "out_dir"):
        parser.add_argument(name)
    args, more = parser.parse_known_args(list(arguments))
    return ["solve", args.yinf_dir, "--xy", args.xy_dir, "-i", args.parsed_dir, "-o", args.out_dir, *more]


_HEAD = "#!/usr/bin/env bash\n# {0} Written by `hpcreco legacy install`.\n"

_MAKE_BATCHES = """\
#   scripts/make_batches.sh -i PARSED -o OUT -t TPC [-b EVENTS_PER_FILE] [-n THREADS]      xy files go to $BASE_DIR/OUT
export BASE_DIR=${BASE_DIR:-${SCRATCH:?: set it, or BASE_DIR, to the folder that outputs go under}/larsim}
exec "{bin}/hpcreco" tile "$@"
"""

_MAKE_BATCHES_CORI = """\
#   sbatch -N NODES -t TIME scripts/make_batches_cori.sh [-i PARSED -o OUT -t TPC ...]      one task a node
#SBATCH --job-name=hpcreco-tile
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
export BASE_DIR=${BASE_DIR:-${SCRATCH:?: set it, or BASE_DIR, to the folder that outputs go under}/larsim}
# What is tiled when sbatch's line ends with the name of this script; edit it, or set the variables.
if [ $# = 0 ]; then set -- -i "${PARSED:-$BASE_DIR/parsed}" -o "${OUT:-xy}" -t "${TPC:-1}"; fi
export PATH="{bin}:$PATH" HPCRECO_JOBS=${HPCRECO_JOBS:-"{jobs}"}
source "$HPCRECO_JOBS/tile.sl"
"""

_TRAIN_LOCAL = """\
#   scripts/train_local.sh CONFIG [--resume [EPOCH]] [-v]       passes everything on to train.py
exec "{bin}/python" "$(dirname "${BASH_SOURCE[0]}")/../train.py" "$@"
"""

_TRAIN_CLUSTER = """\
#   sbatch -N 5 -t 60 scripts/train_{0}.sh CONFIG [flags of `hpcreco train`]     {1}
# It goes on by itself after its time limit until it is done. HPCRECO_SITE, HPCRECO_IMAGE: see jobs/README.md.
#SBATCH --job-name=hpcreco-train
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
{2}
export PATH="{bin}:$PATH" HPCRECO_JOBS=${HPCRECO_JOBS:-"{jobs}"}
{3}source "$HPCRECO_JOBS/train.sl"
"""


def _shell(summary: str, body: str, *parts: str) -> Script:
    text = _HEAD.replace("{0}", summary[0].upper() + summary[1:] + ".") + body
    for number, part in enumerate(parts):
        text = text.replace(f"{{{number}}}", part)
    return Script(summary, text=text)


WRAPPERS = Wrappers(
    {
        "scripts/make_batches.sh": _shell("tile parsed files", _MAKE_BATCHES),
        "scripts/make_batches_cori.sh": _shell("tile parsed files on nodes of a cluster", _MAKE_BATCHES_CORI),
        "scripts/train_local.sh": _shell("train, or infer, on this machine", _TRAIN_LOCAL),
        "scripts/train_cori.sh": _shell(
            "train on nodes of a cluster",
            _TRAIN_CLUSTER,
            "cori",
            "one rank a node",
            "#SBATCH --ntasks-per-node=1",
            "",
        ),
        "scripts/train_cgpu.sh": _shell(
            "train on nodes with 8 GPUs",
            _TRAIN_CLUSTER,
            "cgpu",
            "8 ranks a node, a GPU each, NCCL",
            "#SBATCH --ntasks-per-node=8\n#SBATCH --gpus-per-node=8",
            'set -- "$@" --backend nccl\n',
        ),
        "make_batches.py": Script(
            "tile parsed files; with `xy_dir a a`, join TPCs 1, 5, 9", translate=f"{__name__}:make_batches"
        ),
        "train.py": Script("train, or infer, with the original's flags", translate=f"{__name__}:train"),
        "postproc.py": Script("solve for the charge of deghosted cells", translate=f"{__name__}:postproc"),
    },
    configs="protodune",
)
