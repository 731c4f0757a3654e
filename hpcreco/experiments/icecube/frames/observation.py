"""From a frame to what the likelihood takes: pulses, excluded DOMs, dead times, the readout window."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.frames.content import FrameError, has, items, pulse_map
from hpcreco.experiments.icecube.pulses import Gaps, in_gap, merged

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameReader:
    """Reads the event of a frame. time_window: of the readout, ns; None where each frame has its own."""

    detector: Detector
    pulse_key: str
    exclusion_keys: tuple[str, ...] = ()
    time_window: tuple[float, float] | None = None

    def observation(self, frame: Any) -> Any:
        """The `Observation` of a frame's event."""
        import torch

        from hpcreco.experiments.icecube.sources.contract import Observation

        charge, time, dom = self._pulses(frame)
        excluded, gaps = self._exclusions(frame)
        window = self._window(frame, time)
        usable = torch.ones(1, self.detector.n_doms, dtype=torch.bool)
        usable[0, torch.from_numpy(np.flatnonzero(self.detector.flat_dead))] = False
        usable[0, torch.as_tensor(excluded, dtype=torch.int64)] = False
        start, stop, gap_dom = self._merged(gaps, window)
        keep = ~in_gap(time, dom, Gaps(start, stop, gap_dom)) & (time >= window[0]) & (time <= window[1])
        charge, time, dom = (torch.from_numpy(a[keep]) for a in (charge, time, dom))
        gap = [torch.from_numpy(a) for a in (start, stop, gap_dom)]
        return Observation(
            charge, time, torch.zeros_like(dom), dom, torch.tensor([window], dtype=torch.float64),
            gap[0], gap[1], torch.zeros_like(gap[2]), gap[2], usable,
        )  # fmt: skip

    def _pulses(self, frame: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not has(frame, self.pulse_key):
            raise FrameError(f"the frame has no pulses {self.pulse_key!r}")
        rows = [
            (self._dom(key), float(pulse.time), float(pulse.charge))
            for key, pulses in items(pulse_map(frame, self.pulse_key))
            for pulse in pulses
        ]
        rows = sorted(row for row in rows if row[0] is not None and row[2] > 0)
        table = np.array(rows, np.float64).reshape(-1, 3)
        return table[:, 2], table[:, 1], table[:, 0].astype(np.int64)

    def _dom(self, key: Any) -> int | None:
        """Number of the DOM of an OMKey (counted from 1), None for what is no DOM of the array."""
        string, om = (key.string, key.om) if hasattr(key, "string") else (key[0], key[1])
        inside = 1 <= string <= self.detector.n_strings and 1 <= om <= self.detector.doms_per_string
        return (int(string) - 1) * self.detector.doms_per_string + int(om) - 1 if inside else None

    def _exclusions(self, frame: Any) -> tuple[list[int], list[tuple[int, float, float]]]:
        excluded: list[int] = []
        gaps: list[tuple[int, float, float]] = []
        for key in self.exclusion_keys:
            if not has(frame, key):
                _LOG.debug("no %s in this frame", key)
                continue
            content = frame[key]
            if not hasattr(content, "keys"):
                excluded += [d for d in map(self._dom, content) if d is not None]
                continue
            for om, windows in items(content):
                dom = self._dom(om)
                if dom is not None:
                    gaps += [(dom, float(w.start), float(w.stop)) for w in windows]
        return excluded, gaps

    def _window(self, frame: Any, time: np.ndarray) -> tuple[float, float]:
        if self.time_window is not None:
            return self.time_window
        key = f"{self.pulse_key}TimeRange"
        if has(frame, key):
            return float(frame[key].start), float(frame[key].stop)
        if not len(time):
            return -100.0, 100.0
        return float(time.min()) - 100.0, float(time.max()) + 100.0

    def _merged(
        self, gaps: Iterable[tuple[int, float, float]], window: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = np.array(sorted(gaps), np.float64).reshape(-1, 3)
        found = merged(Gaps(table[:, 1], table[:, 2], table[:, 0].astype(np.int32)), window)
        return found.start.astype(np.float64), found.stop.astype(np.float64), found.dom.astype(np.int64)
