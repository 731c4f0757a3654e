"""The plug-in point for files that hpcreco does not know: ``hpcreco convert protodune --reader module:function``.

A reader is a function of yours that yields the events of one file as one TPC sees them::

    from hpcreco.experiments.protodune.parsed import TruthVoxels, Waveforms
    from hpcreco.experiments.protodune.readers import ReadEvent

    def read(path, tpc):
        for number, event in enumerate(my_library.open(path)):
            yield ReadEvent(number, {
                "wire": Waveforms(event.tick, event.channel, event.charge),
                "depoElectron": TruthVoxels(event.voxels, event.electrons[:, None], ("electrons",), None, None),
            })

    read.products = ("wire", "depoElectron")     # what it yields (the default); every event yields all of them
    read.attributes = {"n_ticks": 6000}          # optional: n_ticks, n_channels, dead_channels of the wire file

Waveforms are the samples that are not 0, in any order, by tick and by channel of the APA, in electrons; truth is in
fine voxels of the TPC's readout frame (`Geometry.to_local` takes detector mm there; ProtoDUNE's voxel is one tick by
2 mm by 2 mm). Particles (``mcbeamcosmic``) are columns ``track_id`` and ``beam``, and what else the table knows. Events
are written as they come, so that a file need not fit into memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcreco import experiment, shards
from hpcreco.experiments.protodune import names, parsed
from hpcreco.experiments.protodune.geometry import N_CHANNELS, N_TICKS, Geometry

DEFAULT_PRODUCTS = ("wire", "depoElectron")
PARTICLES = "mcbeamcosmic"
SIZES: dict[str, Any] = {"n_ticks": N_TICKS, "n_channels": N_CHANNELS, "dead_channels": []}


class ReaderError(ValueError):
    """A reader that does not exist or yields something else than agreed."""

    exit_code = 2


class ReadEvent(NamedTuple):
    """One event: its number, and a table for every product of the reader."""

    event_id: int
    tables: Mapping[str, parsed.Waveforms | parsed.TruthVoxels | Mapping[str, np.ndarray]]


Reader = Callable[[Path, int], Iterable[ReadEvent]]


def find(name: str) -> Reader:
    """The function ``module:function``; modules in the current folder are found too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        reader = experiment.load(name)
    except experiment.ExperimentError as error:
        raise ReaderError(f"--reader {error}") from error
    if not callable(reader):
        raise ReaderError(f"--reader {name} is no function; see hpcreco.experiments.protodune.readers")
    unknown = [p for p in products(reader) if p not in _writable()]
    if unknown:
        raise ReaderError(f"--reader {name}: product {unknown[0]!r} is none of {', '.join(_writable())}")
    return reader


def products(reader: Reader) -> tuple[str, ...]:
    """What a reader yields."""
    return tuple(getattr(reader, "products", DEFAULT_PRODUCTS))


def _writable() -> tuple[str, ...]:
    return (*parsed.WAVEFORM_PRODUCTS, *parsed.VALUE_COLUMNS, PARTICLES)


def write(
    reader: Reader, source: Path, paths: Sequence[Path], geometry: Geometry, fingerprint: str
) -> dict[str, Any]:
    """Write what a reader yields of `source`, one parsed file per product; the numbers of events and rows."""
    tpc = names.require(paths[0]).tpc
    assert tpc is not None  # the caller composed the names
    by_product = {names.require(path).product: path for path in paths}
    counts = dict.fromkeys(by_product, 0)
    n_events = 0
    with ExitStack() as stack:
        writers = {
            product: stack.enter_context(_writer(reader, path, source, geometry, fingerprint))
            for product, path in by_product.items()
        }
        for event in reader(source, tpc):
            if not isinstance(event, ReadEvent) or set(event.tables) != set(writers):
                what = sorted(event.tables) if isinstance(event, ReadEvent) else type(event).__name__
                raise ReaderError(
                    f"{source}: the reader yields {what}, expected a ReadEvent of {sorted(writers)}"
                )
            for product, table in event.tables.items():
                if product in parsed.WAVEFORM_PRODUCTS:
                    _check_range(f"{source}: event {event.event_id}", table, reader)
                counts[product] += _append(writers[product], product, event.event_id, table)
            n_events += 1
    return {"events": n_events, "rows": counts}


def _writer(reader: Reader, path: Path, source: Path, geometry: Geometry, fingerprint: str) -> Any:
    name = names.require(path)
    own = dict(getattr(reader, "attributes", {}))
    attributes = {
        "event_type": name.event_type,
        "index": name.index,
        "product": name.product,
        "tpc": name.tpc,
        "geometry": geometry.name,
        "geometry_digest": geometry.digest,
        "generator": "reader",
        "fingerprint": fingerprint,
        "source": [str(source)],
    }
    if name.product in parsed.WAVEFORM_PRODUCTS:
        return parsed.wire_writer(path, attributes | SIZES | own)
    if name.product == PARTICLES:
        return shards.ShardWriter(path, parsed.PARTICLES, attributes)
    return parsed.truth_writer(path, attributes)


def _check_range(where: str, table: Any, reader: Reader) -> None:
    """Ticks and channels must lie in the readout: numbers beyond would be taken for others."""
    limits = SIZES | dict(getattr(reader, "attributes", {}))
    for what, column, limit in zip(
        ("tick", "channel"), table[:2], (limits["n_ticks"], limits["n_channels"]), strict=True
    ):
        column = np.asarray(column)
        if len(column) and (column.min() < 0 or column.max() >= limit):
            raise ReaderError(f"{where}: {what} {column.min()} to {column.max()}, outside [0, {limit})")


def _append(writer: shards.ShardWriter, product: str, event_id: int, table: Any) -> int:
    """Add one table; its number of rows."""
    if product in parsed.WAVEFORM_PRODUCTS:
        tick, channel, value = (np.asarray(column) for column in table)
        order = np.lexsort((channel, tick))
        parsed.append_waveform(writer, event_id, tick[order], channel[order], value[order])
        return len(tick)
    if product == PARTICLES:
        rows = {name: np.asarray(column) for name, column in table.items()}
        writer.append(event_id, {"particles": rows})
        return len(rows["track_id"])
    parsed.append_truth(writer, event_id, table.coords, table.values, table.track_id, table.pdg)
    return len(table.coords)
