"""The particles of one event, as columns of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def union(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Particles that any of `parts` lists, once each, by ascending track id."""
    stacked = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first = np.unique(stacked["track_id"], return_index=True)
    return {name: values[first] for name, values in stacked.items()}
