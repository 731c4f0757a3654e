"""Reconstruction inside the experiment's own event loop, as a segment that a tray takes.

::

    from hpcreco.experiments.icecube.frames import ApplyEventGeneratorReconstruction

    tray.Add(
        ApplyEventGeneratorReconstruction, "reco",
        pulse_key="SplitInIcePulses",
        model_dir="export", seed_keys=["MonopodFit4"],
        exclusion_keys=["BadDomsList", "SaturationWindows", "CalibrationErrata"],
    )

Every frame gets the fitted particle under the segment's name and all numbers of the fit under ``<name>_result``.
The experiment's software (`icecube.dataclasses`) is imported only where its classes are made; frames, trays and pulses
are used through the few methods they all have, so that anything which behaves alike will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcreco.experiments.icecube.frames.content import ROLES, FrameError, has, particle_values
from hpcreco.experiments.icecube.frames.observation import FrameReader

if TYPE_CHECKING:
    from hpcreco.experiments.icecube.detector import Detector
    from hpcreco.experiments.icecube.reconstruct.model import Model
    from hpcreco.experiments.icecube.reconstruct.pipeline import Reconstruction
    from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings


def ApplyEventGeneratorReconstruction(  # noqa: N802 - what the segment is called in the original package
    tray: Any,
    name: str,
    pulse_key: str,
    *,
    model_dir: str,
    seed_keys: Sequence[str] = ("data",),
    exclusion_keys: Sequence[str] = ("BadDomsList", "SaturationWindows", "CalibrationErrata"),
    partial_exclusion: bool = True,
    exclude_bright_doms: bool = True,
    merge_pulses: float = 0.0,
    time_window: tuple[float, float] | None = None,
    detector: Any = None,
    settings: Mapping[str, Any] | None = None,
    make_particle: Callable[[Mapping[str, float], bool], Any] | None = None,
    make_map: Callable[[Mapping[str, float]], Any] | None = None,
    If: Callable[[Any], bool] = lambda frame: True,
) -> None:
    """Add a module to `tray` that fits every event.

    model_dir: an export, or "truth". seed_keys: particles in the frame, or "data". exclusion_keys: lists of DOMs, or
    series of dead time windows per DOM, as far as a frame has them. time_window: of the readout, ns; by default
    ``<pulse_key>TimeRange`` of the frame, else from the first pulse to the last with 100 ns around. detector: a
    `Detector` or its name; by default the model's own. settings: `reconstruction_settings` on top of the model's.
    make_particle, make_map: how results are put in the frame; by default as the experiment's own classes.
    """
    from hpcreco.experiments.icecube.frames import classes
    from hpcreco.experiments.icecube.reconstruct.pipeline import Reconstruction

    preparation = {
        "partial_exclusion": partial_exclusion,
        "bright_doms": exclude_bright_doms,
        "merge_pulses": merge_pulses,
    }
    changes = {"seed": list(seed_keys), "preparation": preparation, **(settings or {})}
    model, checked = _model_and_settings(model_dir, detector, changes)
    module = FrameReconstruction(
        name,
        FrameReader(model.detector, pulse_key, tuple(exclusion_keys), time_window),
        Reconstruction(model, checked),
        tuple(seed_keys),
        make_particle or classes.particle,
        make_map or classes.number_map,
    )

    def reconstruct(frame: Any) -> None:
        if If(frame):
            module(frame)

    add = getattr(tray, "Add", None) or tray.AddModule
    add(reconstruct, name)


def _model_and_settings(
    model_dir: str, detector: Detector | str | None, changes: Mapping[str, Any]
) -> tuple[Model, ReconstructionSettings]:
    """The model, for the detector, and its settings with changes on top."""
    from hpcreco.experiments.icecube import arrays
    from hpcreco.experiments.icecube.reconstruct import model as models
    from hpcreco.experiments.icecube.reconstruct.settings import settings

    array = arrays.named(detector) if isinstance(detector, str) else detector
    model = models.find(model_dir, array)
    return model, settings({**model.raw_settings, **changes})


@dataclass(frozen=True)
class FrameReconstruction:
    """Called with a frame, puts the fit in it under `name`. seed_keys: particles in the frame, or "data"."""

    name: str
    reader: FrameReader
    reconstruction: Reconstruction
    seed_keys: tuple[str, ...]
    make_particle: Callable[[Mapping[str, float], bool], Any]
    make_map: Callable[[Mapping[str, float]], Any]

    def __call__(self, frame: Any) -> None:
        """Fit the event of a frame. Raises FrameError where its pulses are missing."""
        from hpcreco.experiments.icecube.reconstruct.pipeline import Given

        data = self.reader.observation(frame)
        seeds = {key: self._seed(frame, key) for key in self.seed_keys if key != "data"}
        rows = self.reconstruction(data, Given(seeds, None, (0,)))[0]
        result = {
            n: float(v)
            for n, v in zip(self.reconstruction.model.names, rows["fit"]["parameters"], strict=True)
        }
        fitted = bool(rows["fit"]["converged"]) and np.isfinite(rows["fit"]["loss"])
        numbers = {
            f"{key}": float(rows["fit"][key]) for key in ("loss", "seed_loss", "converged", "evaluations")
        }
        numbers |= {f"{key}_sigma": float(value[()]) for key, value in rows.get("direction", {}).items()}
        numbers |= self._widths(rows)
        frame.Put(self.name, self.make_particle(self._roles(result), fitted))
        frame.Put(f"{self.name}_result", self.make_map({**result, **numbers}))

    def _roles(self, result: Mapping[str, float]) -> dict[str, float]:
        from hpcreco.experiments.icecube.reconstruct.seeds import roles

        place = roles(self.reconstruction.model.names, self.reconstruction.model.mapping)
        return {role: result[self.reconstruction.model.names[number]] for role, number in place.items()}

    def _widths(self, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        matrix = rows.get("covariance", {}).get("hessian")
        if matrix is None:
            return {}
        free = self.reconstruction.space.free_names
        diagonal = np.asarray(matrix).reshape(len(free), -1).diagonal()
        return {
            f"{n}_sigma": float(np.sqrt(v)) if v >= 0 else np.nan for n, v in zip(free, diagonal, strict=True)
        }

    def _seed(self, frame: Any, key: str) -> tuple[np.ndarray, Sequence[str]]:
        if not has(frame, key):
            raise FrameError(f"the frame has no seed {key!r}; add it before, or use the seed 'data'")
        values = particle_values(frame[key])
        return np.array([[values[role] for role in ROLES]]), ROLES
