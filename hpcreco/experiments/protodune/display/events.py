"""Where the event that was asked for stands in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpcreco.experiments.protodune.display.scene import DisplayError


def position(event_ids: Iterable[int], event_id: int | None, path: Path) -> int:
    """Where event `event_id` stands in the file. Raises DisplayError naming the events that are there."""
    known = [int(i) for i in event_ids]
    if not known:
        raise DisplayError(f"{path} holds no events")
    if event_id is None:
        return 0
    if event_id not in known:
        shown = ", ".join(map(str, known[:12])) + (f", ... ({len(known)} events)" if len(known) > 12 else "")
        raise DisplayError(f"{path} has no event {event_id}; it has {shown}")
    return known.index(event_id)
