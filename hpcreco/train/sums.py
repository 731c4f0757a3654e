"""Sums that add over batches, steps and ranks: loss terms, metrics, and what a row of the summary is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpcreco.parallel import Parallel
from hpcreco.train.task import Outcome


class Sums:
    """Float64 sums by name, on the CPU.

    ``term/<name>/sum`` and ``term/<name>/weight`` belong to loss terms, ``metric/<name>`` to metrics, the rest
    counts events, cost and steps. Coefficients of terms ride along; they are not added.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.coefficients: dict[str, float] = {}

    def add(self, named: Mapping[str, Tensor | float | int]) -> None:
        """Add `named` to the sums; a new name starts from zero."""
        for name, value in named.items():
            tensor = torch.as_tensor(value).detach().to("cpu", torch.float64)
            self.values[name] = self.values[name] + tensor if name in self.values else tensor.clone()

    def add_outcome(self, outcome: Outcome, metrics: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's loss terms and metrics."""
        for name, term in outcome.terms.items():
            self.add({f"term/{name}/sum": term.sum, f"term/{name}/weight": term.weight})
            self.coefficients[name] = float(term.coefficient)
        self.add({f"metric/{name}": value for name, value in metrics.items()})

    def merge(self, other: Sums) -> None:
        """Add all sums of `other`."""
        self.add(other.values)
        self.coefficients.update(other.coefficients)

    def loss(self) -> float:
        """Sum over terms of coefficient * sum / weight; a term of weight 0 counts 0; -1 without any term (no truth)."""
        if not self.coefficients:
            return -1.0
        total = 0.0
        for name, coefficient in self.coefficients.items():
            weight = float(self.values[f"term/{name}/weight"])
            if weight:
                total += coefficient * float(self.values[f"term/{name}/sum"]) / weight
        return total

    def metrics(self) -> dict[str, Tensor]:
        """The summed metrics under the names the task gave them."""
        return {
            name.removeprefix("metric/"): v for name, v in self.values.items() if name.startswith("metric/")
        }

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"values": dict(self.values), "coefficients": dict(self.coefficients)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Sums:
        """The inverse of `state`."""
        sums = cls()
        sums.values = dict(state["values"])
        sums.coefficients = dict(state["coefficients"])
        return sums

    def total(self, parallel: Parallel) -> Sums:
        """The sums over all ranks, added in rank order; ranks may hold different names."""
        parts = parallel.gather_object(self.state())
        merged = Sums()
        for part in parts or []:
            merged.merge(Sums.from_state(part))
        return Sums.from_state(parallel.broadcast_object(merged.state()))

    def plain(self) -> dict[str, Any]:
        """Numbers and lists, for a JSON attribute."""
        return {
            "values": {name: value.tolist() for name, value in self.values.items()},
            "coefficients": dict(self.coefficients),
        }


def reduce_together(sums: Sums, flags: Tensor, parallel: Parallel) -> Tensor:
    """Sum `sums` and int64 `flags` over ranks in one small vector; `sums` is replaced in place, flags are returned.

    Every rank must hold the same names and shapes: the training step sees to that.
    """
    names = sorted(sums.values)
    parts = [sums.values[name].reshape(-1) for name in names]
    vector = parallel.sum(torch.cat([flags.to(torch.float64), *parts]).to(parallel.device)).cpu()
    at = len(flags)
    for name, part in zip(names, parts, strict=True):
        sums.values[name] = vector[at : at + part.numel()].reshape(sums.values[name].shape)
        at += part.numel()
    return vector[: len(flags)].to(torch.int64)
