"""Events and the batches they are collated into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

COORDINATES = "coords"  # integer fields of this name get the event's slot prepended as their first column

# torch has no arithmetic for unsigned integers wider than a byte
_SIGNED: dict[np.dtype, np.dtype] = {
    np.dtype("u2"): np.dtype("i4"),
    np.dtype("u4"): np.dtype("i8"),
    np.dtype("u8"): np.dtype("i8"),
}


class BatchError(ValueError):
    """The events of a batch do not fit together."""

    exit_code = 1


class Ref(NamedTuple):
    """Names one event: the shard's number in the index and the event's number in the shard."""

    shard: int
    event: int


@dataclass(frozen=True)
class Event:
    """One event as an experiment reads it.

    `tables[table][field]` is an array whose first axis is rows; all fields of a table have the same number
    of rows. A table with one value per event has one row.
    """

    tables: Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Batch:
    """Events laid one after another.

    tensors: `"table/field"` -> Tensor (rows, ...); a field named `coords` is int32 (rows, 1 + width), first
        column = the event's slot in the batch.
    offsets: table -> int64 CPU Tensor (n_events + 1); event i owns rows offsets[i]:offsets[i + 1].
    n_events: slots, empty events included. refs, costs: one per slot.
    """

    tensors: Mapping[str, Tensor]
    offsets: Mapping[str, Tensor]
    n_events: int
    refs: tuple[Ref, ...] = ()
    costs: tuple[float, ...] = ()

    @property
    def cost(self) -> float:
        """What the batch costs, in the experiment's own unit (voxels, hits, pulses)."""
        return float(sum(self.costs))

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def rows(self, table: str) -> int:
        """Number of rows of `table` in all events."""
        return int(self.offsets[table][-1])

    def slots(self, table: str) -> Tensor:
        """(rows,) int64: the slot of the event each row of `table` belongs to."""
        counts = self.offsets[table].diff()
        slots = torch.repeat_interleave(torch.arange(self.n_events), counts)
        return slots.to(next((t.device for k, t in self.tensors.items() if k.startswith(table + "/")), "cpu"))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`; offsets stay on the CPU, where they are used."""
        tensors = {key: tensor.to(device, non_blocking=non_blocking) for key, tensor in self.tensors.items()}
        return Batch(tensors, self.offsets, self.n_events, self.refs, self.costs)


def empty_like(event: Event) -> Event:
    """`event` with no rows: what an empty batch takes its dtypes and widths from."""
    return Event({t: {f: np.asarray(a)[:0] for f, a in fields.items()} for t, fields in event.tables.items()})


def collate(
    events: Sequence[Event],
    refs: Iterable[Ref] = (),
    costs: Iterable[float] = (),
    like: Event | None = None,
) -> Batch:
    """Lay `events` one after another.

    An empty batch (no events) takes its tables, dtypes and widths from `like`. Raises BatchError when the
    events differ in tables, fields, widths or dtypes.
    """
    if not events and like is None:
        raise BatchError("an empty batch needs `like`, an event to take its tables from")
    template = events[0] if events else empty_like(like)  # type: ignore[arg-type]
    tensors: dict[str, Tensor] = {}
    offsets: dict[str, Tensor] = {}
    for table, fields in template.tables.items():
        counts = np.array([_row_count(event, table, fields) for event in events], np.int64)
        offsets[table] = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        for field in fields:
            parts = [event.tables[table][field] for event in events] or [fields[field]]
            _check_alike(parts, f"{table}/{field}")
            array = _with_slots(parts) if field == COORDINATES else _stack(parts)
            tensors[f"{table}/{field}"] = torch.from_numpy(array)
    return Batch(tensors, offsets, len(events), tuple(refs), tuple(float(c) for c in costs))


def _row_count(event: Event, table: str, fields: Mapping[str, np.ndarray]) -> int:
    """Rows of `table` in `event`; every field must exist and have that many."""
    found = event.tables.get(table)
    if found is None or found.keys() != fields.keys():
        raise BatchError(
            f"table {table!r}: expected the fields {sorted(fields)}, found {sorted(found) if found else 'no table'}"
        )
    counts = {field: len(array) for field, array in found.items()}
    if len(set(counts.values())) > 1:
        raise BatchError(f"table {table!r}: its fields differ in their number of rows: {counts}")
    return next(iter(counts.values()), 0)


def _check_alike(parts: Sequence[np.ndarray], name: str) -> None:
    """Raise BatchError for parts of different dtypes or widths."""
    kinds = {(part.dtype, part.shape[1:]) for part in parts}
    if len(kinds) > 1:
        described = ", ".join(sorted(f"{dtype}{list(shape)}" for dtype, shape in kinds))
        raise BatchError(f"{name}: the events of one batch differ in dtype or width: {described}")


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The parts along the first axis, in a dtype torch can compute with."""
    array = np.concatenate(parts)
    dtype: np.dtype = array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, _SIGNED.get(dtype, dtype))


def _with_slots(parts: Sequence[np.ndarray]) -> np.ndarray:
    """int32 (rows, 1 + width): coordinates behind the slot of their event."""
    if parts[0].ndim != 2:
        raise BatchError(f"coordinates must be (rows, width), found the shape {parts[0].shape}")
    placed = np.empty((sum(map(len, parts)), 1 + parts[0].shape[1]), np.int32)
    end = 0
    for slot, part in enumerate(parts):
        begin, end = end, end + len(part)
        placed[begin:end, 0] = slot
        placed[begin:end, 1:] = part
    return placed
