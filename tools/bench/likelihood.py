#!/usr/bin/env python
"""Seconds for the likelihood of an event with its gradient, and what many cascades cost in time and memory.

    python tools/bench/likelihood.py --out bench

Writes likelihood.csv, likelihood.png and the ratios of the ways. The first rows compare three ways to the same numbers,
the simulation's own likelihood of simulated events: a batch at once, one event after the other, and scipy.stats with a
gradient by central differences. The others are a hypothesis of N cascades of a network: all at all DOMs, and the 16
nearest of each DOM; each in a process of its own, whose peak memory they give. `cpu` is the CPU time of the process: on
a machine that others use it is the number to trust. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import figures
import numpy as np
import torch
from figures import Figure, timed

from hpcreco.experiments.icecube import hypothesis, light
from hpcreco.experiments.icecube.arrays import named
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.likelihood import Likelihood
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.settings import LossTerm
from hpcreco.experiments.icecube.sources import inspect, streaming
from hpcreco.experiments.icecube.sources.contract import Observation
from hpcreco.experiments.icecube.sources.truth import model_settings
from hpcreco.experiments.icecube.trafo import Transformation

WINDOW = (8000.0, 14000.0)
TERMS = [LossTerm(function=name) for name in ("unbinned_pulse_time_llh", "negative_binomial_charge_pdf")]
COLUMNS = ("what", "detector", "events", "cascades", "seconds", "cpu", "cpu_per_event", "peak_mb", "loss")


def main() -> int:
    """Time, write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the table and the plot")
    parser.add_argument("--detector", default="hex7x60", help="hex86 is the real size (default %(default)s)")
    parser.add_argument("--events", type=int, default=32, help="in the batch (default %(default)s)")
    parser.add_argument("--cascades", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument(
        "--chunk-mb", type=int, default=32, help="activations held at once (default %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds of the three ways")
    parser.add_argument(
        "--many", help=argparse.SUPPRESS
    )  # "<N> <nearest>": one measurement, in a process of its own
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.many:
        print(json.dumps(many(args, *map(int, args.many.split()))))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    rows = batches(args)
    for count in args.cascades:
        for nearest in (0, 16) if count > 16 else (0,):
            rows.append(measured_apart(args, count, nearest))
            print(
                f"{count} cascades, nearest {nearest or 'all'}: {rows[-1]['cpu']} s, {rows[-1]['peak_mb']} MB"
            )
    write(rows, args.out / "likelihood.csv")
    plot(rows, args.out / "likelihood.png")
    return 0


# ------------------------------------------------------------------------------------------- three ways


def batches(args: argparse.Namespace) -> list[dict[str, object]]:
    """The truth's likelihood and gradient of the same events in three ways."""
    detector = named(args.detector)
    likelihood = Likelihood(hypothesis.build(model_settings(), detector), TERMS)
    rng = np.random.default_rng(1)
    parameters = torch.tensor(cascades(rng, args.events, detector))
    data = inspect.sample(likelihood.source, parameters, readout(args.events, detector, torch.float64), rng)
    single = [take(data, torch.tensor([event])) for event in range(args.events)]

    def gradient(values: torch.Tensor, of: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.clone().requires_grad_(True)
        loss = likelihood(values, of)
        return loss.detach(), torch.autograd.grad(loss.sum(), values)[0]

    def one_by_one() -> tuple[torch.Tensor, torch.Tensor]:
        found = [gradient(parameters[k : k + 1], of) for k, of in enumerate(single)]
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

    ways: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
        "batch": lambda: gradient(parameters, data),
        "event by event": one_by_one,
        "scipy.stats, differences": lambda: by_scipy(parameters.numpy(), single, detector),
    }
    for way in ways.values():
        way()  # warm up
    results = {name: way() for name, way in ways.items()}
    for name, (loss, slope) in results.items():
        torch.testing.assert_close(
            loss, results["batch"][0], rtol=1e-10, atol=1e-8, msg=f"{name}: another loss"
        )
        torch.testing.assert_close(
            slope, results["batch"][1], rtol=1e-3, atol=1e-2, msg=f"{name}: another gradient"
        )
    costs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            costs.setdefault(name, []).append(timed(way))
    compare(args.out, costs)
    rows = []
    for name, values in costs.items():
        seconds, cpu = np.median(values, axis=0)
        rows.append(
            {
                "what": name,
                "detector": args.detector,
                "events": args.events,
                "cascades": 1,
                "seconds": round(seconds, 4),
                "cpu": round(cpu, 4),
                "cpu_per_event": round(cpu / args.events, 5),
                "peak_mb": "",
                "loss": f"{float(results[name][0].sum()):.6f}",
            }
        )
        print(f"{name}: {1000 * cpu / args.events:.2f} ms of CPU per event ({len(data.time)} pulses in all)")
    return rows


def compare(out: Path, costs: dict[str, list[tuple[float, float]]]) -> None:
    """The CPU time of the other ways over that of the batch, round by round."""
    cpu = {name: np.array(values)[:, 1] for name, values in costs.items()}
    found = [
        Figure(f"likelihood of an event with gradient, CPU time: {name} / batch", cpu[name] / cpu["batch"])
        for name in cpu
        if name != "batch"
    ]
    figures.write(found, out / "likelihood.figures.csv")


def by_scipy(
    parameters: np.ndarray, events: list[Observation], detector: Detector
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss (n,) and gradient (n, 7) of the truth with noise, written with scipy.stats, event by event."""
    steps = np.array([1e-3, 1e-3, 1e-3, 1e-5, 1e-5, 1e-1, 1e-3])
    losses, slopes = [], []
    for row, data in zip(parameters, events, strict=True):
        losses.append(scipy_loss(row, data, detector))
        shifts = np.diag(steps)
        pairs = [scipy_loss(row + s, data, detector) - scipy_loss(row - s, data, detector) for s in shifts]
        slopes.append(np.array(pairs) / (2 * steps))
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(np.array(slopes))


def scipy_loss(row: np.ndarray, data: Observation, detector: Detector) -> float:
    """-ln L of one event without gaps."""
    from scipy import stats

    ice, start, stop = light.Ice(), *data.window[0].numpy()
    cascade = light.expected_charge(row[None], detector.flat_positions, detector.flat_efficiency, ice)[0]
    noise = detector.flat_noise_rate * (stop - start) + 1e-15
    usable, dom, time = data.usable[0].numpy(), data.dom.numpy(), data.time.numpy()
    charges = stats.poisson.logpmf(data.dom_charge[0].numpy(), cascade + noise)[usable].sum()
    r = light.distance(row[None], detector.flat_positions[dom], ice)[0]
    delay = time - row[6] - r / light.SPEED_IN_ICE
    times = stats.gamma.pdf(delay, light.shape(r, ice), scale=1 / ice.rate)
    mixed = (cascade[dom] * times + noise[dom] / (stop - start)) / (cascade + noise)[dom]
    return -float(charges + (data.charge.numpy() * np.log(mixed)).sum())


# ------------------------------------------------------------------------------------------- many cascades


def measured_apart(args: argparse.Namespace, count: int, nearest: int) -> dict[str, object]:
    """One row of the table, from another process."""
    command = [sys.executable, __file__, "--many", f"{count} {nearest}", "--detector", args.detector]
    run = subprocess.run(
        [*command, "--chunk-mb", str(args.chunk_mb)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    found: dict[str, object] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


def many(args: argparse.Namespace, count: int, nearest: int) -> dict[str, object]:
    """Time and memory of one event's likelihood and gradient under a hypothesis of `count` cascades."""
    detector = named(args.detector)
    torch.manual_seed(0)
    config = {"num_cascades": count, "nearest_cascades": nearest or None}
    cascade = {
        "model_class": "DefaultCascadeModel",
        "config": {"use_residual_list": [True] * 5 + [False]},
    }
    row = {
        "model_class": "StartingVariableMultiCascadeModel",
        "config": config,
        "multi_source_bases": {"cascade": cascade},
    }
    settings = {
        "model_class": "IndependentMultiSource",
        "config": {"sources": {"noise": "noise", "cascade": "cascade"}},
        "multi_source_bases": {"noise": {"model_class": "DefaultNoiseModel"}, "cascade": row},
    }
    names = [f"cascade_{name}" for name in ("x", "y", "z", "zenith", "azimuth", "energy", "time")]
    trafo = Transformation(
        tuple(names),
        np.array([0, 0, 0, 1.5, 3, 8, 1e4]),
        np.array([200, 200, 200, 0.7, 1.8, 2, 300]),
        np.arange(7) == 5,
    )
    likelihood = Likelihood(hypothesis.build(settings, detector, trafo), TERMS).requires_grad_(False)
    rng = np.random.default_rng(1)
    first = cascades(rng, 1, detector)
    further = np.stack([np.full(count - 1, 1e4), 1000.0 * np.arange(1, count) / count], axis=1).reshape(1, -1)
    parameters = torch.tensor(np.concatenate([first, further], axis=1), dtype=torch.float32).requires_grad_(
        True
    )
    truth = hypothesis.build(model_settings(), detector)
    data = inspect.sample(truth, torch.tensor(first), readout(1, detector, torch.float64), rng)
    data = data.to(dtype=torch.float32)
    losses = []

    def once() -> None:
        with streaming.chunk_bytes(args.chunk_mb * 2**20):
            loss = likelihood(parameters, data).sum()
            torch.autograd.grad(loss, parameters)
        losses.append(float(loss.detach()))

    once()
    seconds, cpu = timed(once)
    return {
        "what": f"{nearest} nearest" if nearest else "all cascades",
        "detector": args.detector,
        "events": 1,
        "cascades": count,
        "seconds": round(seconds, 4),
        "cpu": round(cpu, 4),
        "cpu_per_event": round(cpu, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "loss": f"{losses[-1]:.6f}",
    }


# ------------------------------------------------------------------------------------------- both


def cascades(rng: np.random.Generator, n: int, detector: Detector) -> np.ndarray:
    """(n, 7) cascades of 1 to 10 TeV inside the detector."""
    columns = [
        *rng.uniform(-0.6, 0.6, (2, n)) * detector.radius,
        rng.uniform(-0.6, 0.6, n) * detector.half_height,
        np.arccos(rng.uniform(-0.95, 0.95, n)),
        rng.uniform(0.1, 6.2, n),
        10 ** rng.uniform(3, 4, n),
        np.full(n, 10000.0),
    ]
    return np.stack(columns, axis=1)


def readout(n: int, detector: Detector, dtype: torch.dtype) -> Observation:
    """n events without pulses and without gaps; dead DOMs are excluded."""
    none, nowhere = torch.zeros(0, dtype=dtype), torch.zeros(0, dtype=torch.int64)
    usable = ~torch.tensor(detector.flat_dead).expand(n, -1)
    window = torch.tensor([WINDOW] * n, dtype=dtype)
    return Observation(none, none, nowhere, nowhere, window, none, none, nowhere, nowhere, usable)


def write(rows: list[dict[str, object]], path: Path) -> None:
    """The table."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    print(path)


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """CPU time of the three ways; time and memory against the number of cascades."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    ways = [row for row in rows if row["peak_mb"] == ""]
    left.barh([str(row["what"]) for row in ways], [1000 * float(str(row["cpu_per_event"])) for row in ways])
    left.set(xscale="log", xlabel="CPU ms per event, likelihood and gradient")
    for what in ("all cascades", "16 nearest"):
        found = [row for row in rows if row["what"] == what]
        count = [row["cascades"] for row in found]
        middle.plot(count, [row["cpu"] for row in found], "o-", label=what)
        right.plot(count, [row["peak_mb"] for row in found], "o-", label=what)
    middle.set(xscale="log", yscale="log", xlabel="cascades", ylabel="CPU s, likelihood and gradient")
    right.set(xscale="log", xlabel="cascades", ylabel="peak memory of the process, MB", ylim=(0, None))
    middle.legend()
    figure.savefig(path, dpi=100)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
