"""Full-size events against the bands that the original's simulation fell into (its tiling efficiency, ghosts)."""

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry, labels
from hpcreco.experiments.protodune.simulation import chain, generator
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.streams import EventKey
from hpcreco.experiments.protodune.tiling.tiler import Tiler

TRUE_ENERGY = 0.17  # MeV in a coarse cell


def measure(kind, n, seed=2024, tpc=1):
    """Mean true cells, candidates, efficiency, ghosts per true cell, occupancy, cells of each visible muon."""
    pdsp = geometry.load()
    tiler = Tiler(pdsp.face(tpc))
    true = candidates = found = samples = 0
    muons = []
    for number in range(n):
        key = EventKey(seed, generator.KINDS.index(kind), 1, number)
        event = chain.simulate(key, kind, pdsp, tpc, Settings())
        tiles = tiler.tile(*event.samples)
        fine = event.truth
        cells = labels.coarse(fine.coords, fine.energy[:, None], geometry.DOWNSAMPLE, fine.track_id, fine.pdg)
        cut = cells.values[:, 0] > TRUE_ENERGY
        missed = labels.missed(cells, tiles.coords)
        true += cut.sum()
        found += (cut & ~missed).sum()
        candidates += len(tiles.coords)
        samples += len(event.samples.tick)
        mine = cut & (np.abs(cells.pdg) == 13)
        counts = np.unique(cells.track_id[mine], return_counts=True)[1]
        muons += counts[counts >= 20].tolist()
    readout = n * geometry.N_TICKS * geometry.N_CHANNELS
    numbers = {
        "true": true / n,
        "candidates": candidates / n,
        "efficiency": found / true,
        "ghosts per true": (candidates - found) / true,
        "occupancy": samples / readout,
        "muons": len(muons) / n,
        "cells per muon": np.mean(muons) if muons else 0.0,
    }
    print(kind, {name: round(float(value), 4) for name, value in numbers.items()})
    return numbers


@pytest.mark.slow
def test_cosmic_events_fall_into_the_bands():
    numbers = measure("BeamCosmic", 8)
    assert 15 < numbers["ghosts per true"] < 26
    assert 0.90 < numbers["efficiency"] < 0.98
    assert 0.01 < numbers["occupancy"] < 0.03
    assert 300 < numbers["cells per muon"] < 480


@pytest.mark.slow
def test_electron_events_fall_into_the_bands():
    numbers = measure("Electron", 16)
    assert 25 < numbers["ghosts per true"] < 40
    assert 0.83 < numbers["efficiency"] < 0.95
    assert 600 < numbers["true"] < 850
