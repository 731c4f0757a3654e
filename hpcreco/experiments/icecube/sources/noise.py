"""Noise: the same at any time of the readout, at each DOM's own rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpcreco.config import Strict
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource, SourceError
from hpcreco.experiments.icecube.sources.constants import of_detector
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source
from hpcreco.experiments.icecube.trafo import Transformation

_DISPERSION = 1e-3  # α before training
FLOOR = {torch.float32: 1e-7, torch.float64: 1e-15}  # PE that every DOM may see, dead ones as well


class NoiseSettings(Strict):
    """fixed: the detector's rates are right and counts are Poisson; nothing is learned."""

    fixed: bool = False


class DefaultNoiseModel(ConfiguredSource):
    """No parameters. Charge s · rate · T in a readout of length T, variance μ + αμ²; s = exp(v₀), α = softplus(v₁)."""

    Settings = NoiseSettings

    def __init__(
        self,
        config: Mapping[str, Any],
        detector: Detector,
        trafo: Transformation | None = None,
        bases: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__(config, detector, None, bases)
        self.constants = of_detector(detector)
        if not self.settings.fixed:
            self.values = nn.Parameter(torch.tensor([0.0, math.log(math.expm1(_DISPERSION))]))

    def expect(self, parameters: Tensor, data: Observation) -> Expectation:
        """See `Source`. Raises SourceError for a readout without length."""
        like, hits = parameters, data.hits
        start, stop = data.window.to(like.dtype).unbind(1)
        length = stop - start
        if (length <= 0).any():
            event = int((length <= 0).nonzero()[0])
            raise SourceError(
                f"event {event} of the batch has a readout of {float(length[event])} ns, so noise has no density; "
                "use the true readout window, or a buffer around the pulses"
            )
        scale, dispersion = self._scale(like)
        full = scale * self.constants.on("noise_rate", like) * length[:, None] + FLOOR.get(like.dtype, 1e-7)
        full = full * len(parameters)
        inside = (
            data.gap_stop.clamp_max(stop[data.gap_event]) - data.gap_start.clamp_min(start[data.gap_event])
        ).clamp_min(0.0)
        inside = inside / length[data.gap_event]
        lost = torch.zeros(len(hits.dom), dtype=like.dtype, device=like.device).index_add(
            0, hits.gap, inside.to(like.dtype)
        )
        where = (hits.event, hits.dom)
        at_hits = full[where]
        charge = full.index_put(where, at_hits * (1.0 - lost).clamp_min(torch.finfo(like.dtype).eps))
        at_pulses, t = at_hits[hits.pulse], data.time
        started, ended = start[data.event], stop[data.event]
        rate = torch.where((t >= started) & (t <= ended), at_pulses / length[data.event], 0.0)
        before = ((data.counted_time - started) / length[data.event]).clamp(0.0, 1.0)
        pulse, gap = data.gaps_before
        before = before.to(like.dtype).index_add(0, pulse, -inside[gap].to(like.dtype))
        variance = charge + dispersion * charge**2 / len(parameters)
        return Expectation(charge, variance, full, rate, at_pulses * before)

    def _scale(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        if self.settings.fixed:
            return 1.0, 0.0
        values = self.values.to(like.dtype)
        return torch.exp(values[0]), nn.functional.softplus(values[1])
