"""Reconstructed events of many yinf files as arrays, with what follows from parameters and truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hpcreco import shards
from hpcreco.experiments.icecube.yinf import YINF

ROLES = ("x", "y", "z", "zenith", "azimuth", "energy", "time")

_NO_WIDTH = 1e-9  # less is a direction in which the loss is flat, left out of a pseudo-inverse


class ResultError(ValueError):
    """Files that hold no reconstruction, or reconstructions of different hypotheses."""

    exit_code = 2


@dataclass(frozen=True)
class Results:
    """n events: names of p parameters; fit's fields by name; (n, k, k) covariances of the free parameters by kind.

    direction: uncertainties in rad by name. pit: histograms (n, bins) by name. goodness: p-values (n,) by name.
    """

    names: tuple[str, ...]
    free: tuple[str, ...]
    log: tuple[str, ...]
    fit: dict[str, np.ndarray]
    covariance: dict[str, np.ndarray]
    direction: dict[str, np.ndarray]
    pit: dict[str, np.ndarray]
    goodness: dict[str, np.ndarray]
    models: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    settings: dict = field(default_factory=dict)

    @property
    def n_events(self) -> int:
        return len(self.fit["loss"])

    @property
    def has_truth(self) -> bool:
        return "truth" in self.fit

    def select(self, energy: Sequence[float] | None = None, radius: float | None = None) -> Results:
        """The events with a true energy within (low, high) GeV and a true vertex within `radius` m of the axis."""
        keep = np.ones(self.n_events, bool)
        values = {role: self.value(role, "truth") for role in ("energy", "x", "y")}
        if (energy or radius is not None) and values["energy"] is None:
            raise ResultError("these events have no truth to choose by")
        if energy:
            keep &= (values["energy"] >= energy[0]) & (values["energy"] < energy[1])
        if radius is not None:
            keep &= np.hypot(values["x"], values["y"]) <= radius
        if not keep.any():
            raise ResultError("no event is left; choose a wider range")
        tables = ("fit", "covariance", "direction", "pit", "goodness")
        cut = {t: {name: a[keep] for name, a in getattr(self, t).items()} for t in tables}
        return replace(self, **cut)

    def column(self, role: str) -> int | None:
        """Number of the parameter with this role: the shortest name that ends with it."""
        found = [n for n in self.names if n.rpartition("_")[2] == role]
        return self.names.index(min(found, key=len)) if found else None

    def value(self, role: str, which: str = "parameters") -> np.ndarray | None:
        """(n,) fitted ("parameters"), start ("seed") or true ("truth") values of the parameter with a role.

        The energy of a hypothesis of several cascades is that of all of them.
        """
        number = self.column(role)
        if number is None or which not in self.fit:
            return None
        if role == "energy":
            energies = [k for k, name in enumerate(self.names) if name.rpartition("_")[2] == "energy"]
            return self.fit[which][:, energies].clip(min=0).sum(1)
        return self.fit[which][:, number]

    def opening(self, which: str = "parameters") -> np.ndarray | None:
        """(n,) rad between the true direction and the fitted one, or the seed's."""
        angles = [self.value(role, source) for source in (which, "truth") for role in ("zenith", "azimuth")]
        if any(a is None for a in angles):
            return None
        a, b = (unit(angles[k], angles[k + 1]) for k in (0, 2))
        return 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))

    def vertex(self, which: str = "parameters") -> np.ndarray | None:
        """(n,) m between the true vertex and the fitted one, or the seed's; of a track, which has none, between its
        true anchor and the fitted line.
        """
        parts = [(self.value(axis, which), self.value(axis, "truth")) for axis in "xyz"]
        if any(a is None or b is None for a, b in parts):
            return None
        away = np.stack([a - b for a, b in parts], 1)
        if any(name.endswith("anchor_x") for name in self.names):
            line = unit(self.value("zenith", which), self.value("azimuth", which))
            away = away - (away * line).sum(1, keepdims=True) * line
        return np.linalg.norm(away, axis=1)

    def log_energy(self, which: str = "parameters") -> np.ndarray | None:
        """(n,) ln of fitted over true energy."""
        fitted, true = self.value("energy", which), self.value("energy", "truth")
        if fitted is None or true is None:
            return None
        return np.log(np.maximum(fitted, 1e-3)) - np.log(np.maximum(true, 1e-3))

    def residual(self, name: str) -> np.ndarray:
        """(n,) fitted minus true value; azimuths within half a turn, energies as ln(1 + E) where so fitted."""
        number = self.names.index(name)
        fitted, true = self.fit["parameters"][:, number], self.fit["truth"][:, number]
        if name in self.log:
            return np.log1p(fitted) - np.log1p(true)
        if name.endswith("azimuth"):
            return (fitted - true + np.pi) % (2 * np.pi) - np.pi
        return fitted - true

    def width(self, name: str, kind: str) -> np.ndarray:
        """(n,) standard deviation of a free parameter, in the units of `residual`."""
        number = self.free.index(name)
        with np.errstate(invalid="ignore"):
            width = np.sqrt(self.covariance[kind][:, number, number])
        if name in self.log:
            with np.errstate(invalid="ignore", divide="ignore"):
                width = width / (1 + self.fit["parameters"][:, self.names.index(name)])
        return np.where(width > _NO_WIDTH, width, np.nan)

    def pull(self, name: str, kind: str) -> np.ndarray:
        """(n,) residual over standard deviation."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.residual(name) / self.width(name, kind)


def unit(zenith: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors."""
    sine = np.sin(zenith)
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), np.cos(zenith)], -1)


def find(path: Path) -> list[Path]:
    """The yinf files of reconstructions that a path leads to: a file, or a folder or run of them."""
    if not path.exists():
        raise ResultError(f"there is no {path}")
    candidates = [path] if path.is_file() else sorted(path.glob("*.h5")) or sorted(path.glob("*/*.h5"))
    found = [p for p in candidates if (shards.identify(p) or ("",))[0] == YINF.format and _fitted(p)]
    if not found:
        raise ResultError(f"{path} holds no reconstructed events; run `hpcreco icecube reconstruct` first")
    return found


def _fitted(path: Path) -> bool:
    with shards.Shard(path, YINF) as shard:
        return shard.has("fit")


def read(paths: Sequence[Path]) -> Results:
    """All events of yinf files; what not all of them have is left out."""
    parts, heads, models = [], [], []
    for path in paths:
        with shards.Shard(path, YINF) as shard:
            head = shard.columns("fit", "parameters")
            free = tuple(shard.attributes.get("free", head))
            heads.append((head, free))
            models.append(str(shard.attributes["checkpoint_digest"])[:12])
            log, settings = tuple(shard.attributes.get("log", ())), shard.attributes.get("settings", {})
            parts.append({t: _read(shard, t) for t in ("fit", "covariance", "direction", "pit", "goodness")})
    if len(set(heads)) > 1:
        raise ResultError(
            "the files are fits of different hypotheses or free parameters; report on each alone"
        )
    names, free = heads[0]
    joined = {table: _joined([part[table] for part in parts]) for table in parts[0]}
    k = len(free)
    joined["covariance"] = {name: a.reshape(-1, k, k) for name, a in joined["covariance"].items()}
    return Results(
        names, free, log, **joined, models=tuple(sorted(set(models))), paths=tuple(paths), settings=settings
    )


def _read(shard: shards.Shard, table: str) -> dict[str, np.ndarray]:
    return shard.read_events(0, shard.n_events, table) if shard.has(table) else {}


def _joined(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = list(parts)
    common = set.intersection(*(set(part) for part in parts))
    return {name: np.concatenate([part[name] for part in parts]) for name in sorted(common)}
