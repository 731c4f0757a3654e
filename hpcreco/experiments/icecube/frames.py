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

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_LOG = logging.getLogger(__name__)
ROLES = ("x", "y", "z", "zenith", "azimuth", "energy", "time")


class FrameError(ValueError):
    """A frame lacks what the reconstruction needs, or holds it in a form that is not known."""

    exit_code = 1


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
    module = FrameReconstruction(
        name,
        pulse_key,
        model_dir=model_dir,
        seed_keys=seed_keys,
        exclusion_keys=exclusion_keys,
        preparation={
            "partial_exclusion": partial_exclusion,
            "bright_doms": exclude_bright_doms,
            "merge_pulses": merge_pulses,
        },
        time_window=time_window,
        detector=detector,
        settings=settings,
        make_particle=make_particle or _particle,
        make_map=make_map or _map,
    )

    def reconstruct(frame: Any) -> None:
        if If(frame):
            module(frame)

    add = getattr(tray, "Add", None) or tray.AddModule
    add(reconstruct, name)


class FrameReconstruction:
    """Called with a frame, puts the fit in it."""

    def __init__(
        self,
        name: str,
        pulse_key: str,
        *,
        model_dir: str,
        seed_keys: Sequence[str],
        exclusion_keys: Sequence[str],
        preparation: Mapping[str, Any],
        time_window: tuple[float, float] | None,
        detector: Any,
        settings: Mapping[str, Any] | None,
        make_particle: Callable[[Mapping[str, float], bool], Any],
        make_map: Callable[[Mapping[str, float]], Any],
    ) -> None:
        from hpcreco.experiments.icecube import detector as detectors
        from hpcreco.experiments.icecube.reconstruct import model as _model
        from hpcreco.experiments.icecube.reconstruct.pipeline import Reconstruction
        from hpcreco.experiments.icecube.reconstruct.settings import settings as checked

        self.name, self.pulse_key, self.time_window = name, pulse_key, time_window
        self.seed_keys, self.exclusion_keys = tuple(seed_keys), tuple(exclusion_keys)
        self.make_particle, self.make_map = make_particle, make_map
        array = detectors.named(detector) if isinstance(detector, str) else detector
        model = _model.find(model_dir, array)
        raw = {**model.raw_settings, "seed": list(self.seed_keys), "preparation": dict(preparation)}
        self.reconstruction = Reconstruction(model, checked({**raw, **(settings or {})}))
        self.model, self.detector = model, model.detector

    def __call__(self, frame: Any) -> None:
        """Fit the event of a frame. Raises FrameError where its pulses are missing."""
        from hpcreco.experiments.icecube.reconstruct.pipeline import Given

        data = self.observation(frame)
        seeds = {key: self._seed(frame, key) for key in self.seed_keys if key != "data"}
        rows = self.reconstruction(data, Given(seeds, None, (0,)))[0]
        result = {n: float(v) for n, v in zip(self.model.names, rows["fit"]["parameters"], strict=True)}
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

        place = roles(self.model.names, self.model.mapping)
        return {role: result[self.model.names[number]] for role, number in place.items()}

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
        if not _has(frame, key):
            raise FrameError(f"the frame has no seed {key!r}; add it before, or use the seed 'data'")
        values = particle_values(frame[key])
        return np.array([[values[role] for role in ROLES]]), ROLES

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
        keep = ~_within(time, dom, start, stop, gap_dom) & (time >= window[0]) & (time <= window[1])
        charge, time, dom = (torch.from_numpy(a[keep]) for a in (charge, time, dom))
        gap = [torch.from_numpy(a) for a in (start, stop, gap_dom)]
        return Observation(
            charge, time, torch.zeros_like(dom), dom, torch.tensor([window], dtype=torch.float64),
            gap[0], gap[1], torch.zeros_like(gap[2]), gap[2], usable,
        )  # fmt: skip

    def _pulses(self, frame: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not _has(frame, self.pulse_key):
            raise FrameError(f"the frame has no pulses {self.pulse_key!r}")
        rows = [
            (self._dom(key), float(pulse.time), float(pulse.charge))
            for key, pulses in _items(_pulse_map(frame, self.pulse_key))
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
            if not _has(frame, key):
                _LOG.debug("%s: no %s in this frame", self.name, key)
                continue
            content = frame[key]
            if not hasattr(content, "keys"):
                excluded += [d for d in map(self._dom, content) if d is not None]
                continue
            for om, windows in _items(content):
                dom = self._dom(om)
                if dom is not None:
                    gaps += [(dom, float(w.start), float(w.stop)) for w in windows]
        return excluded, gaps

    def _window(self, frame: Any, time: np.ndarray) -> tuple[float, float]:
        if self.time_window is not None:
            return self.time_window
        key = f"{self.pulse_key}TimeRange"
        if _has(frame, key):
            return float(frame[key].start), float(frame[key].stop)
        if not len(time):
            return -100.0, 100.0
        return float(time.min()) - 100.0, float(time.max()) + 100.0

    def _merged(
        self, gaps: Iterable[tuple[int, float, float]], window: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from hpcreco.experiments.icecube.pulses import Gaps, merged

        table = np.array(sorted(gaps), np.float64).reshape(-1, 3)
        found = merged(Gaps(table[:, 1], table[:, 2], table[:, 0].astype(np.int32)), window)
        return found.start.astype(np.float64), found.stop.astype(np.float64), found.dom.astype(np.int64)


def _within(
    time: np.ndarray, dom: np.ndarray, start: np.ndarray, stop: np.ndarray, gap_dom: np.ndarray
) -> np.ndarray:
    from hpcreco.experiments.icecube.pulses import Gaps, in_gap

    return in_gap(time, dom, Gaps(start, stop, gap_dom))


def _has(frame: Any, key: str) -> bool:
    return bool(frame.Has(key) if hasattr(frame, "Has") else key in frame)


def _items(content: Any) -> Iterable[tuple[Any, Any]]:
    return content.items() if hasattr(content, "items") else content


def _pulse_map(frame: Any, key: str) -> Any:
    """Pulses by OMKey; masks and unions of the experiment's software have to be applied to the frame first."""
    content = frame[key]
    return content.apply(frame) if hasattr(content, "apply") else content


def particle_values(particle: Any) -> dict[str, float]:
    """The seven numbers of a particle: of the experiment's own class, or of a mapping."""
    if isinstance(particle, Mapping):
        return {role: float(particle[role]) for role in ROLES}
    return {
        "x": particle.pos.x,
        "y": particle.pos.y,
        "z": particle.pos.z,
        "zenith": particle.dir.zenith,
        "azimuth": particle.dir.azimuth,
        "energy": particle.energy,
        "time": particle.time,
    }


def _particle(values: Mapping[str, float], fitted: bool) -> Any:
    """An I3Particle."""
    dataclasses = _dataclasses()
    particle = dataclasses.I3Particle()
    particle.pos = dataclasses.I3Position(values["x"], values["y"], values["z"])
    particle.dir = dataclasses.I3Direction(values["zenith"], values["azimuth"])
    particle.energy, particle.time = values["energy"], values["time"]
    particle.shape = dataclasses.I3Particle.Cascade
    status = dataclasses.I3Particle.FitStatus
    particle.fit_status = status.OK if fitted else status.GeneralFailure
    return particle


def _map(values: Mapping[str, float]) -> Any:
    """An I3MapStringDouble."""
    return _dataclasses().I3MapStringDouble(dict(values))


def _dataclasses() -> Any:
    try:
        return importlib.import_module("icecube.dataclasses")
    except ImportError as error:
        raise FrameError(
            "the experiment's software (icecube.dataclasses) is not here; run inside its environment, or give "
            "make_particle and make_map"
        ) from error
