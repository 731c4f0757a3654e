"""Detectors by name: idealised arrays on a triangular lattice, and what files of others' formats describe."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from hpcreco.experiments.icecube.detector import Detector, DetectorError, read
from hpcreco.experiments.icecube.imports import geometry

SPACING = 125.0  # m between strings
DOM_SPACING = 17.0  # m between the DOMs of a string
DEEPCORE_EFFICIENCY = 1.35
DEAD_FRACTION = 77 / 5160
_GRID = re.compile(r"hex(\d+)x(\d+)")


@lru_cache(maxsize=8)
def named(text: str) -> Detector:
    """`hex86`, `hex<strings>x<doms>` (``@seed`` behind it for other noise and dead DOMs), or a file.

    Files: a detector artefact (.h5), `detector_config.txt`, Prometheus' `.geo`, graphnet's geometry table (.parquet);
    ``positions-file,table.parquet`` takes efficiencies and the list of good DOMs from the table.
    """
    base, _, seed = text.partition("@")
    if base == "hex86":
        return hex86(_seed(seed, text))
    match = _GRID.fullmatch(base)
    if match:
        return hexagonal(int(match[1]), int(match[2]), _seed(seed, text))
    paths = [Path(part) for part in text.split(",")]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise DetectorError(
            f"{text!r} is no detector: expected hex86, hex<strings>x<doms> such as hex7x10, or a file "
            f"({missing} does not exist)"
        )
    if paths[0].suffix == ".h5":
        return read(paths[0])
    return geometry.read(paths)


def _seed(text: str, whole: str) -> int:
    if text and not text.isdecimal():
        raise DetectorError(f"{whole!r}: the seed behind @ should be a number")
    return int(text or 86)


def hexagonal(strings: int, doms: int, seed: int = 86) -> Detector:
    """`strings` strings on a triangular lattice, those nearest to the axis, `doms` DOMs on each, centred."""
    if strings < 1 or doms < 1:
        raise DetectorError(f"hex{strings}x{doms}: a detector has at least one string and one DOM")
    xy = lattice(strings)
    z = DOM_SPACING * ((doms - 1) / 2 - np.arange(doms))
    positions = np.concatenate(
        [np.repeat(xy[:, None], doms, axis=1), np.broadcast_to(z[None, :, None], (strings, doms, 1))], axis=2
    )
    return _equipped(positions, np.ones((strings, doms)), seed, f"hex{strings}x{doms}")


def hex86(seed: int = 86) -> Detector:
    """78 strings on a triangular lattice and 8 denser ones in the middle, 60 DOMs each: IceCube, idealised."""
    standard = np.empty((78, 60, 3))
    standard[..., :2] = lattice(78)[:, None]
    standard[..., 2] = 500.0 - DOM_SPACING * np.arange(60)
    azimuth = np.radians(30.0 + 60.0 * np.arange(6))
    ring = SPACING / np.sqrt(3.0) * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    core = np.empty((8, 60, 3))
    core[..., :2] = np.concatenate([ring, [[31.25, 18.04], [-31.25, -18.04]]])[:, None]
    k = np.arange(60)
    core[..., 2] = np.where(k < 10, 190.0 - 10.0 * k, -157.0 - 7.0 * (k - 10))
    efficiency = np.ones((86, 60))
    efficiency[78:] = DEEPCORE_EFFICIENCY
    return _equipped(np.concatenate([standard, core]), efficiency, seed, "hex86")


def lattice(count: int) -> np.ndarray:
    """(count, 2) the points of a triangular lattice next to the origin, by distance (to 1 mm), then azimuth."""
    reach = int(np.ceil(np.sqrt(count))) + 1
    q, r = (axis.reshape(-1) for axis in np.meshgrid(*[np.arange(-reach, reach + 1)] * 2))
    xy = np.round(SPACING * np.stack([q + r / 2, r * np.sqrt(3.0) / 2], axis=1), 6)
    distance = np.round(np.hypot(xy[:, 0], xy[:, 1]), 3)
    azimuth = np.round(np.arctan2(xy[:, 1], xy[:, 0]) % (2 * np.pi), 9)
    return xy[np.lexsort((azimuth, distance))[:count]]


def _equipped(positions: np.ndarray, efficiency: np.ndarray, seed: int, name: str) -> Detector:
    """Noise N(5.5e-7, 1e-7)/ns within [4e-7, 9e-7], more where more is seen, and 1.5 % dead DOMs, from `seed`.

    Drawn from raw bits, which numpy promises never to change, and rounded: the digest is the same everywhere.
    """
    shape = efficiency.shape
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64))
    uniform = (bits.random_raw(2 * efficiency.size) >> np.uint64(11)).reshape(2, *shape) * 2.0**-53
    normal = np.sqrt(-2.0 * np.log1p(-uniform[0])) * np.cos(2 * np.pi * uniform[1])
    noise = np.clip(5.5e-7 + 1.0e-7 * normal, 4e-7, 9e-7) * efficiency
    order = np.argsort(bits.random_raw(efficiency.size), kind="stable")
    dead = np.zeros(efficiency.size, bool)
    dead[order[: round(DEAD_FRACTION * efficiency.size)]] = True
    dead = dead.reshape(shape)
    noise = np.where(dead, 0.0, np.round(noise, 12))
    suffix = "" if seed == 86 else f"@{seed}"
    return Detector(np.round(positions, 6), efficiency, noise, dead, name + suffix)
