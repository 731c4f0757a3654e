"""A file-wise verb for the tests of real ranks: FOLDER N, and ways in which its files go wrong or take long."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hpcreco import filewise, shards, world

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("n", type=int)
parser.add_argument("--busy", type=int, help="the rank whose first file takes until all others are done")
parser.add_argument("--stall", action="store_true", help="every rank's second file never ends by itself")
parser.add_argument("--bad", default="")
parser.add_argument("--raise-in-check", default="")
filewise.add_filewise_arguments(parser)
args = parser.parse_args()

RANK = world.detect().rank
SCHEMA = shards.Schema("hpcreco/toy/out", 1, (shards.Table("t", (shards.Field("v", "float64"),)),))


def begun(rank: int) -> int:
    """How many files a rank has begun, in this run or an earlier one."""
    return len(list((args.folder / "log").glob(f"*.rank{rank}.*")))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        time.sleep(0.01)


def take_long() -> None:
    if args.busy is not None and args.busy != RANK:
        wait_for(lambda: begun(args.busy) > 0)
    elif args.busy is not None and begun(RANK) == 1:
        wait_for(lambda: len(list(args.folder.glob("*.h5"))) == args.n - 1)
    if args.stall and begun(RANK) == 2:
        time.sleep(1000)


def work(job: filewise.Job) -> None:
    (args.folder / "log" / f"{job.key}.rank{RANK}.{os.getpid()}.{time.time_ns()}").touch()
    with shards.ShardWriter(job.outputs[0], SCHEMA, {}) as writer:
        writer.append(0, {"t": {"v": [1.0] * 1000}})
        take_long()
        if job.key == args.bad:
            raise ValueError("bad file")


def finished(job: filewise.Job) -> str | None:
    if job.key == args.raise_in_check:
        sys.exit("not an Exception: ends this rank as a defect would")
    return None if job.outputs[0].exists() else "missing"


(args.folder / "log").mkdir(exist_ok=True)
jobs = [filewise.Job(f"f{k}", (), (args.folder / f"f{k}.h5",), size=100 * k) for k in range(args.n)]
report = args.folder / "report.json"
sys.exit(filewise.run(jobs, work, finished=finished, title="toy", report=report, **filewise.options(args)))
