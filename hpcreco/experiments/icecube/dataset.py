"""One event of a pulses shard, as the likelihood sees it."""

from __future__ import annotations

import numpy as np

from hpcreco.data.batch import Event
from hpcreco.experiments.icecube import reading
from hpcreco.experiments.icecube.pulses import CASCADE, quantiles
from hpcreco.experiments.icecube.reading import Reading
from hpcreco.shards import Shard

PULSE_FIELDS = ("charge", "time", "dom")


class PulseReader:
    """Reads events: tables `pulses`, `gaps`, `excluded`, `event` and, where asked for, `seeds`.

    `event` has one row: parameters (1, p), window (1, 2), weight (1,); `seeds` one row and a field per seed.
    """

    def __init__(self, options: Reading) -> None:
        self.options = options

    def __call__(self, shard: Shard, position: int, rng: np.random.Generator) -> Event:
        """Event number `position` of `shard`."""
        del rng  # nothing in reading is random
        options = self.options
        pulses = shard.read(position, "pulses", PULSE_FIELDS)
        excluded = shard.read(position, "excluded", ("dom",))
        if options.discard_excluded:
            keep = ~np.isin(pulses["dom"], excluded["dom"])
            pulses = {name: array[keep] for name, array in pulses.items()}
        if options.quantiles:
            pulses["quantile"] = quantiles(pulses["charge"], pulses["dom"])
        event = shard.read(position, "event", ("window", "weight"))
        if options.window == "pulses":
            event["window"] = reading.pulse_window(pulses["time"], options.buffer)[None]
        parameters = self._parameters(shard, position)
        if parameters is not None:
            event["parameters"] = parameters
        gaps = self._gaps(shard.read(position, "gaps", ("start", "stop", "dom")), event["window"][0])
        tables = {"pulses": pulses, "gaps": gaps, "excluded": excluded, "event": event}
        if options.seeds:
            tables["seeds"] = self._seeds(shard, position)
        return Event(tables)

    def _parameters(self, shard: Shard, position: int) -> np.ndarray | None:
        """float32 (1, p) in the order asked for; None when the shard has no truth and none is asked for."""
        wanted = self.options.parameters
        if not shard.has("event", "parameters"):
            if wanted:
                raise reading.ReadingError("the shard has no true parameters; it can only be reconstructed")
            return None
        values = shard.read(position, "event", ("parameters",))["parameters"]
        found = shard.columns("event", "parameters")
        if self.options.shift_to_maximum is not None:
            values = shifted(values, found, self.options.shift_to_maximum)
        if not wanted:
            return values
        return values[:, reading.columns_in_order(found, wanted, "event/parameters")]

    def _gaps(self, gaps: dict[str, np.ndarray], window: np.ndarray) -> dict[str, np.ndarray]:
        """Gaps inside the window: a window from pulses may end before one."""
        start, stop = (np.clip(gaps[name], window[0], window[1]) for name in ("start", "stop"))
        keep = start < stop
        return {"start": start[keep], "stop": stop[keep], "dom": gaps["dom"][keep]}

    def _seeds(self, shard: Shard, position: int) -> dict[str, np.ndarray]:
        """float32 (1, q) by name of the seed, its columns in the shard's order."""
        if not shard.has("seeds"):
            raise reading.ReadingError(f"the shard has no seeds; {', '.join(self.options.seeds)} asked for")
        values = shard.read(position, "seeds")["values"]
        found = shard.columns("seeds", "values")
        seeds = {}
        for name in self.options.seeds:
            columns = [i for i, column in enumerate(found) if column.rpartition("/")[0] == name]
            if not columns:
                known = sorted({column.rpartition("/")[0] for column in found})
                raise reading.ReadingError(f"the shard has no seed {name!r}; it has {', '.join(known)}")
            seeds[name] = values[:, columns]
        return seeds


def seed_columns(shard: Shard, seed: str) -> tuple[str, ...]:
    """Names of a seed's parameters, in the order of its columns."""
    found = shard.columns("seeds", "values") if shard.has("seeds") else ()
    return tuple(c.rpartition("/")[2] for c in found if c.rpartition("/")[0] == seed)


def shifted(values: np.ndarray, names: tuple[str, ...], prefix: str) -> np.ndarray:
    """(1, p) parameters with the cascade whose names begin with `prefix` moved to its maximum of light."""
    columns = [reading.columns_in_order(names, (prefix + name,), "event/parameters")[0] for name in CASCADE]
    cascade = dict(zip(CASCADE, values[0, columns].tolist(), strict=True))
    moved = reading.shifted_to_maximum(cascade)
    out = values.copy()
    out[0, columns] = [moved[name] for name in CASCADE]
    return out
