"""A small detector, events in it, and sources on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.experiments.icecube import hypothesis
from hpcreco.experiments.icecube.arrays import hexagonal
from hpcreco.experiments.icecube.pulses import Gaps, merged
from hpcreco.experiments.icecube.sources.contract import Observation
from hpcreco.experiments.icecube.trafo import Transformation

CASCADE = ("x", "y", "z", "zenith", "azimuth", "energy", "time")
START, STOP = 9000.0, 13000.0

SMALL = {
    "num_filters_list": [6, 8, 10],
    "num_latent_models": 2,
    "use_residual_list": True,
}


def observation(pulses, gaps=(), n_doms=12, windows=((START, STOP),), dtype=torch.float64, excluded=()):
    """Events from rows (event, DOM, time, charge) and gaps (event, DOM, start, stop)."""
    rows = np.array(sorted(map(tuple, pulses)), float).reshape(-1, 4)
    gap = np.array(sorted(map(tuple, gaps)), float).reshape(-1, 4)
    usable = torch.ones(len(windows), n_doms, dtype=torch.bool)
    for event, dom in excluded:
        usable[event, dom] = False

    def column(table, k, kind=dtype):
        return torch.as_tensor(table[:, k], dtype=kind)

    return Observation(
        charge=column(rows, 3),
        time=column(rows, 2),
        event=column(rows, 0, torch.int64),
        dom=column(rows, 1, torch.int64),
        window=torch.tensor(windows, dtype=dtype),
        gap_start=column(gap, 2),
        gap_stop=column(gap, 3),
        gap_event=column(gap, 0, torch.int64),
        gap_dom=column(gap, 1, torch.int64),
        usable=usable,
    )


def random_events(n=2, n_doms=12, pulses=40, gaps=6, seed=0, dtype=torch.float64, inside=False):
    """n events with random pulses, none within the gaps unless `inside`."""
    rng = np.random.default_rng(seed)
    holes, rows = [], []
    for event in range(n):
        start = rng.uniform(START, STOP - 900, gaps)
        found = merged(
            Gaps(start, start + rng.uniform(50, 900, gaps), rng.integers(0, n_doms, gaps)),
            (START, STOP),
        )
        holes += [(event, d, a, b) for a, b, d in zip(found.start, found.stop, found.dom, strict=True)]
        for t, d in zip(rng.uniform(START, STOP, pulses), rng.integers(0, n_doms, pulses), strict=True):
            hit = any(h[:2] == (event, d) and h[2] <= t < h[3] for h in holes)
            if inside or not hit:
                rows.append((event, d, t, rng.uniform(0.5, 3.0)))
    return observation(rows, holes, n_doms, [(START, STOP)] * n, dtype)


def cascades(k=1, n=2, seed=0, dtype=torch.float64, requires_grad=False):
    """(k, n, 7) parameters of cascades in the middle."""
    rng = np.random.default_rng(seed)
    values = np.stack(
        [
            *rng.uniform(-60, 60, (3, k, n)),
            rng.uniform(0.3, 2.8, (k, n)),
            rng.uniform(0.2, 6.0, (k, n)),
            10 ** rng.uniform(3, 5, (k, n)),
            rng.uniform(9500, 10000, (k, n)),
        ],
        axis=-1,
    )
    return torch.tensor(values, dtype=dtype, requires_grad=requires_grad)


def standard(names=CASCADE):
    """A transformation with plausible widths."""
    log = [name.endswith("energy") for name in names]
    mean = [8.0 if flag else 1.5 if "zenith" in name else 0.0 for name, flag in zip(names, log, strict=True)]
    std = [2.0 if flag else 0.7 if "zenith" in name else 100.0 for name, flag in zip(names, log, strict=True)]
    return Transformation(tuple(names), np.array(mean), np.array(std), np.array(log))


@pytest.fixture(scope="session")
def detector():
    return hexagonal(3, 4)


@pytest.fixture(scope="session")
def make():
    """The helpers above, for tests that cannot import them from a folder without a package."""

    class Make:
        observation = staticmethod(observation)
        random_events = staticmethod(random_events)
        cascades = staticmethod(cascades)
        standard = staticmethod(standard)
        small = SMALL
        window = (START, STOP)

        @staticmethod
        def source(settings, detector, trafo=None, seed=1, dtype=torch.float64, spread=0.5):
            """The source of `model_settings`, its weights moved so that nothing is at its start value."""
            torch.manual_seed(seed)
            source = hypothesis.build(settings, detector, trafo)
            with torch.no_grad():
                for parameter in source.parameters():
                    parameter.add_(torch.randn_like(parameter) * spread / max(1, parameter.shape[0]) ** 0.5)
            return source.to(dtype)

        @staticmethod
        def cascade(detector, seed=1, dtype=torch.float64, **config):
            settings = {"model_class": "DefaultCascadeModel", "config": {**SMALL, **config}}
            return Make.source(settings, detector, standard(), seed, dtype)

        @staticmethod
        def truth(detector, dtype=torch.float64, **config):
            return hypothesis.build({"model_class": "TruthModel", "config": config}, detector)

        @staticmethod
        def both(settings, noise=None, name="cascade"):
            """`settings` of a source, with noise beside it."""
            noise = noise or {"model_class": "DefaultNoiseModel", "config": {}}
            return {
                "model_class": "IndependentMultiSource",
                "config": {"sources": {"noise": "noise", name: name}},
                "multi_source_bases": {"noise": noise, name: settings},
            }

    return Make
