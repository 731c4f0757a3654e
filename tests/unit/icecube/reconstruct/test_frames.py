"""The segment for the experiment's event loop, on stand-ins for its frames, trays, keys, pulses and windows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.icecube import files
from hpcreco.experiments.icecube.frames import ApplyEventGeneratorReconstruction, FrameError, classes
from hpcreco.experiments.icecube.frames.content import particle_values
from hpcreco.experiments.icecube.frames.observation import FrameReader
from hpcreco.experiments.icecube.reconstruct.events import open_events


class OMKey(NamedTuple):
    string: int
    om: int
    pmt: int = 0


class Pulse(NamedTuple):
    time: float
    charge: float


class Window(NamedTuple):
    start: float
    stop: float


class Frame(dict):
    Has = dict.__contains__

    def Put(self, key, value):  # noqa: N802
        assert key not in self
        self[key] = value


class Tray:
    """Runs its modules on every frame, as the experiment's does."""

    def __init__(self):
        self.modules = []

    def AddModule(self, module, name):  # noqa: N802
        self.modules.append((name, module))

    def run(self, frame):
        for _, module in self.modules:
            module(frame)
        return frame


@pytest.fixture(scope="module")
def event(simulated):
    """The dimmest event of a shard as a frame, its truth, and the detector."""
    path = simulated / "pulses-00000.h5"
    detector = files.of_shard(path)
    with shards.Shard(path) as source:
        number = int(np.argmin(source.rows("pulses")))
        truth = source.read(number, "event")["parameters"][0].astype(float)
    data, _ = open_events(path, [number])
    frame = Frame(Pulses={}, Saturation={}, PulsesTimeRange=Window(*data.window[0].tolist()))
    for charge, time, dom in zip(data.charge.tolist(), data.time.tolist(), data.dom.tolist(), strict=True):
        key = OMKey(dom // detector.doms_per_string + 1, dom % detector.doms_per_string + 1)
        frame["Pulses"].setdefault(key, []).append(Pulse(time, charge))
    for start, stop, dom in zip(
        *(t.tolist() for t in (data.gap_start, data.gap_stop, data.gap_dom)), strict=True
    ):
        key = OMKey(dom // detector.doms_per_string + 1, dom % detector.doms_per_string + 1)
        frame["Saturation"].setdefault(key, []).append(Window(start, stop))
    unusable = np.flatnonzero(~data.usable[0].numpy())
    frame["BadDoms"] = [
        OMKey(d // detector.doms_per_string + 1, d % detector.doms_per_string + 1) for d in unusable
    ]
    frame["Seed"] = dict(zip(("x", "y", "z", "zenith", "azimuth", "energy", "time"), truth, strict=True))
    return frame, truth, detector, data


def segment(tray, detector, **changes):
    chosen = {
        "model_dir": "truth",
        "detector": detector,
        "seed_keys": ["Seed"],
        "exclusion_keys": ["BadDoms", "Saturation"],
        "exclude_bright_doms": False,
        "make_particle": lambda values, fitted: (dict(values), fitted),
        "make_map": dict,
        "settings": {"calculate_covariance_matrix": True},
    }
    ApplyEventGeneratorReconstruction(tray, "reco", "Pulses", **{**chosen, **changes})


def test_a_frame_gets_its_fit(event):
    frame, truth, detector, _ = event
    tray = Tray()
    segment(tray, detector)
    module = tray.modules[0][1]
    found = tray.run(Frame(frame))
    particle, fitted = found["reco"]
    assert fitted
    assert np.hypot(particle["x"] - truth[0], particle["y"] - truth[1]) < 20
    numbers = found["reco_result"]
    assert numbers["loss"] <= numbers["seed_loss"]
    assert 0 < numbers["cascade_x_sigma"] < 20
    assert numbers["from_covariance_sigma"] > 0
    assert {f"cascade_{role}" for role in particle} <= set(numbers)
    assert module is not None


def test_frames_and_shards_say_the_same(event):
    """The observation made of a frame is the one that was read from the shard."""
    frame, _, detector, data = event
    made = FrameReader(detector, "Pulses", ("BadDoms", "Saturation", "Absent")).observation(frame)
    for name in ("charge", "time", "dom", "event", "window", "gap_start", "gap_stop", "gap_dom", "usable"):
        one, two = getattr(made, name), getattr(data, name)
        assert one.shape == two.shape, name
        assert (one == two).all(), name


def test_what_a_frame_lacks_is_said(event):
    frame, _, detector, _ = event
    tray = Tray()
    segment(tray, detector, seed_keys=["Monopod"])
    with pytest.raises(FrameError, match="no seed 'Monopod'"):
        tray.run(Frame(frame))
    tray = Tray()
    segment(tray, detector)
    with pytest.raises(FrameError, match="no pulses 'Pulses'"):
        tray.run(Frame())
    tray = Tray()
    segment(tray, detector, If=lambda frame: False)
    assert "reco" not in tray.run(Frame(frame))


def test_particles_of_the_experiments_own_class():
    class Vector(NamedTuple):
        x: float = 1.0
        y: float = 2.0
        z: float = 3.0
        zenith: float = 0.4
        azimuth: float = 0.5

    class Particle:
        pos = dir = Vector()
        energy, time = 6.0, 7.0

    assert list(particle_values(Particle()).values()) == [1.0, 2.0, 3.0, 0.4, 0.5, 6.0, 7.0]


def test_without_the_experiments_software_the_remedy_is_named():
    with pytest.raises(FrameError, match="give make_particle and make_map"):
        classes.particle({}, True)


def test_the_example_of_the_documentation_runs(simulated, tmp_path, monkeypatch, capsys):
    """The lines that stand in `reconstruct.model`, on an export of the truth."""
    import textwrap

    from hpcreco.experiments.icecube import components
    from hpcreco.experiments.icecube.reconstruct import model

    found = model.truth(files.of_shard(simulated / "pulses-00000.h5"))
    components.save(found.likelihood.source, tmp_path / "export" / "models_0000")
    for path in simulated.glob("*.h5"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    lines = model.__doc__.partition("::\n")[2]
    space = {}
    exec(textwrap.dedent(lines), space)
    assert "cascade_energy" in capsys.readouterr().out
    assert space["density"].shape == (1, 1, 200)
    assert (space["fit"].loss < space["fit"].seed_loss).all()
