"""Counter-based random streams: what a component of an event draws depends on nothing else that was simulated.

The key of a Philox generator holds (seed, event type, index); its counter starts at (event, component). A stream can
therefore be opened anywhere, in any order, on any rank, and always gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Component(IntEnum):
    """Parts of an event that draw random numbers on their own."""

    MUONS = 1
    SHOWERS = 2
    SOFT = 3
    BEAM = 4
    DRIFT = 5
    NOISE = 6
    DEAD_CHANNELS = 7


@dataclass(frozen=True)
class EventKey:
    """Names one event: the user's seed, a code of the event type, the file index and the event in the file."""

    seed: int
    kind: int
    index: int
    event: int

    def stream(self, component: Component, part: int = 0) -> np.random.Generator:
        """Generator of one component; `part` tells apart e.g. the TPCs of one event."""
        key = np.array([self.seed & (2**64 - 1), (self.kind << 48) | self.index], dtype=np.uint64)
        counter = np.array([0, 0, self.event, (int(component) << 32) | part], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(counter=counter, key=key))
