"""Packs: events put together until they cost about as much as one rank should work on, and steps of like packs.

Ranks wait for the costliest share of a step. Sizes of events spread so widely that few events per rank never even out,
however they are dealt. So an epoch is packed first, as goods into boxes: small events fill the packs of large ones, and
steps are then made of packs that cost the same. Nothing here depends on the number of ranks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from hpcreco.data.randomness import PACKS, STEPS, permutation

_BLOCK = 4096  # events packed together: they fill packs to 99 % and more, and a block takes milliseconds
_PACKS = 64  # a block has at least about so many packs, as its last one stays open
_CLASSES = (
    50  # packs within a 50th of the capacity count as equal: which of them meet in a step is left to chance
)


@dataclass(frozen=True)
class Packed:
    """An epoch in the order of its steps.

    order: int64 (n,) global event numbers. packs: int64 (n_packs,) position in `order` at which each pack ends;
    steps: int64 (n_steps,) the same of each step, which is a number of whole packs.
    """

    order: np.ndarray
    packs: np.ndarray
    steps: np.ndarray


def pack_epoch(
    costs: np.ndarray, events: np.ndarray, capacity: float, per_step: int, key: tuple[int, ...] | None
) -> Packed:
    """The events in packs of cost <= `capacity`, `per_step` of them a step; the last step may have fewer.

    costs: (n_total,) by global event number. events: (n,) event numbers in the epoch's random order, of which packs are
    made block by block. An event that costs more than the capacity is a pack alone. key: (seed, stage, epoch), which
    the order of packs of one class, and of steps, follows from; None keeps it.
    """
    mean = float(costs[events].mean()) if len(events) else 0.0
    block = max(_BLOCK, int(min(len(events), _PACKS * capacity / mean)) if mean > 0 else 0)
    packs = [
        events[start : start + block][chosen]
        for start in range(0, len(events), block)
        for chosen in best_fit(costs[events[start : start + block]], capacity)
    ]
    loads = np.array([costs[pack].sum() for pack in packs])
    classes = np.ceil(loads * (_CLASSES / capacity))
    mixed = _shuffled(len(packs), PACKS, key)
    alike = mixed[np.argsort(-classes[mixed], kind="stable")]
    full = len(alike) // per_step
    whole = alike[: full * per_step].reshape(full, per_step)[_shuffled(full, STEPS, key)]
    sequence = np.concatenate([whole.ravel(), alike[full * per_step :]])
    pack_ends = np.cumsum([len(packs[number]) for number in sequence])
    lasts = np.minimum(np.arange(per_step, len(packs) + per_step, per_step), len(packs)) - 1
    return Packed(np.concatenate([packs[number] for number in sequence]), pack_ends, pack_ends[lasts])


def best_fit(costs: np.ndarray, capacity: float) -> list[np.ndarray]:
    """Positions in `costs` of each pack: the costliest event first, each into the fullest pack that still holds it.

    Best-fit decreasing (Johnson 1974), at most 11/9 of the fewest packs possible + 1; ties go by order.
    """
    room: list[tuple[float, int]] = []  # what is left in each open pack, ascending
    packs: list[list[int]] = []
    values = costs.tolist()
    for event in np.argsort(-costs, kind="stable").tolist():
        cost = values[event]
        at = bisect_left(room, (cost, -1))
        if at < len(room):
            left, pack = room.pop(at)
            packs[pack].append(event)
        else:
            left, pack = capacity, len(packs)
            packs.append([event])
        if left > cost:
            insort(room, (left - cost, pack))
    return [np.array(pack, np.int64) for pack in packs]


def _shuffled(count: int, purpose: int, key: tuple[int, ...] | None) -> np.ndarray:
    """A random order of 0..count-1, or that order itself without a key."""
    if key is None:
        return np.arange(count)
    seed, *words = key
    return permutation(count, seed, purpose, *words)
