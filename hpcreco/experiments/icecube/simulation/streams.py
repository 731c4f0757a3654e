"""Counter-based random streams: what a part of an event draws depends on the seed and its number alone."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from hpcreco.data.randomness import stream

_PURPOSE = 86  # of hpcreco.data.randomness.stream: tells these streams from those of training


class Part(IntEnum):
    """Parts of an event that draw random numbers on their own."""

    HYPOTHESIS = 1
    PHOTONS = 2
    CHARGES = 3
    NOISE = 4
    GAPS = 5
    SMEARING = 6
    READOUT = 7


class EventKey(NamedTuple):
    """Names one event: the user's seed, and the event's number in the whole sample."""

    seed: int
    event: int

    def stream(self, part: Part) -> np.random.Generator:
        """The generator of one part."""
        return stream(self.seed, _PURPOSE, self.event, int(part))
