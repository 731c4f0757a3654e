"""How events are read from a shard: what a config may ask for, and what it does to the arrays of one event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.icecube import light


class ReadingError(ValueError):
    """An event does not hold what the config asks for."""

    exit_code = 1


@dataclass(frozen=True)
class Reading:
    """Options of reading.

    parameters: names of the hypothesis' parameters, in the order wanted; empty for those of the shard.
    seeds: names of the start values to read; none by default.
    window: "readout" as recorded, or "pulses": from the first pulse − buffer to the last + buffer, ns.
    shift_to_maximum: prefix of a cascade's parameters to be moved to its shower maximum, or None.
    discard_excluded: drop the pulses of excluded DOMs; quantiles: add the charge quantile of each pulse.
    """

    parameters: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    window: str = "readout"
    buffer: float = 0.0
    shift_to_maximum: str | None = None
    discard_excluded: bool = False
    quantiles: bool = False


def columns_in_order(found: tuple[str, ...], wanted: tuple[str, ...], where: str) -> list[int]:
    """Positions of the `wanted` columns among those `found`; raises ReadingError naming both."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ReadingError(
            f"{where} has the columns {', '.join(found) or 'none'}; the hypothesis needs {', '.join(missing)}"
        )
    return [found.index(name) for name in wanted]


def pulse_window(time: np.ndarray, buffer: float) -> np.ndarray:
    """(2,) float32: first pulse − buffer, last pulse + buffer; [−buffer, buffer] without pulses.

    Raises ReadingError where nothing is left: a DOM without live time has no noise distribution.
    """
    first, last = (time.min(), time.max()) if len(time) else (0.0, 0.0)
    window = np.array([first - buffer, last + buffer], np.float32)
    if window[0] >= window[1]:
        raise ReadingError(
            f"the time window is empty ({len(time)} pulse(s) and a buffer of {buffer} ns); "
            "set time_window_buffer above 0, or use the readout window"
        )
    return window


def maximum_offset(energy: np.ndarray) -> np.ndarray:
    """Distance from a cascade's vertex to its maximum of light, m; energy in GeV.

    ℓ = max(0, (a − 1)/b · X) with a = 2.01849 + 0.63176 ln E, b = X/0.63207 and X = 0.358/0.9216 m: the Gamma-shaped
    longitudinal profile of electromagnetic showers.
    """
    a = 2.01849 + 0.63176 * np.log(np.asarray(energy, np.float64) + 1e-6)
    return np.maximum(0.0, (a - 1.0) * 0.63207)


def shifted_to_maximum(parameters: Mapping[str, float]) -> dict[str, float]:
    """A cascade's seven parameters with vertex and time moved along its flight to the maximum of light."""
    offset = float(maximum_offset(np.float64(parameters["energy"])))
    flight = light.direction(np.float64(parameters["zenith"]), np.float64(parameters["azimuth"]))
    moved = {name: parameters[name] + offset * flight[axis] for axis, name in enumerate("xyz")}
    return {**parameters, **moved, "time": parameters["time"] + offset / light.SPEED_OF_LIGHT}
