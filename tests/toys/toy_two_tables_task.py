"""The torch half of the toy experiment `toy_two_tables`."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import nn
from toy_two_tables import YINF

from hpcreco.data.batch import Event
from hpcreco.train.task import Context, Optimization, Outcome, Stage, Task, Term


class Net(nn.Module):
    """A trunk that both heads use; stage `first` trains trunk and points alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, width), nn.Tanh())
        self.points = nn.Linear(width, 1)
        self.links = nn.Linear(width + 1, 1)

    def forward(self, points, links):
        return self.points(self.trunk(points)), self.links(
            torch.cat([self.trunk(links[:, :2]), links[:, 2:]], 1)
        )


class Decay:
    """lr / (1 + step / 10): a schedule that is a function of the step."""

    def __init__(self, optimizer, lr):
        self.optimizer, self.lr, self.epochs = optimizer, lr, 0

    def before_step(self, step):
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr / (1 + step / 10)

    def after_epoch(self, row):
        self.epochs += 1

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


def read(run, training):
    def read_event(shard, event, rng):
        tables = {name: shard.read(event, name) for name in ("points", "links")}
        if training:  # augmentation: must be the same draw however often and wherever the event is read
            points = tables["points"]["x"]
            tables["points"]["x"] = points + rng.normal(scale=1e-3, size=points.shape).astype("f4")
        return Event(tables)

    return read_event


def step(model, batch, context: Context):
    if context.training:
        _misbehave(model, context)
    points, links = model(batch["points/x"], batch["links/x"])
    noise = torch.randn((), generator=context.generator).item() * 0.0
    terms = {
        "points": Term(
            ((points - batch["points/y"]) ** 2).sum() + noise, points.new_tensor(float(len(points)))
        ),
        "links": Term(((links - batch["links/z"]) ** 2).sum(), links.new_tensor(float(len(links))), 0.5),
    }
    return Outcome(terms, {"points": points, "links": links})


def _misbehave(model, context):
    """Faults that the failure tests ask for through the environment: RANK:STEP, in the start TOY_ATTEMPT of a job."""
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
    if os.environ.get("TOY_ATTEMPT", attempt) != attempt:
        return
    rank = os.environ.get("PMI_RANK", "0")
    if os.environ.get("TOY_HANG") == f"{rank}:{context.step}":
        time.sleep(600)  # goes on after a signal
    for name, act in (
        ("TOY_RAISE", None),
        ("TOY_STOP", signal.SIGSTOP),
        ("TOY_KILL", signal.SIGKILL),
        ("TOY_TERM", signal.SIGTERM),
    ):
        if os.environ.get(name) == f"{rank}:{context.step}":
            print("a toy fault", flush=True)
            if act is None:
                raise RuntimeError("a toy fault")
            os.kill(os.getpid(), act)


def metrics(outputs, batch):
    error = (outputs["points"] - batch["points/y"]).abs()
    return {"distance": error.sum(), "points": torch.tensor(float(len(error)))}


def optimization(run, model, stage, pace):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], run.settings.lr)
    return Optimization(optimizer, Decay(optimizer, run.settings.lr))


def stages(run):
    first = Stage("first", ("trunk.*", "points.*"), frozenset({"points"}), steps=5)
    return (first, Stage("second")) if run.settings.stages == 2 else (Stage("main"),)


TASK = Task(
    read=read,
    model=lambda run: Net(run.settings.width),
    optimization=optimization,
    step=step,
    metrics=metrics,
    columns=lambda sums: {"distance": float(sums["distance"] / sums["points"])},
    column_names=lambda run: ("distance",),
    predict=lambda model, batch, outcome: {"points": {"prediction": outcome.outputs["points"]}},
    yinf=lambda run: YINF,
    monitor=lambda run: ("valid_distance", "min"),
    stages=stages,
)
