"""A file-wise verb for the tests of real ranks: FOLDER N SCHEDULE [--slow SECONDS] [--bad KEY] [--broken KEY]."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from hpcreco import filewise, shards

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("n", type=int)
parser.add_argument("--slow", type=float, default=0.0)
parser.add_argument("--bad", default="")
parser.add_argument("--raise-in-check", default="")
filewise.add_filewise_arguments(parser)
args = parser.parse_args()

SCHEMA = shards.Schema("hpcreco/toy/out", 1, (shards.Table("t", (shards.Field("v", "float64"),)),))


def work(job: filewise.Job) -> None:
    with (args.folder / "log" / f"{job.key}.{os.getpid()}.{time.time_ns()}").open("w"):
        pass
    with shards.ShardWriter(job.outputs[0], SCHEMA, {}) as writer:
        writer.append(0, {"t": {"v": [1.0] * 1000}})
        time.sleep(args.slow)
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
