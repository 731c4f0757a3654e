"""One xy file solved into one shard."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import EXPERIMENT, names, recipes
from hpcreco.experiments.protodune.analysis.join import opened
from hpcreco.experiments.protodune.geometry import Face, Geometry
from hpcreco.experiments.protodune.parsed import Parsed, open_parsed
from hpcreco.experiments.protodune.solved import OF_XY, SOLVED
from hpcreco.experiments.protodune.solving.cells import Choice
from hpcreco.experiments.protodune.solving.equations import ChannelSums, channel_sums
from hpcreco.experiments.protodune.solving.event import ALGORITHM_VERSION, SolveOptions, Solver
from hpcreco.experiments.protodune.solving.sources import SolveError, Sources
from hpcreco.shards import Shard, ShardWriter

LOG = logging.getLogger("hpcreco")


@dataclass(frozen=True)
class SolvedWriter:
    """Writes solved shards with one set of options.

    `options.downsample` and, unless `dead_given`, `options.dead_channels` are replaced by what the files record.
    """

    geometry: Geometry
    choice: Choice
    options: SolveOptions
    folder: Path
    dead_given: bool = False
    pool: Executor | None = None
    processes: int = 1

    def output(self, sources: Sources) -> Path:
        """Where the solution of a file goes."""
        return self.folder / Path(names.replace_product(sources.named, "solved")).with_suffix(".h5")

    def recipe(self, sources: Sources) -> dict[str, Any]:
        """All that decides the content; a finished file with another recipe is stale."""
        return {
            "xy": sources.xy.digest,
            "waveforms": sources.wire.digest if sources.wire else "",
            "yinf": sources.yinf.digest if sources.yinf else "",
            "geometry": self.geometry.digest,
            **asdict(self.choice),
            "method": self.options.method,
            "alpha": self.options.alpha,
            "dead channels": list(self.options.dead_channels) if self.dead_given else "recorded",
            "schema": SOLVED.version,
            "algorithm": ALGORITHM_VERSION,
        }

    def finished(self, sources: Sources) -> str | None:
        """None when the output is complete and current, else why not."""
        return recipes.unfinished(self.output(sources), self.recipe(sources))

    def write(self, sources: Sources) -> dict[str, Any]:
        """Solve all events of a file; numbers for the run report. Raises SolveError for files that do not fit."""
        if sources.problem or sources.wire is None:
            raise SolveError(sources.problem)
        if sources.geometry_digest != self.geometry.digest:
            raise SolveError(
                f"{sources.xy.path} was tiled with another geometry than {self.geometry.name}; give it by --geometry"
            )
        face = self.geometry.face(sources.tpc)
        with ExitStack() as stack:
            wire = stack.enter_context(open_parsed(sources.wire.path))
            yinf: Shard | None = None
            if sources.yinf is not None:
                pair = opened(sources.yinf.path, [sources.xy.path.parent])
                yinf, xy = stack.enter_context(pair)
            else:
                xy = stack.enter_context(Shard(sources.xy.path, EXPERIMENT.schema("xy")))
            options = replace(self.options, downsample=sources.downsample, dead_channels=self._dead(xy, wire))
            solver = Solver(face, options, self.pool, self.processes)
            attributes = self._attributes(sources, xy, options)
            planes = {f"wires/{field}": face.feature_names for field in ("seen", "used", "explained")}
            report = {"events": xy.n_events, "cells": 0, "charge": 0.0}
            with ShardWriter(self.output(sources), SOLVED, attributes, planes) as writer:
                for event_id, tables in self._events(solver, xy, yinf, wire):
                    writer.append(event_id, tables)
                    report["cells"] += len(tables["voxels"]["charge"])
                    report["charge"] += float(tables["voxels"]["charge"].sum(dtype=np.float64))
        return report

    def _events(
        self, solver: Solver, xy: Shard, yinf: Shard | None, wire: Parsed
    ) -> Iterator[tuple[int, dict[str, dict[str, Any]]]]:
        """Number and rows of every event."""
        position = {int(number): place for place, number in enumerate(wire.event_ids)}
        for event, number in enumerate(xy.event_ids.tolist()):
            if number not in position:
                raise SolveError(f"{xy.path}: event {number} is not in {wire.path}; run `hpcreco tile` again")
            waveform = wire.waveform(position[number])
            sums = channel_sums(*waveform, solver.options.downsample[0], wire.n_channels)
            cells = self.choice.of_event(xy, yinf, event)
            solved = solver.solve(cells, sums)
            yield (
                number,
                {
                    "voxels": {"coords": cells, "charge": solved.charge.astype(np.float32)},
                    "wires": {
                        "seen": _seen(solver.face, sums, solver.options.dead_channels),
                        "used": solved.used,
                        "explained": solved.explained,
                        "misfit": solved.misfit,
                    },
                },
            )

    def _dead(self, xy: Shard, wire: Parsed) -> tuple[int, ...]:
        """Channels to leave out: those given, else those that tiling took for dead or the waveforms list."""
        if self.dead_given:
            return self.options.dead_channels
        listed = {*xy.attributes["dead_channels"], *(wire.attributes.get("dead_channels") or ())}
        return tuple(sorted(int(channel) for channel in listed))

    def _attributes(self, sources: Sources, xy: Shard, options: SolveOptions) -> dict[str, Any]:
        assert sources.wire is not None
        attributes: dict[str, Any] = {name: xy.attributes[name] for name in OF_XY}
        epoch = names.require(sources.named).epoch
        if epoch is not None:
            attributes["epoch"] = epoch
        if sources.yinf is not None:
            attributes |= {"yinf_digest": sources.yinf.digest, "yinf_file": str(sources.yinf.path)}
        return attributes | {
            **asdict(self.choice),
            "method": options.method,
            "alpha": options.alpha if options.method == "lasso" else 0.0,
            "dead_channels": list(options.dead_channels),
            "solve_version": ALGORITHM_VERSION,
            "xy_digest": sources.xy.digest,
            "wire_digest": sources.wire.digest,
            "xy_file": str(sources.xy.path),
            "wire_file": str(sources.wire.path),
            "recipe": self.recipe(sources),
        }


def _seen(face: Face, sums: ChannelSums, dead: tuple[int, ...]) -> np.ndarray:
    """Charge (P,) of all live channels of each plane."""
    channel = sums.key % sums.n_channels
    live = ~np.isin(channel, dead)
    return np.array([sums.charge[live & np.isin(channel, plane.channels)].sum() for plane in face.planes])
