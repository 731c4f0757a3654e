#!/usr/bin/env python
"""Seconds to tile a simulated event, with and without reading its waveforms from a parsed file.

    python tools/bench/tiling.py --out bench            # 3 cosmic events, 3 showers, threads 1 and 2

Peers take turns within one run, so that a busy machine slows all of them: the numbers of threads, each from
arrays in memory and from a file (page cache warm, as `hpcreco tile` reads it); a copy of the bytes that tiling
must read and write; and a compiled loop that adds up the fine candidates, as if they were stored: what an
engine that visits each of them cannot beat.

Writes tiling.csv (one row per event type and peer: medians and quartiles), tiling.png, and the ratios it claims:
tiling.figures.csv. `cpu` is the CPU time of the process: on a machine that others use it is the number to trust,
and the figure of one thread against the loop is one of CPU times.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
from figures import Figure, timed, write, write_table

from hpcreco.experiments.protodune import geometry, names, parsed
from hpcreco.experiments.protodune.simulation import chain
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.streams import EventKey
from hpcreco.experiments.protodune.tiling.events import tiled
from hpcreco.experiments.protodune.tiling.tiler import Tiler, TilingOptions

KINDS = {"BeamCosmic": 1, "Electron": 2}  # codes in the keys of the random streams
TARGETS = {"BeamCosmic": 1.0, "Electron": 0.2}  # seconds on one core
TPC = 1
LOOP = "adding fine candidates"
#: CPU time of one thread over that of the loop when tiling still visited every pixel, and the bar: a third of it
BEFORE = 15.6

Samples = tuple[np.ndarray, np.ndarray, np.ndarray]
Peers = dict[str, Callable[[], object]]
Times = dict[str, list[float]]


def main() -> int:
    """Simulate, time, write the tables and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results")
    parser.add_argument("--events", type=int, default=3, help="events of each type (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default 1 2)")
    parser.add_argument("--seed", type=int, default=2024)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    tilers = {threads: Tiler(geometry.load().face(TPC), threads=threads) for threads in args.threads}
    print(f"tables {(time.perf_counter() - started) / len(tilers):.2f} s")
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            events = [simulated(kind, args.seed, number) for number in range(args.events)]
            started = time.perf_counter()
            tilers[args.threads[0]].tile(*events[0])  # compiles, or loads the compiled code
            print(f"{kind}: first call {time.perf_counter() - started:.2f} s")
            with parsed.open_parsed(stored(Path(folder), kind, events)) as file:
                seconds, cpu = measure(peers(events, file, tilers), args.repeats)
            rows += table(kind, events, tilers[args.threads[0]], seconds, cpu)
            claims += claimed(kind, seconds, cpu)
    write_table(rows, args.out / "tiling.csv")
    plot(rows, args.out / "tiling.png")
    write(claims, args.out / "tiling.figures.csv")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB, {args.out}/tiling.csv")
    return 0


def simulated(kind: str, seed: int, number: int) -> Samples:
    """Samples (tick, channel, value) of one event."""
    key = EventKey(seed, KINDS[kind], 1, number)
    event = chain.simulate(key, kind, geometry.load(), TPC, Settings())
    return event.samples.tick, event.samples.channel, event.samples.value


def stored(folder: Path, kind: str, events: list[Samples]) -> Path:
    """A parsed file of the events."""
    path = folder / names.compose(kind, 1, "wire", TPC)
    attributes = {"event_type": kind, "index": 1, "product": "wire", "tpc": TPC, "generator": "bench"}
    attributes |= {"geometry": "pdsp", "geometry_digest": geometry.load().digest}
    attributes |= {"n_ticks": geometry.N_TICKS, "n_channels": geometry.N_CHANNELS}
    with parsed.wire_writer(path, attributes) as writer:
        for number, samples in enumerate(events):
            parsed.append_waveform(writer, number, *samples)
    return path


def peers(events: list[Samples], file: parsed.Parsed, tilers: dict[int, Tiler]) -> Peers:
    """What takes turns; each works on all events."""
    found: Peers = {}
    for n, tiler in tilers.items():
        name = f"{n} thread{'s' * (n > 1)}"
        found[name] = lambda t=tiler: [t.tile(*samples) for samples in events]
        found[f"{name}, reading"] = lambda t=tiler: sum(1 for _ in tiled(t, file, range(len(events))))
    tiler = next(iter(tilers.values()))
    every = [tiler.tile(*samples) for samples in events]
    buffers = [
        np.ascontiguousarray(a)
        for s, t in zip(events, every, strict=True)
        for a in (*s, t.coords, t.features)
    ]
    targets = [np.empty_like(buffer) for buffer in buffers]
    found["one pass"] = lambda: [np.copyto(y, x) for x, y in zip(buffers, targets, strict=True)]
    fine = fine_candidates(events[0], tiler)
    share = sum(t.pixels for t in every) / len(fine[0])  # one event's stand for all of them
    totals = np.zeros((len(every[0].coords), fine[1].shape[1]), np.float32)
    add_up(*fine, totals, 1)
    found[LOOP] = lambda: add_up(*fine, totals, share)
    return found


def fine_candidates(samples: Samples, tiler: Tiler) -> tuple[np.ndarray, np.ndarray]:
    """Cell int32 (N,) and charges float32 (N, P) of the fine candidates of an event, in the order of the cells' x."""
    fine = Tiler(tiler.face, replace(TilingOptions(), downsample=(1, 1, 1))).tile(*samples)
    cells = np.ravel_multi_index((fine.coords // tiler.options.downsample).T, tiler.shape)
    _, row = np.unique(cells, return_inverse=True)
    return row.astype(np.int32), fine.features


@numba.njit(nogil=True)
def add_up(row: np.ndarray, charge: np.ndarray, total: np.ndarray, times: float) -> None:
    """Add each candidate's charges to its cell, `times` over."""
    left = int(times * len(row))
    while left > 0:
        for i in range(min(left, len(row))):
            for p in range(charge.shape[1]):
                total[row[i], p] += charge[i, p]
        left -= len(row)


def measure(peers: Peers, repeats: int) -> tuple[Times, Times]:
    """Seconds and CPU seconds of every peer in every round; all take turns, in another order each round."""
    seconds: Times = {name: [] for name in peers}
    cpu: Times = {name: [] for name in peers}
    order = list(peers)
    for _ in range(repeats):
        order = order[1:] + order[:1]
        for name in order:
            wall, process = timed(peers[name])
            seconds[name].append(wall)
            cpu[name].append(process)
    return seconds, cpu


def claimed(kind: str, seconds: Times, cpu: Times) -> list[Figure]:
    """The ratios of each round."""
    if kind != "BeamCosmic":
        return []
    one, two, read = (
        np.array(seconds.get(name, [])) for name in ("1 thread", "2 threads", "1 thread, reading")
    )
    found = [
        Figure(
            "tiling a cosmic event, 1 thread / one pass over its bytes", one / seconds["one pass"], "lower"
        ),
        Figure(
            f"tiling a cosmic event with reading, 1 thread / {LOOP} one by one (CPU)",
            np.array(cpu["1 thread, reading"]) / cpu[LOOP],
            "lower",
            BEFORE / 3,
        ),
    ]
    if len(two):
        with_reading = read / seconds["2 threads, reading"]
        found += [
            Figure("tiling a cosmic event: 1 thread / 2 threads", one / two, "higher", 1.8),
            Figure("tiling a cosmic event with reading: 1 thread / 2 threads", with_reading, "higher", 1.8),
        ]
    return found


def table(
    kind: str, events: list[Samples], tiler: Tiler, seconds: Times, cpu: Times
) -> list[dict[str, object]]:
    """One row per peer, per event."""
    tiles = [tiler.tile(*samples) for samples in events]
    lit = [np.count_nonzero(s[1] >= 1600) / max(1, len(np.unique(s[0]))) for s in events]
    n_bytes = [sum(a.nbytes for a in (*s, t.coords, t.features)) for s, t in zip(events, tiles, strict=True)]
    rows = []
    for name, values in seconds.items():
        low, median, high = np.percentile(values, [25, 50, 75]) / len(events)
        row: dict[str, object] = {"event": kind, "peer": name, "events": len(events), "repeats": len(values)}
        row |= {"lit X channels per tick": round(float(np.mean(lit)), 2)}
        row |= {"fine candidates": int(np.mean([t.pixels for t in tiles]))}
        row |= {"cells": int(np.mean([len(t.coords) for t in tiles])), "MB": round(np.mean(n_bytes) / 1e6, 2)}
        row |= {"seconds": f"{median:.5f}", "quartile 1": f"{low:.5f}", "quartile 3": f"{high:.5f}"}
        row |= {"cpu": f"{np.median(cpu[name]) / len(events):.5f}", "target": TARGETS[kind]}
        row["x one pass"] = f"{np.median(values) / np.median(seconds['one pass']):.0f}"
        rows.append(row)
    return rows


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds per event with quartiles, and the targets."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    for number, row in enumerate(rows):
        middle, low, high = (float(str(row[k])) for k in ("seconds", "quartile 1", "quartile 3"))
        axis.errorbar([middle], [number], xerr=[[middle - low], [high - middle]], fmt="o", color="C0")
        if "thread" in str(row["peer"]):
            axis.plot([float(str(row["target"]))], [number], "|", color="C3", markersize=14)
    axis.set_yticks(range(len(rows)), [f"{row['event']}, {row['peer']}" for row in rows])
    axis.set_xscale("log")
    axis.set_xlabel("seconds per event: median, quartiles\n(red: target on one core)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
