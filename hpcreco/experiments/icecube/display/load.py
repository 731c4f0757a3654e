"""What is drawn of one event, read from its pulses shard and, where there is one, its reconstruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import shards, yinf
from hpcreco.experiments.icecube import detector as _detector
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.yinf import YINF


class DisplayError(ValueError):
    """There is nothing to draw."""

    exit_code = 2


@dataclass(frozen=True)
class Shown:
    """One event.

    charge, time (P,), dom (P,) of its pulses; excluded DOMs; window; gaps {start, stop, dom}. names of p parameters;
    best, truth, seed (p,) where known; extra: tables of the reconstruction by name.
    """

    number: int
    position: int
    source: Path
    detector: Detector
    charge: np.ndarray
    time: np.ndarray
    dom: np.ndarray
    excluded: np.ndarray
    window: np.ndarray
    gaps: Mapping[str, np.ndarray]
    names: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    best: np.ndarray | None = None
    truth: np.ndarray | None = None
    seed: np.ndarray | None = None
    extra: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    model: str = ""

    @property
    def dom_charge(self) -> np.ndarray:
        """(M,) PE."""
        return np.bincount(self.dom, weights=self.charge, minlength=self.detector.n_doms)

    def role(self, role: str, of: np.ndarray | None) -> float | None:
        """The parameter with a role (x, ..., time) in one of best, truth, seed."""
        found = [n for n in self.names if n.rpartition("_")[2] == role]
        return None if of is None or not found else float(of[self.names.index(min(found, key=len))])

    def place(self, of: np.ndarray | None) -> np.ndarray | None:
        """(3,) m vertex."""
        values = [self.role(axis, of) for axis in "xyz"]
        return None if any(v is None or not np.isfinite(v) for v in values) else np.array(values, float)

    def flight(self, of: np.ndarray | None) -> np.ndarray | None:
        """(3,) where the particle flies to."""
        zenith, azimuth = self.role("zenith", of), self.role("azimuth", of)
        if zenith is None or azimuth is None or not np.isfinite(zenith + azimuth):
            return None
        sine = np.sin(zenith)
        return -np.array([sine * np.cos(azimuth), sine * np.sin(azimuth), np.cos(zenith)])

    def heading(self) -> dict[str, object]:
        """Facts for the page."""
        lit = int((self.dom_charge > 0).sum())
        facts: dict[str, object] = {
            "pulses": f"{len(self.time)} on {lit} of {self.detector.n_doms} DOMs, {self.charge.sum():.1f} PE",
            "readout": f"{self.window[0]:.0f} to {self.window[1]:.0f} ns",
            "excluded": f"{len(self.excluded)} DOMs; {len(self.gaps['dom'])} dead times",
            "file": self.source,
        }
        if self.model:
            facts["model"] = self.model
        return facts

    def table(self) -> list[dict[str, object]]:
        """Parameters: fitted, their uncertainty, true, seed."""
        widths = self.widths()
        rows = []
        for k, name in enumerate(self.names):
            row: dict[str, object] = {"parameter": name}
            for label, values in (("fit", self.best), ("truth", self.truth), ("seed", self.seed)):
                if values is not None:
                    row[label] = float(values[k])
                if label == "fit" and name in widths:
                    row["sigma"] = widths[name]
            rows.append(row)
        return rows

    def widths(self) -> dict[str, float]:
        """Standard deviations of free parameters from second derivatives, in physical units."""
        flat = self.extra.get("covariance", {}).get("hessian")
        if flat is None:
            return {}
        k = len(self.free)
        diagonal = np.asarray(flat).reshape(k, k).diagonal()
        return {n: float(np.sqrt(v)) for n, v in zip(self.free, diagonal, strict=True) if v >= 0}


@dataclass(frozen=True)
class Curve:
    """Light of one DOM: times (T,) ns; by name of the part, expected PE per ns (T,) and expected PE."""

    dom: int
    times: np.ndarray
    rates: Mapping[str, np.ndarray]
    charges: Mapping[str, float]


def load(path: Path, number: int | None = None, pulses: Path | None = None) -> Shown:
    """The event `number` of a pulses shard, or of a yinf file with its shard."""
    identity = shards.identify(path)
    if identity is None or identity[0] not in (PULSES.format, YINF.format):
        raise DisplayError(f"{path} is neither a pulses shard nor a yinf file of a reconstruction")
    if identity[0] == PULSES.format:
        with shards.Shard(path, PULSES) as source:
            position = _position(source, number)
            return _pulses(source, position)
    with shards.Shard(path, YINF) as made:
        if not made.has("fit"):
            raise DisplayError(f"{path} holds no fits; give the pulses shard")
        row = _position(made, number)
        event = int(made.event_ids[row])
        where = pulses or _find_source(path, made.attributes["input_file"])
        with shards.Shard(where, PULSES) as source:
            if source.digest != made.attributes["input_digest"]:
                raise yinf.YinfError(
                    f"{path} was made from another {where}; reconstruct it again, or name the right one with --pulses"
                )
            bare = _pulses(source, _position(source, event))
        return _with_fit(bare, made, row)


def _position(shard: shards.Shard, number: int | None) -> int:
    ids = shard.event_ids
    if not len(ids):
        raise DisplayError(f"{shard.path} has no events")
    if number is None:
        return 0
    found = np.flatnonzero(ids == number)
    if not len(found):
        raise DisplayError(f"{shard.path} has no event {number}; it has {ids.min()} to {ids.max()}")
    return int(found[0])


def _find_source(path: Path, said: str) -> Path:
    candidates = [Path(said), path.parent / Path(said).name, path.parent.parent / Path(said).name]
    found = next((c for c in candidates if c.is_file()), None)
    if found is None:
        raise DisplayError(f"{path}: its pulses shard {said} is not there; name it with --pulses")
    return found


def _pulses(source: shards.Shard, position: int) -> Shown:
    pulses, event = source.read(position, "pulses"), source.read(position, "event")
    names, truth = (), None
    if source.has("event", "parameters"):
        names, truth = source.columns("event", "parameters"), event["parameters"][0].astype(np.float64)
    return Shown(
        number=int(source.event_ids[position]),
        position=position,
        source=source.path,
        detector=_detector.beside(source.path, source.attributes["detector_sha256"]),
        charge=pulses["charge"].astype(np.float64),
        time=pulses["time"].astype(np.float64),
        dom=pulses["dom"],
        excluded=source.read(position, "excluded")["dom"],
        window=event["window"][0],
        gaps=source.read(position, "gaps"),
        names=tuple(names),
        truth=truth,
    )


def _with_fit(bare: Shown, made: shards.Shard, row: int) -> Shown:
    fit = made.read(row, "fit")
    tables = ("covariance", "direction", "sky", "scan", "chain", "goodness", "goodness_doms")
    extra: dict[str, Any] = {t: made.read(row, t) for t in tables if made.has(t)}
    for table in ("covariance", "direction", "goodness"):
        if table in extra:
            extra[table] = {name: array[0] for name, array in extra[table].items()}
    extra["fit"] = {name: array[0] for name, array in fit.items()}
    names = made.columns("fit", "parameters")
    return replace(
        bare,
        names=names,
        free=tuple(made.attributes.get("free", names)),
        best=fit["parameters"][0],
        seed=fit["seed"][0],
        truth=fit["truth"][0] if "truth" in fit else None,
        extra=extra,
        model=str(made.attributes.get("model", made.attributes["checkpoint"])),
    )


def brightest(shown: Shown, count: int) -> np.ndarray:
    """Numbers of the usable DOMs with the most light, brightest first."""
    charge = shown.dom_charge
    charge[shown.excluded] = 0
    order = np.argsort(-charge, kind="stable")[:count]
    return order[charge[order] > 0]


def curves(shown: Shown, model: str | None = None, count: int = 9, points: int = 240) -> list[Curve]:
    """What the model expects of the brightest DOMs at the best fit, with its parts. Needs torch."""
    import torch

    from hpcreco.experiments.icecube.reconstruct import model as _model

    with shards.Shard(shown.source, PULSES) as source:
        generator = source.attributes.get("generator")
    found = _model.find(model or shown.model, shown.detector, generator)
    found.likelihood.to(torch.float64)
    best = torch.from_numpy(np.asarray(shown.best, np.float64))[None]
    made = []
    for dom in brightest(shown, count).tolist():
        own = shown.time[shown.dom == dom]
        times = np.linspace(*_range(own, shown.window), points)
        rates, charges = found.light(best, times, dom, shown.window)
        made.append(Curve(dom, times, rates, charges))
    return made


def _range(times: Sequence[float] | np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Where there is something to see: from a little before the first to well behind most pulses."""
    low, high = np.quantile(times, [0.0, 0.95]) if len(times) > 2 else (np.min(times), np.max(times))
    span = max(high - low, 200.0)
    return max(float(window[0]), low - 0.25 * span), min(float(window[1]), high + 0.5 * span)
