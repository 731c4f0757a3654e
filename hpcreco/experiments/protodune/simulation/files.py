"""Simulated events as parsed files: one file per product for the events of one index and TPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import filewise, shards
from hpcreco.experiments.protodune import hits, names, parsed
from hpcreco.experiments.protodune.geometry import N_CHANNELS, N_TICKS, Geometry
from hpcreco.experiments.protodune.parsed.npz import export_npz
from hpcreco.experiments.protodune.simulation import chain, generator
from hpcreco.experiments.protodune.simulation.chain import Settings, SimulatedEvent
from hpcreco.experiments.protodune.simulation.event import Particle
from hpcreco.experiments.protodune.simulation.streams import EventKey

PRODUCTS = ("wire", "depo", "depoElectron", "mcbeamcosmic")


@dataclass(frozen=True)
class Batch:
    """The events of one file index in one TPC: a handful of files, one per product."""

    seed: int
    event_type: str
    index: int
    tpc: int
    events: int
    settings: Settings
    geometry: Geometry

    @property
    def key(self) -> str:
        return f"{self.event_type}-{self.index:03d}-TPC{self.tpc}"

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides the content."""
        content = [
            chain.VERSION, self.seed, self.key, self.events, asdict(self.settings), self.geometry.digest,
        ]  # fmt: skip
        return filewise.fingerprint(content)

    def job(self, out: Path, energy: bool = False, npz: bool = False, hit: bool = False) -> filewise.Job:
        """The file-wise job that makes the batch in the folder `out`."""
        products = [*PRODUCTS, *(["energy"] if energy else []), *(["hit"] if hit else [])]
        outputs = [
            out / names.compose(self.event_type, self.index, product, self.tpc) for product in products
        ]
        if npz:
            legacy = [path for path in outputs if names.require(path).product != "mcbeamcosmic"]
            outputs += [out / "npz" / path.with_suffix(".npz").name for path in legacy]
        return filewise.Job(self.key, (), tuple(outputs), self.fingerprint, 0)

    def simulate(self) -> list[SimulatedEvent]:
        kind = generator.KINDS.index(self.event_type)
        keys = [EventKey(self.seed, kind, self.index, event) for event in range(self.events)]
        return [chain.simulate(key, self.event_type, self.geometry, self.tpc, self.settings) for key in keys]

    def write(self, outputs: Sequence[Path]) -> dict[str, Any]:
        """Simulate and write all `outputs`; returns numbers for the run report."""
        events = self.simulate()
        for path in sorted(outputs, key=lambda path: path.suffix == ".npz"):  # npz files are made from ours
            product = names.require(path).product
            if path.suffix == ".npz":
                export_npz(path.parent.parent / path.with_suffix(".h5").name, path)
            elif product in parsed.WAVEFORM_PRODUCTS:
                self._write_waveforms(path, product, events)
            elif product == "mcbeamcosmic":
                self._write_particles(path, events)
            else:
                self._write_truth(path, product, events)
        return {"events": len(events), "samples": sum(len(event.samples.tick) for event in events)}

    def attributes(self, product: str) -> dict[str, Any]:
        return {
            "event_type": self.event_type,
            "index": self.index,
            "product": product,
            "tpc": self.tpc,
            "geometry": self.geometry.name,
            "geometry_digest": self.geometry.digest,
            "generator": "simulation",
            "seed": self.seed,
            "settings": asdict(self.settings),
            "fingerprint": self.fingerprint,
        }

    def _write_waveforms(self, path: Path, product: str, events: Sequence[SimulatedEvent]) -> None:
        dead = chain.dead_channels(self.seed, self.geometry, self.tpc, self.settings)
        attributes = self.attributes(product) | {
            "n_ticks": N_TICKS,
            "n_channels": N_CHANNELS,
            "dead_channels": dead.tolist(),
        }
        with parsed.wire_writer(path, attributes) as writer:
            for number, event in enumerate(events):
                samples: tuple[np.ndarray, np.ndarray, np.ndarray] = event.samples
                if product == "hit":
                    samples = hits.waveforms(hits.find(*event.samples, N_TICKS), N_TICKS)
                parsed.append_waveform(writer, number, *samples)

    def _write_truth(self, path: Path, product: str, events: Sequence[SimulatedEvent]) -> None:
        with parsed.truth_writer(path, self.attributes(product)) as writer:
            for number, event in enumerate(events):
                truth = event.truth
                # the legacy energy product is the sum over the three planes
                values = {
                    "depo": truth.energy,
                    "depoElectron": truth.electrons,
                    "energy": 3.0 * truth.energy,
                }[product]
                parsed.append_truth(writer, number, truth.coords, values, truth.track_id, truth.pdg)

    def _write_particles(self, path: Path, events: Sequence[SimulatedEvent]) -> None:
        with shards.ShardWriter(path, parsed.PARTICLES, self.attributes("mcbeamcosmic")) as writer:
            for number, event in enumerate(events):
                writer.append(number, {"particles": particle_table(event.particles)})


def particle_table(particles: Sequence[Particle]) -> dict[str, np.ndarray]:
    """Columns of the particles table of one event."""
    fields = ("track_id", "pdg", "beam", "kinetic_energy", "start", "time")
    dtypes = (np.int32, np.int32, np.uint8, np.float32, np.float32, np.float32)
    columns = {
        field: np.array([getattr(particle, field) for particle in particles], dtype)
        for field, dtype in zip(fields, dtypes, strict=True)
    }
    return columns | {"start": columns["start"].reshape(-1, 3)}
