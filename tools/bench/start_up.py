#!/usr/bin/env python
"""What ranks ask of a file system from their start to the end of the first step, counted; and on paper for 512.

    python tools/bench/start_up.py --out bench

Ranks of `hpcreco train` on tiny simulated events are followed with strace where it is installed (every file opened and
looked for, libraries included), else by Python's audit hook (its own files alone); /proc/self/io gives the bytes. The
peers are training as it is (lean) and with what hpcreco.lean leaves out (plain): torch's compiler, and scans for
plugins. Rank 0 also reads the index, the config's files and a checkpoint; the others get them from it.

A second table is the index of 1,000 shards, into which all ranks look, and the CPU time that one shard takes: by
hpcreco, and by h5py when it is asked for all attributes and all shapes.

Writes start_up.csv (a row per peer, ranks, and rank 0 or one of the others; those of 512 ranks are computed from 2),
start_up.png and start_up.figures.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, timed, write

PEERS = ("plain", "lean")
RANKS = (1, 2, 4)
PAPER = 512
SHARDS = 1000
TURNS = 7  # of looking into a tenth of them
COUNTS = ("opened", "not_found", "paths", "bytes_read", "cpu_s", "wall_s", "modules")
MARK = "/hpcreco-first-step"  # looked for when the first step is over: all before it counts


def main() -> int:
    """Prepare, count, write."""
    if sys.argv[1:2] == ["--rank"]:
        return follow(*sys.argv[2:])
    if sys.argv[1:2] == ["--index"]:
        return index(Path(sys.argv[2]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results")
    parser.add_argument("--turns", type=int, default=3, help="turns of every peer (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        started(folder, 1, "lean", False)  # compiles and caches
        counts = {(peer, ranks): started(folder, ranks, peer, True) for ranks in RANKS for peer in PEERS}
        turns = [{peer: started(folder, 1, peer, False)[0] for peer in PEERS} for _ in range(args.turns)]
        seconds = {ranks: indexed(folder, ranks) for ranks in RANKS}
        each = looked_into(folder)
    rows = list(table(counts, turns))
    save(rows, seconds, each, args.out / "start_up.csv")
    plot(rows, seconds, args.out / "start_up.png")
    write(figures(counts, turns, seconds, each), args.out / "start_up.figures.csv")
    return 0


def prepare(folder: Path) -> None:
    """Tiny events, a run with a checkpoint to go on from, and many names of one shard."""
    hpcreco = [sys.executable, "-m", "hpcreco"]
    sample = ["protodune", "--preset", "tiny", "--seed", "1", "--out", str(folder / "parsed")]
    tile = ["-i", str(folder / "parsed"), "-o", str(folder / "xy"), "-t", "1"]
    train = ["ghost3d_tiny", f"--set=output_dir={folder / 'run'}", f"--set=data.data_path={folder / 'xy'}"]
    for command in (["simulate", *sample], ["tile", *tile], ["train", *train, "--set=train.n_epochs=1"]):
        subprocess.run([*hpcreco, *command], check=True, stdout=subprocess.DEVNULL)
    shard = next((folder / "xy").glob("*.h5"))
    (folder / "many").mkdir()
    for number in range(SHARDS):
        os.link(shard, folder / "many" / f"{number:05d}.h5")


# ---------------------------------------------------------------------------------------------- ranks


def started(folder: Path, ranks: int, peer: str, counted: bool) -> list[dict[str, float]]:
    """Counts of every rank up to its first step after a checkpoint."""
    traces = folder / "traces"
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir()
    run = folder / "again"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "run", run)
    train = ["ghost3d_tiny", f"--set=output_dir={run}", f"--set=data.data_path={folder / 'xy'}", "--resume"]
    child = [sys.executable, __file__, "--rank", str(traces), peer, json.dumps(train)]
    strace = shutil.which("strace") if counted else None
    if strace:
        # every rank has a trace of its own, named by a number that only its shell knows
        traced = f'exec {strace} -f -qq -e trace=%file -o {traces}/$$.strace "$@"'
        child = ["sh", "-c", traced, "rank", *child]
    subprocess.run([*launched(ranks), *child], check=False, stdout=subprocess.DEVNULL, env=environment())
    found = [json.loads(path.read_text()) for path in sorted(traces.glob("*.json"))]
    for one in found:
        if strace:
            one.update(read_trace(traces / f"{one['traced_by']}.strace"))
    assert len(found) == ranks, f"{len(found)} of {ranks} ranks took a step"
    return found


def launched(ranks: int) -> list[str]:
    """Words in front of the command that `ranks` ranks run."""
    return [] if ranks == 1 else [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)]


def environment() -> dict[str, str]:
    """One thread a rank."""
    return os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def follow(traces: str, peer: str, words: str) -> int:
    """In a rank: train until the first step is over, and leave its counts in a file."""
    began = time.perf_counter()
    counts = dict.fromkeys(COUNTS, 0.0)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        counts["opened"] += event == "open"

    sys.addaudithook(audit)
    from hpcreco import cli, collective, lean

    if peer == "plain":
        lean.without_scans = lean.without_compiler = lambda *nothing: None  # type: ignore[assignment]
    from hpcreco.train.step import Stepper

    take = Stepper.take

    def once(self: Any, *arguments: Any) -> Any:
        take(self, *arguments)
        Path(MARK).exists()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        counts.update(bytes_read=float(io["rchar"]), cpu_s=usage.ru_utime + usage.ru_stime)
        counts.update(wall_s=time.perf_counter() - began, modules=float(len(sys.modules)))
        rank = self._parallel.rank
        Path(traces, f"{rank:04d}.json").write_text(json.dumps({**counts, "traced_by": os.getppid()}))
        self._parallel.close()
        if self._parallel.size > 1:
            collective.finish()
        os._exit(0)  # not the end of the run

    Stepper.take = once  # type: ignore[method-assign]
    return cli.main(["train", *json.loads(words)])


def read_trace(path: Path) -> dict[str, float]:
    """Files opened, not found, and different paths asked for, up to the first step."""
    counts = dict.fromkeys(("opened", "not_found"), 0.0)
    paths = set()
    for line in path.read_text(errors="replace").splitlines():
        if MARK in line:
            return {**counts, "paths": float(len(paths))}
        found = re.match(r'\d+ +(\w+)\([^"]*"([^"]+)"', line)
        if found is None:  # of an open file
            continue
        paths.add(found[2])
        counts["not_found"] += " = -1 ENOENT" in line
        counts["opened"] += found[1] in ("open", "openat") and " = -1 " not in line
    raise RuntimeError(f"{path}: the rank took no step")


# ---------------------------------------------------------------------------------------------- the index


def indexed(folder: Path, ranks: int) -> list[float]:
    """Seconds in which `ranks` ranks index the shards, per round."""
    child = [sys.executable, __file__, "--index", str(folder)]
    done = subprocess.run(
        [*launched(ranks), *child], check=True, stdout=subprocess.PIPE, text=True, env=environment()
    )
    return [float(value) for value in done.stdout.split()]


def index(folder: Path) -> int:
    """In a rank: index the shards a few times; rank 0 says how long it took."""
    from hpcreco import config, experiment, parallel
    from hpcreco.train.session import open_part
    from hpcreco.world import detect

    raw = config.load("ghost3d_tiny", [f"data.data_path={folder / 'xy'}", f"output_dir={folder / 'none'}"])
    found = experiment.recognise(raw)
    run = found.load("normalise")(raw, False)
    ranks = parallel.open(None, detect())
    paths = sorted((folder / "many").glob("*.h5"))
    many = Many(found, paths)
    for _ in range(3):
        ranks.barrier()
        began = time.perf_counter()
        open_part(many, found.task_of(run), run, ranks, "train")  # type: ignore[arg-type]
        if ranks.rank == 0:
            print(time.perf_counter() - began)
    ranks.close()
    return 0


def looked_into(folder: Path) -> dict[str, list[float]]:
    """CPU seconds per shard of looking into shards one after the other, per turn and peer."""
    from hpcreco import shards

    paths = sorted((folder / "many").glob("*.h5"))
    found: dict[str, list[float]] = {"h5py": [], "hpcreco": []}
    for turn in range(TURNS + 1):
        chosen = paths[turn % 10 :: 10]
        for peer, look in (("h5py", looked_by_h5py), ("hpcreco", shards.entry)):
            taken = timed(lambda look=look, chosen=chosen: [look(path) for path in chosen])[1]
            if turn:  # the first warms up
                found[peer].append(taken / len(chosen))
    return found


def looked_by_h5py(path: Path) -> None:
    """What an index has to know, and everything else that is not events, with h5py's objects."""
    import h5py

    with h5py.File(path, locking=False) as file:
        dict(file.attrs)
        for group in file.values():
            shapes = {name: dataset.shape for name, dataset in group.items()}
            if "offsets" in shapes:
                group["offsets"][:]
        file["events/id"][:]


class Many:
    """An experiment whose training files are given."""

    def __init__(self, found: Any, paths: list[Path]) -> None:
        self._found, self._paths = found, paths

    def load(self, what: str) -> Any:
        """As the experiment's, but for the files."""
        return (lambda run, name: self._paths) if what == "files" else self._found.load(what)


# ---------------------------------------------------------------------------------------------- what comes out


Counts = dict[tuple[str, int], list[dict[str, float]]]


def table(counts: Counts, turns: list[dict[str, dict[str, float]]]) -> Iterator[dict[str, Any]]:
    """Rank 0 and another of every launch; sums over all; the same on paper for many."""
    for (peer, ranks), found in counts.items():
        for which, one in (("rank 0", found[0]), ("another rank", found[-1])):
            if which == "rank 0" or ranks > 1:
                yield {"peer": peer, "ranks": ranks, "of": which, **{name: one[name] for name in COUNTS}}
        if ranks == 2:
            both = {name: found[0][name] + (PAPER - 1) * found[1][name] for name in COUNTS[:4]}
            yield {"peer": peer, "ranks": PAPER, "of": "all, computed", **both}
    for peer in PEERS:
        median = {
            name: float(np.median([turn[peer][name] for turn in turns])) for name in ("cpu_s", "wall_s")
        }
        yield {"peer": peer, "ranks": 1, "of": "rank 0, not traced", **median}


def figures(
    counts: Counts,
    turns: list[dict[str, dict[str, float]]],
    seconds: dict[int, list[float]],
    each: dict[str, list[float]],
) -> list[Figure]:
    """What is claimed."""
    other = counts["lean", 2][1]
    plain = counts["plain", 2][1]
    ratios = [turn["plain"]["cpu_s"] / turn["lean"]["cpu_s"] for turn in turns]
    return [
        Figure(
            "start-up: files opened by a rank other than 0 until its first step", [other["opened"]], "lower"
        ),
        Figure("start-up: files looked for in vain, likewise", [other["not_found"]], "lower"),
        Figure("start-up: files opened, plain / lean", [plain["opened"] / other["opened"]]),
        Figure("start-up: bytes read, plain / lean", [plain["bytes_read"] / other["bytes_read"]]),
        Figure("start-up: CPU time until the first step, plain / lean", ratios),
        Figure(
            f"index of {SHARDS} shards: 1 rank / 2 ranks",
            [one / two for one, two in zip(seconds[1], seconds[2], strict=True)],
        ),
        Figure(
            "index, CPU time of a shard: h5py / ours",
            [other / own for other, own in zip(each["h5py"], each["hpcreco"], strict=True)],
        ),
        Figure("index, CPU time of a shard, ms", [1e3 * own for own in each["hpcreco"]], "lower"),
    ]


def save(
    rows: list[dict[str, Any]], seconds: dict[int, list[float]], each: dict[str, list[float]], path: Path
) -> None:
    """All counts, then the seconds of the index and of one shard."""
    how = "strace" if shutil.which("strace") else "Python's audit hook"
    with path.open("w", newline="") as stream:
        stream.write(f"# counted by {how}; bytes by /proc/self/io; wall_s of traced ranks is tracing's\n")
        writer = csv.DictWriter(stream, ["peer", "ranks", "of", *COUNTS], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        for ranks, taken in seconds.items():
            wall = f"{min(taken):.4g}"
            writer.writerow(
                {"peer": f"index of {SHARDS} shards", "ranks": ranks, "of": "all", "wall_s": wall}
            )
        for peer, taken in each.items():
            cpu = f"{np.median(taken):.4g}"
            writer.writerow({"peer": f"a shard's entry by {peer}", "ranks": 1, "of": "all", "cpu_s": cpu})


def plot(rows: list[dict[str, Any]], seconds: dict[int, list[float]], path: Path) -> None:
    """Counts of a rank other than 0, plain and lean; seconds of the index."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {r["peer"]: r for r in rows if (r["ranks"], r["of"]) == (2, "another rank")}
    figure, panels = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
    names = ("opened", "not_found", "paths", "bytes_read")
    titles = ("files opened", "looked for in vain", "different paths", "MB read")
    for panel, name, title in zip(panels, names, titles, strict=False):
        unit = 1e6 if name == "bytes_read" else 1
        panel.bar(PEERS, [shown[peer][name] / unit for peer in PEERS], color=("0.7", "C0"))
        panel.set_title(f"{title}, one rank", fontsize=9)
    panels[4].bar([f"{r} rank(s)" for r in seconds], [min(taken) for taken in seconds.values()], color="C0")
    panels[4].set_title(f"index of {SHARDS} shards, s", fontsize=9)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
