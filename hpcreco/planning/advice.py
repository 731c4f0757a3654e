"""Which number of ranks to ask for, for how long, and what to watch out for."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcreco.planning.plan import Plan, Row
from hpcreco.planning.prediction import STEPS, Prediction, useful
from hpcreco.planning.sites import Site

#: share by which the time asked for exceeds the prediction
MARGIN = 0.25
#: share of a node's memory that ranks may fill
FILLED = 0.9
#: share of a step beyond which one reading thread is said to be too few
BUSY = 0.9


@dataclass(frozen=True)
class Nodes:
    """Ranks per node at a site, and what a node has."""

    site: Site
    per_node: int

    def count(self, ranks: int) -> int:
        """Nodes that `ranks` ranks need."""
        return -(-ranks // self.per_node)

    def memory(self, on_gpu: bool) -> float | None:
        """Bytes that a rank may use; None where the site does not say."""
        if on_gpu:
            return self.site.gpu_memory
        return None if self.site.memory is None else FILLED * self.site.memory / self.per_node


def choose(rows: Sequence[Prediction], least: float, memory: float | None) -> Prediction | None:
    """The most ranks with an efficiency of `least` or more that fit into `memory` bytes each; None when none does."""
    fitting = [row for row in rows if memory is None or row.memory <= memory]
    good = [row for row in fitting if row.efficiency >= least]
    return max(good, key=lambda row: row.ranks, default=None)


def minutes(row: Prediction, site: Site) -> int:
    """Minutes to ask for: the run with a margin and the warning before the end, rounded up to 5."""
    seconds = (row.run if row.run is not None else row.epoch) * (1 + MARGIN) + site.lead
    return max(5, 5 * math.ceil(seconds / 300))


def submit_line(config: str, sets: Sequence[str], row: Prediction, nodes: Nodes) -> str:
    """The command that sends the job."""
    site = nodes.site
    words = ["hpcreco", "submit", "train", config, "-N", str(nodes.count(row.ranks))]
    words += ["-t", str(minutes(row, site)), *(["--site", site.name] if site.name != "local" else [])]
    per_node = min(row.ranks, nodes.per_node)
    if per_node != site.ranks:
        words += ["--sbatch", f"--ntasks-per-node={per_node}"]
    passed = [word for text in sets for word in ("--set", text)]
    return shlex.join(words + (["--", *passed] if passed else []))


def warnings(plan: Plan, rows: Sequence[Row], nodes: Nodes) -> Iterator[str]:
    """What a user would want to know before the job is sent, a sentence each."""
    planner = plan.first.work.planner
    totals = [row.total for row in rows]
    last, most = totals[-1], useful(planner)
    yield from _ends(plan, last.ranks)
    if planner.mode == "files":
        one, many = planner.steps_in(0, 1), planner.steps_in(0, last.ranks)
        yield (
            f"each rank takes {planner.size:.0f} file(s) a step, so steps grow with the ranks: {one} an epoch on 1, "
            f"{many} on {last.ranks}. The network is then updated less often, and may need more epochs or a higher "
            "learning rate (train.lr_scaling). Steps of so many events, or of so much cost, do not depend on the ranks"
        )
    else:
        yield (
            f"a step holds the same events on any number of ranks: {planner.steps_in(0, 1)} steps an epoch, shared out "
            "by cost; what is learned does not depend on the ranks"
        )
    if last.ranks > most:
        few = (
            "files in an epoch"
            if planner.mode == "files"
            else "events in a step; larger steps keep more of them busy"
        )
        yield f"more than {most} ranks would be idle: there are {most} {few}"
    memory = nodes.memory(plan.first.measured.device != "cpu")
    largest = max(totals, key=lambda row: row.memory)
    if memory is not None and largest.memory > memory:
        yield (
            f"{largest.ranks} rank(s) need {_gb(largest.memory)} each, the site has {_gb(memory)} for a rank: lower "
            f"micro_cost (now the largest micro-batch costs {largest.largest:.3g}), or start fewer ranks a node"
        )
    if max(row.reading for row in totals) > BUSY:
        yield "reading takes longer than computing: more loading.workers, or files without a filter on node-local disks"


def _ends(plan: Plan, ranks: int) -> Iterator[str]:
    """What is not known about the ends of stages."""
    for predictor in plan.stages if len(plan.stages) > 1 else ():
        stage, span = predictor.work.stages[predictor.work.number], predictor.span(ranks)
        if span.steps == 0:
            yield f"the run ends before stage {stage.name} begins"
        elif not span.ends:
            yield f"a metric ends stage {stage.name}: one epoch of it is counted, whatever it will take"
        elif stage.until is not None:
            yield f"a metric may end stage {stage.name} sooner"


def assumptions(plan: Plan, rows: Sequence[Row], nodes: Nodes) -> Iterator[str]:
    """What the prediction takes for granted, a sentence each."""
    measured, network = plan.first.measured, plan.first.measured.network
    yield (
        f"the target computes as {measured.machine} does ({measured.device}, {measured.threads} thread(s)); ranks "
        "of a node do not slow each other down more than when this was measured. A measurement made there (-o FILE, "
        "then --measured FILE here) or a run that has begun is better"
    )
    hidden = (
        "gradients travel while backward computes"
        if plan.first.overlap
        else "backward hides no communication"
    )
    algorithm = "a ring" if network.algorithm == "ring" else "recursive halving and doubling"
    yield (
        f"network {network.source}: {network.overhead * 1e3:.2g} ms an operation, {network.latency * 1e6:.2g} us a "
        f"message, {network.bandwidth / 1e9:.3g} GB/s a rank; all-reduce by {algorithm} (Thakur, Rabenseifner and "
        f"Gropp 2005); {hidden}"
    )
    yield f"time and memory grow linearly with cost; {_basis(rows)}"
    yield f"up to {STEPS} steps of the first epoch of a stage stand for all of the stage"
    yield "readers keep up when many read at once; a checkpoint holds training up while its state is copied"
    if measured.device != "cpu" and nodes.site.memory is not None:
        yield "the memory shown is the GPU's"


def _basis(rows: Sequence[Row]) -> str:
    """What is known about the largest micro-batch."""
    farthest = max((stage for row in rows for stage in row.stages), key=lambda stage: stage.beyond)
    where = f"on {farthest.ranks} rank(s)" + (
        f" in stage {farthest.stage}" if len(rows[0].stages) > 1 else ""
    )
    measured = farthest.largest / farthest.beyond
    if farthest.extrapolated:
        return (
            f"the largest micro-batch, {where}, costs {farthest.largest:,.0f} and was not measured: its memory and "
            f"time are extrapolated {farthest.beyond:.1f}-fold from a cost of {measured:,.0f} (* in the table; more "
            "--seconds measure farther)"
        )
    return f"measured up to a cost of {measured:,.0f}; the largest micro-batch, {where}, costs {farthest.largest:,.0f}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2g} GB"
