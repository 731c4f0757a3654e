"""Where fits start: other reconstructions' results, the truth, or the data themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.light import SPEED_IN_ICE
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation

#: what a cascade's parameters mean, whatever the hypothesis calls them
ROLES = ("x", "y", "z", "zenith", "azimuth", "energy", "time")
PE_PER_GEV = (
    0.072  # of a contained cascade in the default detector; refined with the likelihood's own expectation
)


class SeedError(ValueError):
    """A seed lacks what the hypothesis needs."""

    exit_code = 2


def roles(names: Sequence[str], mapping: Mapping[str, str] | None = None) -> dict[str, int]:
    """Number of the parameter that plays each role: as `mapping` (I3ParticleMapping) says, or by the name's last word.

    Of several names with the same last word the shortest is meant: cascade_energy, not cascade_00001_energy.
    """
    found = {}
    for role in ROLES:
        named = (mapping or {}).get(role)
        candidates = [named] if named in names else [n for n in names if n.rpartition("_")[2] == role]
        if candidates:
            found[role] = list(names).index(min(candidates, key=len))
    return found


def from_columns(
    values: np.ndarray,
    columns: Sequence[str],
    names: Sequence[str],
    *,
    mapping: Mapping[str, str] | None = None,
    missing: float | None = None,
    missing_by_name: Mapping[str, float] | None = None,
) -> Tensor:
    """(n, p) seeds from `values` (n, q) whose `columns` are named like the parameters, or like their roles.

    A parameter without a column, and a value that is not finite, become `missing_by_name[parameter]` or `missing`;
    SeedError when there is neither.
    """
    by_number = {number: role for role, number in roles(names, mapping).items()}
    defaults = missing_by_name or {}
    seed = np.full((len(values), len(names)), np.nan)
    for number, name in enumerate(names):
        column = next((c for c in (name, by_number.get(number)) if c in columns), _inner(name, columns))
        if column is not None:
            seed[:, number] = values[:, list(columns).index(column)]
        absent = ~np.isfinite(seed[:, number])
        key = next((k for k in (name, by_number.get(number)) if k in defaults), _inner(name, defaults))
        default = missing if key is None else defaults[key]
        if absent.any() and default is None:
            raise SeedError(
                f"the seed has no {name} for {int(absent.sum())} of {len(seed)} events; its columns are "
                f"{', '.join(columns)}; give a value with seed_missing_value or seed_missing_value_dict"
            )
        seed[absent, number] = default
    return torch.from_numpy(seed)


def _inner(name: str, known: Iterable[str]) -> str | None:
    """The name that a source's own parameter has within it: cascade_00001_energy of cascade_cascade_00001_energy."""
    return next((k for k in known if k not in ROLES and name.endswith(f"_{k}")), None)


def randomised(
    seed: Tensor, space: Space, count: int, width: float, generator: torch.Generator
) -> list[Tensor]:
    """`count` copies of `seed` (n, p), their coordinates moved by normal numbers of `width`."""
    centre = space.coordinates(seed)
    made = []
    for _ in range(count):
        moved = centre + width * torch.randn(centre.shape, generator=generator, dtype=torch.float64).to(
            centre
        )
        made.append(space.parameters(moved, seed))
    return made


def from_data(
    data: Observation,
    positions: Tensor,
    names: Sequence[str],
    likelihood: Likelihood,
    *,
    expected_charge: Likelihood | None = None,
    mapping: Mapping[str, str] | None = None,
    missing_by_name: Mapping[str, float] | None = None,
) -> Tensor:
    """(n, p) seeds from the pulses alone.

    Vertex: centroid of the DOMs at `positions` (M, 3), weighted by charge. Time: when light from there must have
    started for the earliest tenth of the charge. Energy: from the whole charge, with the model's own
    `expected_charge` (parameters, data) -> (n,) PE where it is given. Direction: the best of 12 over the sky. Other
    parameters: from `missing_by_name`, else 1.
    """
    place = roles(names, mapping)
    lacking = [role for role in ROLES if role not in place]
    if lacking:
        raise SeedError(
            f"a seed from the data needs the parameter {lacking[0]}; there are {', '.join(names)}"
        )
    given = missing_by_name or {}
    defaults = [given.get(name, given.get(_inner(name, given) or "", 1.0)) for name in names]
    seed = torch.tensor(defaults, dtype=positions.dtype, device=positions.device).repeat(data.n_events, 1)
    centre, time, charge = _moments(data, positions)
    for axis, role in enumerate("xyz"):
        seed[:, place[role]] = centre[:, axis]
    seed[:, place["time"]] = time
    seed[:, place["energy"]] = (charge / PE_PER_GEV).clamp_min(10.0)
    if expected_charge is not None:
        with torch.no_grad():
            expected = expected_charge(seed, data)
        factor = (charge.clamp_min(1.0) / expected.clamp_min(1e-3)).clamp(1e-2, 1e2)
        seed[:, place["energy"]] = (seed[:, place["energy"]] * factor).clamp_min(10.0)
    return _best_direction(data, seed, (place["zenith"], place["azimuth"]), likelihood)


def _moments(data: Observation, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centroid (n, 3), start time (n,) and charge (n,) of the light on usable DOMs."""
    dtype = positions.dtype
    weight = (data.dom_charge * data.usable).to(dtype)
    charge = weight.sum(1)
    centre = (weight @ positions) / charge.clamp_min(1e-9)[:, None]
    path = (positions[data.dom] - centre[data.event]).norm(dim=1)
    start = data.time.to(dtype) - path / SPEED_IN_ICE
    share = torch.where(data.usable[data.event, data.dom], data.charge.to(dtype), 0.0)
    order = torch.argsort(start, stable=True)
    order = order[torch.argsort(data.event[order], stable=True)]
    reached = torch.cumsum(share[order], 0)
    ends = torch.cumsum(charge, 0)
    fraction = reached - (ends - charge)[data.event[order]]
    early = fraction >= 0.1 * charge[data.event[order]] - 1e-9
    time = data.window[:, 0].to(dtype).clone()  # of events without light
    value = torch.where(early, start[order], torch.inf)
    first = torch.full_like(time, torch.inf).scatter_reduce_(0, data.event[order], value, "amin")
    return centre, torch.where(torch.isfinite(first), first, time), charge


def _best_direction(data: Observation, seed: Tensor, pair: tuple[int, int], likelihood: Likelihood) -> Tensor:
    best, lowest = seed.clone(), seed.new_full((len(seed),), torch.inf)
    for zenith, azimuth in grid():
        trial = seed.clone()
        trial[:, pair[0]], trial[:, pair[1]] = zenith, azimuth
        with torch.no_grad():
            loss = torch.nan_to_num(likelihood(trial, data), nan=torch.inf)
        better = loss < lowest
        best[better], lowest[better] = trial[better], loss[better].to(lowest)
    return best


def grid() -> list[tuple[float, float]]:
    """Zenith and azimuth of the 12 pixels of HEALPix nside 1 (Gorski et al., ApJ 622, 2005)."""
    found = []
    for z, shift in ((2 / 3, 0.5), (0.0, 0.0), (-2 / 3, 0.5)):
        found += [(math.acos(z), (k + shift) * math.pi / 2) for k in range(4)]
    return found
