"""What both containers of parsed files offer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

Self = TypeVar("Self")


class ParsedError(RuntimeError):
    """A parsed file cannot be read; the message names the file and the remedy."""

    exit_code = 1


class Waveforms(NamedTuple):
    """Non-zero samples of one event, sorted by (tick, channel): int64, int64, float32 (n,)."""

    tick: np.ndarray
    channel: np.ndarray
    value: np.ndarray


class TruthVoxels(NamedTuple):
    """Voxels of one event: coords int32 (n, 3), values float32 (n, len(columns)); ids int32 (n,) or None."""

    coords: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]
    track_id: np.ndarray | None
    pdg: np.ndarray | None


class Parsed(Protocol):
    """What both containers offer. `waveform` needs a wire or hit file, `truth` any other."""

    path: Path
    product: str
    attributes: dict[str, Any]
    n_events: int
    event_ids: np.ndarray

    @property
    def n_ticks(self) -> int: ...
    @property
    def n_channels(self) -> int: ...
    def waveform(self, event: int) -> Waveforms: ...
    def truth(self, event: int) -> TruthVoxels: ...
    def close(self) -> None: ...
    def __enter__(self: Self) -> Self: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...
