"""Fits per second of the truth-likelihood: events one by one with scipy, one by one in our minimiser, and in batches.

    python tools/bench/reconstruction.py PULSES.h5 [--events 16] [--batches 1 4 16]

PULSES is a shard of `hpcreco simulate icecube`; fits start from its `smeared` seeds, in float64, on one thread. CPU
seconds are those of the process, which a busy machine does not change.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hpcreco import shards
from hpcreco.experiments.icecube import files
from hpcreco.experiments.icecube.reconstruct import model, seeds
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.by_scipy import ScipyMinimiser
from hpcreco.experiments.icecube.reconstruct.events import open_events
from hpcreco.experiments.icecube.reconstruct.fit import Fit, fit
from hpcreco.experiments.icecube.reconstruct.rows import take


def main() -> None:
    """Print one row per way of fitting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pulses", type=Path)
    parser.add_argument("--events", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with shards.Shard(args.pulses) as source:
        generator = source.attributes["generator"]
    found = model.truth(files.of_shard(args.pulses), generator)
    data, given = open_events(args.pulses, range(args.events))
    data = data.to(dtype=torch.float64)
    start = seeds.from_columns(*given.seeds["smeared"], found.names)
    print(f"{args.events} events, {len(data.charge)} pulses, {found.detector.n_doms} DOMs")
    print(
        f"{'minimiser':24s} {'batch':>5s} {'CPU s/event':>12s} {'fits/CPU s':>11s} {'evaluations':>12s}  median loss"
    )
    ways = [("scipy BFGS", ScipyMinimiser(), 1)]
    ways += [
        (f"batched {name}", Minimiser(method=name), size)
        for name in ("bfgs", "lbfgs")
        for size in args.batches
    ]
    for name, minimiser, size in ways:
        seconds, fits = timed(
            lambda size=size, minimiser=minimiser: [
                fit(found.likelihood, take(data, part), start[part], found.space(), minimiser)
                for part in torch.arange(args.events).split(size)
            ]
        )
        evaluations = torch.cat([result.evaluations for result in fits]).double().mean()
        loss = torch.cat([result.loss for result in fits]).median()
        rate = args.events / seconds
        print(
            f"{name:24s} {size:5d} {1 / rate:12.3f} {rate:11.2f} {evaluations:12.1f}  {loss:.4f}", flush=True
        )


def timed(work: Callable[[], list[Fit]]) -> tuple[float, list[Fit]]:
    """CPU seconds of the process, and what came out."""
    begun = time.process_time()
    made = work()
    return time.process_time() - begun, made


if __name__ == "__main__":
    main()
