#!/usr/bin/env python
"""Reading one event of an xy shard: default filter against compressed npz, unfiltered against a memory map.

    python tools/bench/shard_read.py --out bench          # files of 5, 20 and 100 events, 21 rounds

Writes shard_read.csv (one row per file length and peer: size, medians and quartiles of milliseconds, and the ratios
below), shard_read.png and, of all file lengths together, shard_read.figures.csv. An event has 110 000 voxels along
straight tracks: coordinates int32 (n, 3), features float32 (n, 3), labels float32 (n, 1). All peers hold the same
events, return the same arrays, are open before the clock starts, are in the page cache, and take turns within each
round on the same random event; ratios are taken round by round, so that a busy machine slows both sides. Long files
take fewer rounds. Peers:

    default      shard, byte shuffle and gzip 1 where that pays              bar: >= 3 times as fast as npz
    unfiltered   shard, compression "none"                                  bar: >= 0.5 of the memory map's speed
    staged       the default shard as `data.stage` copies it, unpacked      bar: the same
    lzf, gzip-4  shard, other filters
    npz          numpy.savez_compressed of the legacy layout: X float32 (N, 7), Y (N, 1), starts
    memmap       one .npy per field, mapped; the event's rows are copied
    h5py         the default shard by h5py's datasets: what shards do without
    2 threads    default, h5py and memmap, each of 2 threads reading its own events; milliseconds per event of both
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figures import Figure, write

from hpcreco import shards
from hpcreco.shards import access, staging

VOXELS = 110_000
SCHEMA = shards.Schema(
    "hpcreco/bench/xy",
    1,
    (
        shards.Table(
            "voxels",
            (
                shards.Field("coords", "int32", ("x", "y", "z")),
                shards.Field("features", "float32", ("V", "X", "U")),
                shards.Field("labels", "float32", ("electrons",)),
            ),
        ),
    ),
)
FIELDS = ("coords", "features", "labels")
SHARDS = {"default": "default", "unfiltered": "none", "lzf": "lzf", "gzip-4": "gzip-4"}
CLAIMS = (  # name, numerator, denominator, bar
    ("unfiltered shard read: memmap time / ours", "memmap", "unfiltered", 0.5),
    ("staged shard read: memmap time / ours", "memmap", "staged", 0.5),
    ("shard read, default filter: npz time / ours", "npz", "default", 3.0),
    ("shard read, default filter: memmap time / ours", "memmap", "default", None),
    ("shard read, default filter: h5py time / ours", "h5py", "default", None),
)
THREAD_CLAIMS = (
    ("shard read, default filter, 2 threads: h5py time / ours", "h5py, 2 threads", "default, 2 threads"),
    ("shard read, default filter: 1 thread / 2 threads", "default", "default, 2 threads"),
    ("shard read, default filter by h5py: 1 thread / 2 threads", "h5py", "h5py, 2 threads"),
)
THREADED = ("default", "h5py", "memmap")
PER_THREAD = 48  # events of one measurement; with a few, it is over before a second core is awake
QUICK = ("unfiltered", "staged", "memmap")  # compared with each other in 20 times as many rounds
Event = dict[str, np.ndarray]
Read = Callable[[int], Event]


def event(rng: np.random.Generator) -> Event:
    """Cells around straight tracks in a coarse ProtoDUNE grid, sorted, with log-normal shared charges."""
    shape = np.array([750, 748, 288])
    found = np.zeros((0, 3), np.int64)
    while len(found) < VOXELS:
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        along = rng.uniform(0, shape) + np.arange(-300, 300, 0.5)[:, None] * direction
        ghosts = rng.integers(-6, 7, (1, 12, 3)) * [0, 1, 1]
        cells = np.floor(along[:, None] + ghosts).astype(np.int64).reshape(-1, 3)
        inside = ((cells >= 0) & (cells < shape)).all(axis=1)
        found = np.unique(np.concatenate([found, cells[inside]]), axis=0)
    charged = rng.random((VOXELS, 1)) < 0.05
    return {
        "coords": found[:VOXELS].astype(np.int32),
        "features": rng.lognormal(6, 1.2, (VOXELS, 3)).astype(np.float32),
        "labels": np.where(charged, rng.exponential(8000, (VOXELS, 1)), 0).astype(np.float32),
    }


def write_shard(path: Path, events: list[Event], compression: str) -> None:
    """One shard of all events."""
    with shards.ShardWriter(path, SCHEMA, {}, compression=compression) as writer:
        for number, one in enumerate(events):
            writer.append(number, {"voxels": one})


def shard_reader(path: Path) -> Read:
    """Through the product's own reader."""
    shard = shards.Shard(path, SCHEMA)
    return lambda number: shard.read(number, "voxels", FIELDS)


def npz_reader(path: Path, events: list[Event]) -> Read:
    """Writes and reads the legacy layout."""
    numbers = np.repeat(np.arange(len(events)), VOXELS)[:, None]
    whole = {name: np.concatenate([one[name] for one in events]) for name in FIELDS}
    table = np.concatenate([whole["coords"], numbers, whole["features"]], axis=1).astype(np.float32)
    np.savez_compressed(path, X=table, Y=whole["labels"], starts=np.arange(len(events)) * VOXELS)
    archive = np.load(path)

    def read(number: int) -> Event:
        start = int(archive["starts"][number])
        rows = archive["X"][start : start + VOXELS]
        labels = archive["Y"][start : start + VOXELS].copy()
        return {"coords": rows[:, :3].astype(np.int32), "features": rows[:, 4:].copy(), "labels": labels}

    return read


def memmap_reader(folder: Path, events: list[Event]) -> Read:
    """Writes one .npy per field and maps it."""
    for name in FIELDS:
        np.save(folder / f"{name}.npy", np.concatenate([one[name] for one in events]))
    mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS}

    def read(number: int) -> Event:
        rows = slice(number * VOXELS, (number + 1) * VOXELS)
        return {name: np.array(array[rows]) for name, array in mapped.items()}

    return read


def h5py_reader(path: Path) -> Read:
    """A shard's datasets, through HDF5."""
    group = access.open_hdf5(path)["voxels"]
    datasets = {name: group[name] for name in FIELDS}

    def read(number: int) -> Event:
        rows = slice(number * VOXELS, (number + 1) * VOXELS)
        return {name: dataset[rows] for name, dataset in datasets.items()}

    return read


def prepare(folder: Path, events: list[Event]) -> tuple[dict[str, Read], dict[str, int]]:
    """Readers and file sizes of every peer."""
    readers, sizes = {}, {}
    for name, compression in SHARDS.items():
        path = folder / f"{name}.h5"
        write_shard(path, events, compression)
        readers[name], sizes[name] = shard_reader(path), path.stat().st_size
    staging.unpack(folder / "default.h5", folder / "staged.h5")
    readers["staged"], sizes["staged"] = (
        shard_reader(folder / "staged.h5"),
        (folder / "staged.h5").stat().st_size,
    )
    readers["h5py"], sizes["h5py"] = h5py_reader(folder / "default.h5"), sizes["default"]
    readers["npz"] = npz_reader(folder / "legacy.npz", events)
    sizes["npz"] = (folder / "legacy.npz").stat().st_size
    readers["memmap"] = memmap_reader(folder, events)
    sizes["memmap"] = sum((folder / f"{name}.npy").stat().st_size for name in FIELDS)
    for name, read in readers.items():
        for number in (0, len(events) - 1):  # all peers give the same; this also fills the page cache
            found = read(number)
            if any(not np.array_equal(found[field], events[number][field]) for field in FIELDS):
                sys.exit(f"{name} returns other numbers")
    return readers, sizes


def measure(readers: dict[str, Read], n_events: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every peer in every round; in a round all read the same event, in rotating order."""
    rng = np.random.default_rng(1)
    times: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for turn in range(rounds):
        number = int(rng.integers(n_events))
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if (
                name != "npz"
            ):  # it keeps nothing; the others read another event first, so that nothing is cached
                readers[name]((number + n_events // 2) % n_events)
            start = time.perf_counter()
            readers[name](number)
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def measure_threads(readers: dict[str, Read], n_events: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per event of THREADED in every round, by 1 and by 2 threads, each with events of its own."""
    rng = np.random.default_rng(2)
    times: dict[str, list[float]] = {}
    for turn in range(rounds):
        numbers = rng.integers(n_events, size=(2, PER_THREAD))
        for name in THREADED[turn % 3 :] + THREADED[: turn % 3]:
            for label, parts in ((name, [numbers.reshape(-1)]), (f"{name}, 2 threads", list(numbers))):
                taken = together(readers[name], parts) / numbers.size
                times.setdefault(label, []).append(1e3 * taken)
    return times


def together(read: Read, parts: list[np.ndarray]) -> float:
    """Seconds until all threads have read their part."""
    threads = [threading.Thread(target=lambda part=part: [read(int(n)) for n in part]) for part in parts]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def spread(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def rows_of(
    n_events: int, times: dict[str, list[float]], quick: dict[str, list[float]], sizes: dict[str, int]
) -> list[dict[str, object]]:
    """The table's rows of one file length; `quick` holds the many rounds of those that take a fraction of a ms."""
    rows = []
    for name, values in times.items():
        low, median, high = spread(quick.get(name, values))
        against_npz = spread([npz / own for npz, own in zip(times["npz"], values, strict=True)])
        mapped = quick["memmap"] if name in quick else times["memmap"]
        against_map = spread(
            [other / own for other, own in zip(mapped, quick.get(name, values), strict=True)]
        )
        rows.append(
            {
                "events": n_events,
                "peer": name,
                "bytes_per_event": sizes[name] // n_events,
                "ms_median": round(median, 3),
                "ms_q1": round(low, 3),
                "ms_q3": round(high, 3),
                "speed_over_npz": round(against_npz[1], 2),
                "speed_over_npz_q1": round(against_npz[0], 2),
                "speed_over_npz_q3": round(against_npz[2], 2),
                "speed_over_memmap": round(against_map[1], 3),
                "speed_over_memmap_q1": round(against_map[0], 3),
                "speed_over_memmap_q3": round(against_map[2], 3),
            }
        )
    return rows


def thread_rows(n_events: int, times: dict[str, list[float]]) -> list[dict[str, object]]:
    """The table's rows of two threads."""
    rows: list[dict[str, object]] = []
    for name in (f"{peer}, 2 threads" for peer in THREADED):
        low, median, high = (round(value, 3) for value in spread(times[name]))
        mapped = zip(times["memmap, 2 threads"], times[name], strict=True)
        against_map = (round(value, 3) for value in spread([other / own for other, own in mapped]))
        columns = ("speed_over_memmap_q1", "speed_over_memmap", "speed_over_memmap_q3")
        rows.append(
            {"events": n_events, "peer": name, "ms_median": median, "ms_q1": low, "ms_q3": high}
            | dict(zip(columns, against_map, strict=True))
        )
    return rows


def plot(path: Path, rows: list[dict[str, object]]) -> None:
    """Milliseconds against events per file, one line per peer, bars from quartile to quartile."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    colours: dict[str, str] = {}
    for name in dict.fromkeys(str(row["peer"]) for row in rows):
        own = [row for row in rows if row["peer"] == name]
        median = np.array([row["ms_median"] for row in own])
        low, high = (np.array([row[key] for row in own]) for key in ("ms_q1", "ms_q3"))
        peer, _, threads = name.partition(", ")
        axes.errorbar(
            [row["events"] for row in own],
            median,
            [median - low, high - median],
            marker="o",
            color=colours.setdefault(peer, f"C{len(colours)}"),
            linestyle="--" if threads else "-",
            label=name,
        )
    axes.set(
        xscale="log", yscale="log", xlabel="events per file", ylabel="ms to read one event of 110 000 voxels"
    )
    figure.legend(loc="outside right center", fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Write, time, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), help="folder of shard_read.csv and shard_read.png"
    )
    parser.add_argument("--events", type=int, nargs="+", default=[5, 20, 100], help="events per file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--scratch", type=Path, help="where the files are written (default: the system's)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    events = [event(rng) for _ in range(max(args.events))]
    rows: list[dict[str, object]] = []
    ratios: dict[str, list[float]] = {name: [] for name, *_ in (*CLAIMS, *THREAD_CLAIMS)}
    for n_events in args.events:
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            readers, sizes = prepare(Path(folder), events[:n_events])
            times = measure(readers, n_events, max(5, args.rounds * 20 // max(20, n_events)))
            quick = measure({name: readers[name] for name in QUICK}, n_events, 20 * args.rounds)
            threaded = measure_threads(readers, n_events, max(3, args.rounds // 3))
            rows += rows_of(n_events, times, quick, sizes) + thread_rows(n_events, threaded)
        for name, other, own, _ in CLAIMS:
            of = quick if own in quick else times
            ratios[name] += [a / b for a, b in zip(of[other], of[own], strict=True)]
        for name, other, own in THREAD_CLAIMS:
            ratios[name] += [a / b for a, b in zip(threaded[other], threaded[own], strict=True)]
        with (args.out / "shard_read.csv").open(
            "w", newline=""
        ) as stream:  # after each length: it takes a while
            table = csv.DictWriter(stream, list(rows[0]), lineterminator=os.linesep)
            table.writeheader()
            table.writerows(rows)
    sys.stdout.write((args.out / "shard_read.csv").read_text())
    plot(args.out / "shard_read.png", rows)
    bars = {name: bar for name, *_, bar in CLAIMS}
    write(
        [Figure(name, ratios[name], bar=bars.get(name)) for name in ratios],
        args.out / "shard_read.figures.csv",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
