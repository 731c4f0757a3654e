"""Distributions against closed forms, conservation of charge, and reproducibility of the simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.simulation import (
    chain,
    deposits,
    directions,
    drift,
    generator,
    ionisation,
    muons,
    showers,
    signals,
)
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.drift import DriftSettings
from hpcreco.experiments.protodune.simulation.event import Event
from hpcreco.experiments.protodune.simulation.presets import PRESETS, TINY_BOX
from hpcreco.experiments.protodune.simulation.signals import SignalSettings
from hpcreco.experiments.protodune.simulation.streams import Component, EventKey
from hpcreco.experiments.protodune.tiling.tiler import Tiler

N = 20_000
NO_CHANNELS = np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def pdsp():
    return geometry.load()


def agrees(sample, cdf):
    """Kolmogorov-Smirnov; the seeds are fixed, so a failure is a change of the code, not of luck."""
    return stats.kstest(sample, cdf).pvalue > 1e-3


def test_streams_depend_on_every_part_of_their_key_and_on_nothing_else():
    base = (7, 1, 12, 3, Component.MUONS, 0)

    def draw(seed, kind, index, event, component, part):
        return tuple(EventKey(seed, kind, index, event).stream(component, part).random(4))

    changed = [(8, *base[1:]), (7, 2, *base[2:]), (7, 1, 13, *base[3:]), (7, 1, 12, 4, *base[4:])]
    changed += [(*base[:4], Component.SOFT, 0), (*base[:5], 1)]
    drawn = {draw(*key) for key in (base, *changed)}
    assert len(drawn) == 7
    assert draw(*base) == draw(*base)


def test_zenith_angle_follows_cosine_squared():
    cosine = -directions.cosmic(np.random.default_rng(1), N)[:, 1]
    assert agrees(cosine, lambda c: np.clip(c, 0, 1) ** 3)
    azimuth = np.arctan2(*directions.cosmic(np.random.default_rng(2), N)[:, [2, 0]].T)
    assert agrees(azimuth, stats.uniform(-np.pi, 2 * np.pi).cdf)


def test_michel_and_delta_spectra():
    x = muons.michel_energies(np.random.default_rng(3), N) / muons.MICHEL_END
    assert agrees(x, lambda v: 2 * v**3 - v**4)
    delta = muons.delta_energies(np.random.default_rng(4), N)
    assert agrees(delta, lambda t: (1 - 1 / t) / (1 - 1 / 50))


def test_straggling_has_the_asked_mean_and_mode():
    dedx = ionisation.fluctuation(np.random.default_rng(5), 200_000) * 2.1
    assert dedx.mean() == pytest.approx(2.1, rel=0.01)
    counts, edges = np.histogram(dedx, bins=np.arange(1, 4, 0.1))
    assert edges[counts.argmax()] == pytest.approx(1.7, abs=0.15)
    assert dedx.max() <= 10.0


def test_recombination_gives_the_known_charge_per_mm():
    charge = ionisation.electrons(np.array([0.21]), np.array([1.0]))
    assert charge[0] == pytest.approx(6200, rel=0.01)


@pytest.mark.parametrize(
    ("particle", "formula"), [("mu", lambda r: max(2.1, 6.8 * r**-0.42)), ("p", lambda r: 17 * r**-0.42)]
)
def test_range_and_energy_are_inverse_and_integrate_the_loss(particle, formula):
    for kinetic in (5.0, 40.0, 300.0, 900.0):
        reach = ionisation.residual_range(particle, kinetic)
        assert ionisation.kinetic_energy(particle, reach) == pytest.approx(kinetic)
        integral, _ = integrate.quad(formula, 0, reach / 10, points=[0.01, 16.4], limit=400)
        assert integral == pytest.approx(kinetic, rel=1e-3)


def test_stopping_muons_deposit_their_energy_and_decay():
    event = Event()
    rng = np.random.default_rng(6)
    n, length = 400, 300.0
    start, down = np.zeros((n, 3)), np.tile([0.0, -1.0, 0.0], (n, 1))
    muons.add_muons(event, rng, start, down, np.full(n, length), np.ones(n, bool), np.zeros(n), np.zeros(n))
    muon = event.parts[0]
    assert muon.energy.sum() / n == pytest.approx(ionisation.kinetic_energy("mu", length), rel=0.02)
    last = muon.take(np.linalg.norm(muon.position, axis=1) > length - 10)
    assert last.energy.mean() > 2 * muon.energy.mean()  # the Bragg peak
    deltas = (event.parts[1].pdg == 11) & (event.parts[1].energy >= 0)
    assert deltas.all()
    n_deltas = len(np.unique(event.parts[1].track))
    assert n_deltas == pytest.approx(n * length / 100, abs=4 * np.sqrt(n * length / 100))
    michels = len(np.unique(event.parts[2].track))
    assert michels == pytest.approx(0.7 * n, abs=4 * np.sqrt(n * 0.21))


def test_multiple_scattering_grows_as_predicted():
    n, length, p = 500, 400, 500.0
    walks = deposits.of_lengths(np.zeros((n, 3)), np.tile([0.0, 0.0, 1.0], (n, 1)), np.full(n, float(length)))
    walks.kink[:] = ionisation.kink(np.full(len(walks.step), p), walks.step)
    middle, extent = deposits.walk(np.random.default_rng(7), walks)
    final = extent[walks.first[1:] - 1, 0]
    assert final.std() == pytest.approx(13.6 / p * np.sqrt(length / 140), rel=0.1)
    np.testing.assert_allclose(np.linalg.norm(extent, axis=1), 1.0)
    # steps join end to start
    np.testing.assert_allclose((middle + extent / 2)[:10], (middle - extent / 2)[1:11], atol=1e-9)


@pytest.mark.parametrize("energy", [5.0, 60.0, 1000.0])
def test_showers_deposit_their_energy_along_their_axis(energy):
    event = Event()
    axis = directions.normalised(np.array([[0.3, -0.2, 0.9]]))[0]
    for seed in range(20):
        showers.add_shower(
            event, np.random.default_rng(seed), np.zeros(3), axis, energy, 0.0, showers.ShowerShape()
        )
    total = event.deposits
    assert total.energy.sum() / 20 == pytest.approx(energy, rel=0.05)
    assert np.average(total.position @ axis, weights=total.energy) > 0
    assert [particle.kinetic_energy for particle in event.particles] == [energy] * 20


def test_segment_energies_add_up():
    for energy in (0.0, 0.05, 3.0, 800.0):
        segments = showers.segment_energies(np.random.default_rng(8), energy, 0.3, 9.0)
        assert segments.sum() == pytest.approx(energy)
        assert (segments > 0).all()


def points(pdsp, n, seed=0, tpc=1):
    """Deposits of 1000 electrons each, uniform in a TPC at the trigger time."""
    face = pdsp.face(tpc)
    place = np.random.default_rng(seed).uniform(face.r_min, face.r_max, (n, 3))
    ones = np.ones(n)
    ids = np.arange(n, dtype=np.int32)
    return deposits.Deposits(place, np.zeros((n, 3)), 0.04 * ones, 1000.0 * ones, 0 * ones, ids, ids)


def test_survival_is_exponential_in_the_drift_time(pdsp):
    local = drift.localise(points(pdsp, N), pdsp, 1)
    distance = local.deposits.position[:, 0] - pdsp.face(1).r_min[0]  # the anode of TPC 1 is at the lower x
    left = drift.survivors(local, DriftSettings(lifetime=3000.0))
    np.testing.assert_allclose(left, 1000 * np.exp(-distance / 1.565 / 3000), rtol=1e-9)


@pytest.mark.parametrize("tpc", [1, 2])
def test_every_plane_collects_the_surviving_electrons(pdsp, tpc):
    local = drift.localise(points(pdsp, N, tpc=tpc), pdsp, tpc)
    charges = drift.collect(local, pdsp.face(tpc), DriftSettings(), np.random.default_rng(9))
    expected = drift.survivors(local, DriftSettings()).sum()
    for plane in pdsp.face(tpc).planes:
        collected = charges.electrons[np.isin(charges.channel, plane.channels)].sum()
        assert collected == pytest.approx(expected, rel=1e-3)


def test_diffusion_widths(pdsp):
    n = 4000
    at = np.tile([-1.0, 3000.0, 1000.0], (n, 1))  # the far end of TPC 1's drift
    zero = np.zeros(n, np.int32)
    many = deposits.Deposits(at, 0 * at, np.ones(n), np.ones(n), np.zeros(n), zero, zero)
    local = drift.localise(many, pdsp, 1)
    charges = drift.collect(local, pdsp.face(1), DriftSettings(sub_charges=1), np.random.default_rng(10))
    plane = next(p for p in pdsp.face(1).planes if p.name == "X")
    own = np.isin(charges.channel, plane.channels)
    tick, weight = charges.tick[own], charges.electrons[own]
    spread = np.sqrt(np.average((tick - np.average(tick, weights=weight)) ** 2, weights=weight))
    expected = np.sqrt(2 * 4.0e-6 * 3586 / 1.565) * 10 / 0.7825  # cm2/us, us, ticks
    assert spread == pytest.approx(np.sqrt(expected**2 + 1 / 12), rel=0.06)


def test_charge_of_neighbouring_tpcs_stays_on_their_own_apa(pdsp):
    far = points(pdsp, 500, tpc=5)
    assert len(chain.respond(far, EventKey(1, 0, 0, 0), pdsp, 1, Settings()).samples.tick) == 0
    assert len(chain.respond(far, EventKey(1, 0, 0, 0), pdsp, 5, Settings()).seen.deposits) == 500


def test_the_other_face_of_the_apa_shares_its_induction_channels(pdsp):
    behind = points(pdsp, 2000, tpc=0)
    response = chain.respond(behind, EventKey(1, 0, 0, 0), pdsp, 1, Settings())
    assert len(response.seen.deposits) == 0
    channels = np.unique(response.charges.channel)
    face_two = next(p for p in pdsp.face(1).planes if p.name == "X")
    assert (channels < 1600).any() and not np.isin(channels, face_two.channels).any()


def quiet(**changes):
    """Signals without noise."""
    return SignalSettings(noise_induction=0.0, noise_collection=0.0, **changes)


def line(settings, ticks, electrons, channel=100):
    """Samples of one channel with charges at some ticks, as a dict tick -> value."""
    charges = drift.sum_charges(np.asarray(ticks) + channel * geometry.N_TICKS, np.asarray(electrons, float))
    collection = np.zeros(geometry.N_CHANNELS, bool)
    collection[1600:] = True
    found = signals.process(charges, collection, settings, np.random.default_rng(11), NO_CHANNELS)
    assert (found.channel == channel).all()
    return dict(zip(found.tick.tolist(), found.value.tolist(), strict=True))


def test_smoothing_keeps_the_charge():
    kernel = signals.smoothing_kernel(SignalSettings())
    assert len(kernel) == 25 and kernel.sum() == pytest.approx(1)
    found = line(quiet(run_level=0.0, seed_induction=0.0, pad=0), [500, 503, 900], [1e4, 2e4, 3e4])
    assert sum(found.values()) == pytest.approx(6e4, rel=1e-6)


def test_runs_are_kept_by_rule():
    settings = quiet()
    kernel = signals.smoothing_kernel(settings)
    peak = kernel.max()
    strong, weak = 1.01 * settings.seed_induction / peak, 0.99 * settings.seed_induction / peak
    found = line(settings, [1000, 2000], [strong, weak])
    above = np.flatnonzero(strong * kernel > settings.run_level) + 1000 - settings.half_width
    assert sorted(found) == list(range(above[0] - settings.pad, above[-1] + settings.pad + 1))
    assert min(found.values()) >= np.float32(settings.floor)
    # the collection plane has the lower seed level
    assert line(settings, [1000], [0.99 * settings.seed_induction / peak], channel=1700)


def test_a_long_run_needs_one_seed_only():
    settings = quiet()
    ticks = np.arange(1000, 1200)
    assert not line(settings, ticks, np.full(200, 1000.0))  # 1000 e per tick, below the seed of 1400
    charge = np.full(200, 1000.0)
    charge[-1] = 6000.0
    found = line(settings, ticks, charge)
    assert set(ticks) <= set(found)


def test_regions_at_the_edges_of_the_readout():
    found = line(quiet(), [0, 5999], [1e5, 1e5])
    assert {0, 5999} <= set(found) and max(found) == 5999 and min(found) == 0


def test_noise_changes_values_and_leaves_empty_channels_empty():
    noisy, silent = line(SignalSettings(), [3000], [5e4]), line(quiet(), [3000], [5e4])
    difference = np.array([noisy[t] - silent[t] for t in noisy.keys() & silent.keys()])
    assert 30 < difference.std() < 160


def test_dead_channels_are_silent_and_the_same_in_every_event(pdsp):
    settings = replace(Settings(), signals=SignalSettings(dead_fraction=0.05))
    dead = chain.dead_channels(5, pdsp, 1, settings)
    assert 60 < len(dead) < 200
    assert not np.array_equal(dead, chain.dead_channels(6, pdsp, 1, settings))
    found = chain.respond(points(pdsp, 5000), EventKey(5, 0, 1, 0), pdsp, 1, settings)
    assert not np.isin(found.samples.channel, dead).any()


def test_truth_sums_charge_and_takes_the_commonest_track(pdsp):
    place = np.repeat([[-2000.0, 1000.0, 500.0]], 5, axis=0)
    track = np.array([9, 4, 9, 4, 2], np.int32)
    five = deposits.Deposits(
        place, 0 * place, np.arange(1.0, 6), np.full(5, 10.0), np.zeros(5), track, 10 * track
    )
    truth = drift.voxelise(drift.localise(five, pdsp, 1))
    assert truth.coords.tolist() == [[int((1587 + 1.565 * 250) // 0.7825), 462, 248]]
    assert (truth.energy.tolist(), truth.electrons.tolist()) == ([15.0], [50.0])
    assert (truth.track_id.tolist(), truth.pdg.tolist()) == ([4], [40])  # 4 and 9 tie: the lower one


def test_tiny_events_stay_in_their_box(pdsp):
    settings = PRESETS["tiny"].settings
    for tpc in (1, 2):
        event = chain.simulate(EventKey(1, 0, 1, 0), "BeamCosmic", pdsp, tpc, settings)
        local = (event.truth.coords + 0.5) * geometry.VOXEL_SIZE
        assert len(local) > 100
        assert ((local > np.array(TINY_BOX.low) - 2) & (local < np.array(TINY_BOX.high) + 2)).all()
        assert {13, 11} <= set(event.truth.pdg.tolist())


def exact(settings=None):
    """Nearest-strip collection of whole steps, no diffusion, no noise, no threshold."""
    return replace(
        settings or Settings(),
        drift=DriftSettings(longitudinal=0.0, transverse=0.0, sub_charges=1),
        signals=quiet(run_level=0.0, seed_induction=0.0, seed_collection=0.0, pad=0),
    )


@pytest.mark.parametrize("kind", ["BeamCosmic", "Electron", "Mu", "Pion"])
def test_noiseless_events_are_tiled_without_loss(pdsp, kind):
    """Invariants I2 (every true cell is a candidate) and I3 (charge is conserved) of the tiling."""
    settings = exact(PRESETS["tiny"].settings) if kind == "BeamCosmic" else exact()
    event = chain.simulate(EventKey(3, generator.KINDS.index(kind), 1, 0), kind, pdsp, 1, settings)
    tiles = Tiler(pdsp.face(1)).tile(*event.samples)
    true_cells = set(map(tuple, event.truth.coords // geometry.DOWNSAMPLE))
    assert len(true_cells) > 50
    assert true_cells <= set(map(tuple, tiles.coords.tolist()))
    collected = [
        event.samples.value[np.isin(event.samples.channel, plane.channels)].sum(dtype=float)
        for plane in pdsp.face(1).planes
    ]
    np.testing.assert_allclose(tiles.features.sum(axis=0, dtype=float) + tiles.lost, collected, rtol=1e-5)


@pytest.mark.parametrize("kind", generator.KINDS)
def test_equal_keys_give_equal_events_and_other_keys_others(pdsp, kind):
    def digest(seed, event):
        sky = generator.Sky(muons=4, showers=3, soft=50)
        key = EventKey(seed, generator.KINDS.index(kind), 1, event)
        found = chain.simulate(key, kind, pdsp, 1, replace(Settings(), sky=sky))
        return b"".join(np.ascontiguousarray(c).tobytes() for c in (*found.samples, found.truth.coords))

    first = digest(1, 0)
    assert digest(2, 0) != first and digest(1, 1) != first
    assert digest(1, 0) == first


def test_all_tpcs_share_one_sky(pdsp):
    sky = generator.Sky(muons=30, showers=0, soft=0, beam=False)
    key = EventKey(1, 0, 1, 0)
    events = [chain.simulate(key, "BeamCosmic", pdsp, tpc, replace(Settings(), sky=sky)) for tpc in (1, 5)]
    known = [{p.track_id: p for p in event.particles} for event in events]
    shared = known[0].keys() & known[1].keys()
    assert shared and all(known[0][track] == known[1][track] for track in shared)
