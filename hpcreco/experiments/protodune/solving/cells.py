"""Which cells of an event are solved for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.analysis.join import read_scores
from hpcreco.experiments.protodune.solving.sources import SolveError
from hpcreco.experiments.protodune.voxels import at_least, in_list, keys
from hpcreco.shards import Shard


@dataclass(frozen=True)
class Choice:
    """`cells`: network (probability >= threshold), truth (true cells with charge > threshold), or all candidates.

    `grow`: also the candidates up to so many slices before and behind a chosen cell, at the same (y, z).
    """

    cells: str
    threshold: float
    grow: int = 0

    def of_event(self, xy: Shard, yinf: Shard | None, event: int) -> np.ndarray:
        """The chosen cells, int32 (N, 3) in lexicographic order. True cells may be no candidates."""
        candidates = xy.read(event, "voxels", ["coords"])["coords"]
        if self.cells == "all":
            return candidates
        if self.cells == "truth":
            chosen = self._true_cells(xy, event)
        else:
            assert yinf is not None
            chosen = candidates[at_least(read_scores(yinf, event), self.threshold)]
        return grown(chosen, candidates, self.grow)

    def _true_cells(self, xy: Shard, event: int) -> np.ndarray:
        if not xy.has("truth"):
            raise SolveError(f"{xy.path} holds no truth; --cells all, or give yinf files")
        table = xy.read(event, "truth", ["coords", "values"])
        return table["coords"][table["values"][:, 0] > self.threshold]


def grown(cells: np.ndarray, candidates: np.ndarray, slices: int) -> np.ndarray:
    """`cells` and the candidates within so many slices of one of them, sorted.

    Electrons spread along the drift, and a pulse is some ticks wide: a part of a cell's charge arrives in the next
    slice, where the wires see it and no chosen cell could take it.
    """
    steps = [step for step in range(-slices, slices + 1) if step]
    around = [cells + np.array([step, 0, 0], cells.dtype) for step in steps]
    near = [place[in_list(place, candidates)] for place in around]
    every = np.concatenate([cells, *near])
    (key,) = keys(every)
    return every[np.unique(key, return_index=True)[1]]
