"""Say how many nodes, how much time and memory a training takes, before its job is sent.

Takes a few real steps of the config's network on its data, here, for about --seconds; shares the steps of an epoch
out over more and more ranks as training would, and adds what the network costs. Where training has several stages, each
is measured and predicted with what it trains, within the same time; the table then has a line for the whole run (all)
and one for each stage. The efficiency is the throughput of R ranks over R times that of one. The table says what the
rest is lost to: balance (the slowest rank is waited for), fixed (work that does not shrink with a rank's share),
network (gradients on their way), upkeep (validation, checkpoints). Memory with a * is that of a larger micro-batch than
was measured.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.config_arguments import add_config_arguments, load_run

if TYPE_CHECKING:
    from hpcreco.config import Run
    from hpcreco.experiment import Experiment
    from hpcreco.planning.measurement import Measurement
    from hpcreco.planning.network import Network
    from hpcreco.train.session import Session

EPILOG = """\
examples:
  hpcreco plan ghost3d_cpu
  hpcreco plan ghost3d.yaml --site perlmutter --efficiency 0.7
  hpcreco plan ghost3d.yaml -N 1 2 5 10 --site perlmutter-cpu --csv plan.csv --plot plan.png
  mpiexec -n 2 hpcreco plan ghost3d_tiny               # measures the network between these ranks as well

  mpiexec -n 2 hpcreco plan ghost3d_tiny --set parallel.compression=fp16 --bandwidth 0.1   # is it worth it here?

The machine that counts is the one that will train. Measure there, once, in a short job; plan anywhere:
  srun -N 2 hpcreco plan ghost3d.yaml --measure -o measured.json
  hpcreco plan ghost3d.yaml --measured measured.json --site perlmutter

When the config's output_dir holds a run, its own rate is the best evidence: the prediction is scaled to it.
"""


class PlanError(ValueError):
    """There is nothing to plan."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add_config_arguments(parser)
    add = parser.add_argument
    add(
        "--ranks",
        type=int,
        nargs="+",
        metavar="R",
        help="numbers of ranks (default: 1, 2, 4 ... 512, while all have work)",
    )
    add("-N", "--nodes", type=int, nargs="+", metavar="N", help="numbers of nodes, instead of --ranks")
    add("--ranks-per-node", type=int, metavar="R", help="ranks a node (default: the site's)")
    add("--site", default="local", help="a file of jobs/sites/ (default: %(default)s)")
    add(
        "--efficiency",
        type=float,
        default=0.8,
        metavar="E",
        help="recommend the most ranks with at least this (default: %(default)s)",
    )
    add("--measure", action="store_true", help="measure and stop")
    add("-o", "--output", type=Path, metavar="FILE", help="write the measurement there")
    add("--measured", type=Path, metavar="FILE", help="use this measurement instead of making one")
    add("--seconds", type=float, default=15.0, help="how long to measure, about (default: %(default)s)")
    add("--no-history", action="store_true", help="do not scale to the rate of the run in output_dir")
    add(
        "--latency",
        type=float,
        metavar="US",
        help="microseconds a message (default: measured under mpiexec, else 10)",
    )
    add(
        "--bandwidth",
        type=float,
        metavar="GB/S",
        help="gigabytes per second and rank (default: likewise, else 2)",
    )
    add("--csv", type=Path, metavar="FILE", help="all numbers, with the assumptions as comments")
    add("--plot", type=Path, metavar="FILE", help="efficiency against ranks, as PNG, PDF or SVG")


def run(args: argparse.Namespace) -> int:
    """Measure or read a measurement, predict, print; rank 0 alone speaks."""
    from hpcreco import parallel
    from hpcreco.world import detect

    settings, found = load_run(args)
    _check(args, settings)
    device = None if settings.device == "auto" else settings.device
    ranks = parallel.open(settings.backend, detect(), device=device)
    try:
        if settings.threads is not None:
            import torch

            torch.set_num_threads(settings.threads)
        session = _session(settings, found, ranks)
        measured = _measured(args, session)
        if ranks.rank == 0:
            if args.output is not None:
                from hpcreco.planning import measurement

                measurement.write(measured, args.output)
            _report(args, session, measured)
    finally:
        ranks.close()
    return 0


def _check(args: argparse.Namespace, settings: Run) -> None:
    if not settings.trains:
        raise PlanError(f"{args.config} names no training data; hpcreco plan is for trainings")
    if args.measure and args.measured:
        raise PlanError("--measure makes a measurement, --measured reads one: give one of them")
    if args.measure and not args.output:
        raise PlanError("--measure: say with -o FILE where the measurement goes")
    if args.plot and args.plot.suffix not in (".png", ".pdf", ".svg"):
        raise PlanError(f"--plot {args.plot}: name a .png, .pdf or .svg file")
    if args.ranks and args.nodes:
        raise PlanError("--ranks and --nodes say the same: give one of them")
    for name in ("ranks", "nodes"):
        if min(getattr(args, name) or [1]) < 1:
            raise PlanError(f"--{name}: at least 1")
    if args.ranks_per_node is not None and args.ranks_per_node < 1:
        raise PlanError("--ranks-per-node: at least 1")


def _session(settings: Run, found: Experiment, ranks: object) -> Session:
    """The session that training would have, but that its steps need no other rank."""
    from hpcreco.train.session import Session, open_part

    alone = settings.parallel.model_copy(update={"sync_batch_norm": False})
    in_place = settings.loading.model_copy(update={"stage": None})
    settings = settings.model_copy(update={"parallel": alone, "loading": in_place})
    task = found.task_of(settings)
    parts = [open_part(found, task, settings, ranks, name) for name in ("train", "validation")]  # type: ignore[arg-type]
    if parts[0] is None or parts[0].index.n_events == 0:
        raise PlanError(
            f"the config's training data hold no event; `hpcreco simulate {found.name} --help` makes some to plan with"
        )
    return Session(settings, found, task, ranks, *parts)  # type: ignore[arg-type]


def _measured(args: argparse.Namespace, session: Session) -> tuple[Measurement, ...]:
    """Of each stage, read or made here; with the network that the flags describe."""
    from dataclasses import replace

    from hpcreco.planning import measurement, measuring
    from hpcreco.train import start
    from hpcreco.train.session import on_root
    from hpcreco.train.state import Progress

    if args.measured is not None:
        stages = measurement.read(args.measured, [stage.name for stage in session.stages])
    else:
        prepare, part = session.task.prepare, session.training
        assert part is not None
        if prepare is not None:
            on_root(session.parallel, lambda: prepare(session.run, part.index))
        state = start.new_state(session, session.new_model(), Progress())
        say = (lambda text: print(text, file=sys.stderr, flush=True)) if session.root else (lambda text: None)
        say(f"measuring for about {args.seconds:.0f} s ...")
        stages = measuring.measure(session, state, args.config, args.seconds, say)
    return tuple(replace(stage, network=_network(args, stage.network)) for stage in stages)


def _network(args: argparse.Namespace, found: Network) -> Network:
    from dataclasses import replace

    given = {}
    if args.latency is not None:
        given["latency"] = args.latency * 1e-6
    if args.bandwidth is not None:
        given["bandwidth"] = args.bandwidth * 1e9
    return replace(found, source="as given", **given) if given else found


def _report(args: argparse.Namespace, session: Session, measured: Sequence[Measurement]) -> None:
    from hpcreco.planning import advice, history, prediction, sites, tables
    from hpcreco.planning.plan import plan
    from hpcreco.slurm.checks import environment_jobs
    from hpcreco.slurm.scripts import shipped_jobs

    if args.measure:
        print(tables.listed(tables.measured(measured)))
        print(f"{args.output}: hpcreco plan {args.config} --measured {args.output}")
        return
    assert session.training is not None
    if measured[0].config != args.config:
        print(f"{args.measured} was made with {measured[0].config}: is it the same network?", file=sys.stderr)
    made = plan(session, measured)
    evidence = None if args.no_history else history.evidence(session.output_dir, made)
    if evidence is not None:
        made = made.scaled(evidence.factor)
    site = sites.read(args.site, environment_jobs() or shipped_jobs())
    nodes = advice.Nodes(site, args.ranks_per_node or site.ranks)
    rows = [made.predict(ranks) for ranks in _ranks(args, nodes, prediction.useful(session.planner(0)))]
    totals = [row.total for row in rows]
    said = tables.introduction(made, session.training.index.n_shards) | tables.measured(measured)
    if evidence is not None:
        said["history"] = str(evidence)
    print(tables.listed(said))
    print(f"\n{tables.table(rows, nodes)}\n")
    memory = nodes.memory(measured[0].device != "cpu")
    chosen = advice.choose(totals, args.efficiency, memory)
    if chosen is None:
        print(f"none of these reaches an efficiency of {args.efficiency:g} within the memory")
    else:
        print(
            f"recommended: {nodes.count(chosen.ranks)} node(s), {chosen.ranks} rank(s), efficiency "
            f"{chosen.efficiency:.2f}\n  {advice.submit_line(args.config, args.set, chosen, nodes)}"
        )
    notes = list(advice.assumptions(made, rows, nodes))
    for heading, sentences in (("note", advice.warnings(made, rows, nodes)), ("assumed", notes)):
        for sentence in sentences:
            print(textwrap.fill(sentence, 110, initial_indent=f"{heading:10s} ", subsequent_indent=11 * " "))
    if args.csv is not None:
        tables.write_csv(rows, nodes, notes, args.csv)
    if args.plot is not None:
        tables.plot(totals, f"{args.config} on {site.name}: predicted", args.efficiency, args.plot)


def _ranks(args: argparse.Namespace, nodes: object, most: int) -> list[int]:
    from hpcreco.planning.prediction import doubling

    if args.nodes:
        return sorted({count * nodes.per_node for count in args.nodes})  # type: ignore[attr-defined]
    if args.ranks:
        return sorted(set(args.ranks))
    return list(doubling(min(512, 2 * most)))
