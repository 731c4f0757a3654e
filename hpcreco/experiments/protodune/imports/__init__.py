"""Frame archives and energy deposits written as parsed files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcreco.experiments.protodune import geometry, names, parsed
from hpcreco.experiments.protodune.geometry import N_CHANNELS, N_TICKS
from hpcreco.experiments.protodune.imports import depos, frames
from hpcreco.experiments.protodune.simulation.chain import Settings


@dataclass(frozen=True)
class DepoOptions:
    """How deposits become signals: moved by `shift` mm, diffused and made noisy from `seed`."""

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 1
    noise: bool = True

    @property
    def settings(self) -> Settings:
        settings = Settings()
        if self.noise:
            return settings
        return replace(settings, signals=replace(settings.signals, noise_induction=0.0, noise_collection=0.0))


def _attributes(path: Path, source: Path, generator: str, fingerprint: str) -> dict[str, Any]:
    name = names.require(path)
    detector = geometry.load()
    return {
        "event_type": name.event_type,
        "index": name.index,
        "product": name.product,
        "tpc": name.tpc,
        "geometry": detector.name,
        "geometry_digest": detector.digest,
        "generator": generator,
        "fingerprint": fingerprint,
        "source": [str(source)],
    }


def write_frames(source: Path, path: Path, tag: str | None, fingerprint: str) -> None:
    """Write the wire file of a frame archive, its bad channels in the attribute `dead_channels`."""
    events = frames.read_frames(source, tag)
    attributes = _attributes(path, source, "frames", fingerprint) | {
        "n_ticks": max(frame.n_ticks for frame in events),
        "n_channels": N_CHANNELS,
        "dead_channels": sorted({int(channel) for frame in events for channel in frame.bad_channels}),
    }
    with parsed.wire_writer(path, attributes) as writer:
        for frame in events:
            parsed.append_waveform(writer, frame.event, *frame.waveforms)


def write_depos(source: Path, paths: Sequence[Path], options: DepoOptions, fingerprint: str) -> None:
    """Write the wire and truth files of a file of deposits, one TPC."""
    detector = geometry.load()
    tpc = names.require(paths[0]).tpc
    assert tpc is not None  # the caller composed the names
    events = {
        number: depos.respond(deposits, number, detector, tpc, options.settings, options.seed)
        for number, deposits in depos.read_depos(source, options.shift).items()
    }
    for path in paths:
        attributes = _attributes(path, source, "depos", fingerprint) | {"seed": options.seed}
        product = attributes["product"]
        if product == "wire":
            sizes = {"n_ticks": N_TICKS, "n_channels": N_CHANNELS, "dead_channels": []}
            with parsed.wire_writer(path, attributes | sizes) as writer:
                for number, event in events.items():
                    parsed.append_waveform(writer, number, *event.samples)
        else:
            with parsed.truth_writer(path, attributes) as writer:
                for number, event in events.items():
                    truth = event.truth
                    values = truth.energy if product == "depo" else truth.electrons
                    parsed.append_truth(writer, number, truth.coords, values, truth.track_id, truth.pdg)
