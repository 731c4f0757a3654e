"""What a script needs, in one place: `load`, `events`, `fit`; the example stands in `model`."""

from __future__ import annotations

from pathlib import Path

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.reconstruct.events import open_events as events
from hpcreco.experiments.icecube.reconstruct.fit import Fit, fit
from hpcreco.experiments.icecube.reconstruct.model import Model, find

__all__ = ["Detector", "Fit", "Model", "events", "fit", "load"]


def load(name: str | Path, detector: Detector | None = None) -> Model:
    """The model of an export's folder, of a config, or "truth" (which needs a detector); in float64."""
    model = find(str(name), detector)
    model.likelihood.double()
    return model
