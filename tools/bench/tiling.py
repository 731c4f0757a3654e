#!/usr/bin/env python
"""Seconds to tile a simulated event, against one pass over the bytes that tiling must read and write.

    python tools/bench/tiling.py --out bench            # 3 cosmic events, 3 showers, threads 1 and 2

Writes tiling.csv (one row per event type and number of threads: medians and quartiles) and tiling.png. The
peers (thread counts, the pass over the bytes) take turns within one run, so that a busy machine slows all of
them. `cpu` is the CPU time of the process: on a machine that others use it is the number to trust.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.simulation import chain
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.streams import EventKey
from hpcreco.experiments.protodune.tiling.tiler import Tiler

TARGETS = {"BeamCosmic": 1.0, "Electron": 0.2}  # seconds on one core
KINDS = {"BeamCosmic": 1, "Electron": 2}  # codes in the keys of the random streams
TPC = 1


def main() -> int:
    """Simulate, time, write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of tiling.csv and tiling.png")
    parser.add_argument("--events", type=int, default=3, help="events of each type (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each event (default %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default 1 2)")
    parser.add_argument("--seed", type=int, default=2024)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    face = geometry.load().face(TPC)
    started = time.perf_counter()
    tilers = {threads: Tiler(face, threads=threads) for threads in args.threads}
    tables = (time.perf_counter() - started) / len(tilers)
    rows = []
    for kind in TARGETS:
        events = [simulated(kind, args.seed, number) for number in range(args.events)]
        started = time.perf_counter()
        for tiler in tilers.values():
            tiler.tile(*events[0])  # compiles, or loads the compiled code
        compiled = time.perf_counter() - started
        rows += measure(kind, events, tilers, args.repeats)
        print(f"{kind}: tables {tables:.2f} s, first call {compiled:.2f} s")
    write(rows, args.out / "tiling.csv")
    plot(rows, args.out / "tiling.png")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, {args.out}/tiling.csv"
    )
    return 0


def simulated(kind: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (tick, channel, value) of one event."""
    key = EventKey(seed, KINDS[kind], 1, number)
    event = chain.simulate(key, kind, geometry.load(), TPC, Settings())
    return event.samples.tick, event.samples.channel, event.samples.value


def measure(kind: str, events: list, tilers: dict[int, Tiler], repeats: int) -> list[dict[str, object]]:
    """One row per thread count, plus one for the pass over the bytes; all take turns."""
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    lit, fine, cells, n_bytes = [], [], [], []
    for samples in events:
        tiles = next(iter(tilers.values())).tile(*samples)
        lit.append(np.count_nonzero(samples[1] >= 1600) / max(1, len(np.unique(samples[0]))))
        fine.append(tiles.pixels)
        cells.append(len(tiles.coords))
        buffers = [np.ascontiguousarray(a) for a in (*samples, tiles.coords, tiles.features)]
        targets = [np.empty_like(b) for b in buffers]
        n_bytes.append(sum(b.nbytes for b in buffers))
        peers: dict[str, Callable[[], object]] = {
            f"{n} thread{'s' * (n > 1)}": lambda t=tiler, s=samples: t.tile(*s) for n, tiler in tilers.items()
        }
        peers["one pass"] = lambda b=buffers, t=targets: [np.copyto(y, x) for x, y in zip(b, t, strict=True)]
        for _ in range(repeats):
            for name, work in peers.items():
                wall, process = time.perf_counter(), time.process_time()
                work()
                cpu.setdefault(name, []).append(time.process_time() - process)
                seconds.setdefault(name, []).append(time.perf_counter() - wall)
    rows = []
    for name, values in seconds.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        row = {"event": kind, "peer": name, "events": len(events), "repeats": repeats}
        row |= {
            "lit X channels per tick": round(float(np.mean(lit)), 2),
            "fine candidates": int(np.mean(fine)),
        }
        row |= {"cells": int(np.mean(cells)), "MB": round(float(np.mean(n_bytes)) / 1e6, 2)}
        row |= {"seconds": f"{median:.5f}", "quartile 1": f"{low:.5f}", "quartile 3": f"{high:.5f}"}
        row |= {"cpu": f"{np.median(cpu[name]):.5f}", "target": TARGETS[kind]}
        row["x one pass"] = f"{median / np.median(seconds['one pass']):.0f}"
        rows.append(row)
    return rows


def write(rows: list[dict[str, object]], path: Path) -> None:
    """The table, also on the screen."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(path.read_text())


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds per event with quartiles, and the targets."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.5))
    for number, row in enumerate(rows):
        middle, low, high = (float(str(row[k])) for k in ("seconds", "quartile 1", "quartile 3"))
        axis.errorbar([middle], [number], xerr=[[middle - low], [high - middle]], fmt="o", color="C0")
        if row["peer"] != "one pass":
            axis.plot([float(str(row["target"]))], [number], "|", color="C3", markersize=14)
    axis.set_yticks(range(len(rows)), [f"{row['event']}, {row['peer']}" for row in rows])
    axis.set_xscale("log")
    axis.set_xlabel("seconds per event (median, quartiles; red: target on one core)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
