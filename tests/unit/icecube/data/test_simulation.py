"""Simulated events follow the formulas they are drawn from, and depend on seed and number alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from hpcreco import shards
from hpcreco.experiments.icecube import light
from hpcreco.experiments.icecube.pulses import in_gap
from hpcreco.experiments.icecube.simulation import event, hypothesis, photons
from hpcreco.experiments.icecube.simulation.event import respond, simulate
from hpcreco.experiments.icecube.simulation.hypothesis import Drawn
from hpcreco.experiments.icecube.simulation.settings import Hypothesis, Settings
from hpcreco.experiments.icecube.simulation.streams import EventKey

CASCADE = np.array([[20.0, -30.0, 10.0, 1.1, 0.4, 2e4, 1e4]])
SIGNIFICANCE = 1e-4  # seeds are fixed: a test that passes once passes for ever


def changed(settings: Settings, **sections) -> Settings:
    raw = settings.model_dump()
    for name, values in sections.items():
        raw[name] = {**raw[name], **values} if isinstance(values, dict) else values
    return Settings.model_validate(raw)


def many(settings, array, count, cascades=CASCADE):
    drawn = Drawn(cascades[0], cascades)
    return [respond(EventKey(11, number), drawn, settings, array) for number in range(count)]


# ------------------------------------------------------------------------------------------ formulas


def test_mean_light_does_not_depend_on_the_direction():
    """The Cherenkov ring is normalised over the sphere; so is the yield around a cascade."""
    assert light.Ice().ring_norm == pytest.approx(2.51610, abs=2e-5)
    u = np.random.default_rng(0).normal(size=(20000, 3))
    shell = 30.0 * u / np.linalg.norm(u, axis=1, keepdims=True)
    ice = light.Ice(acceptance=0.0)
    for zenith in (0.3, 1.7):
        cascade = np.array([[0, 0, 0, zenith, 0.5, 1e3, 0]])
        mean = light.expected_charge(cascade, shell, np.ones(len(shell)), ice).mean()
        r = np.sqrt(30.0**2 + 1)
        assert mean == pytest.approx(0.6 * 1e3 * np.exp(-r / 50) / r, rel=0.02)


def test_more_light_comes_to_doms_above_which_look_down_on_it():
    cascade = np.array([[0, 0, 0, np.pi / 2, 0.0, 1e4, 0]])
    above, below = light.expected_charge(
        cascade, np.array([[0, 0, 40.0], [0, 0, -40.0]]), np.ones(2), light.Ice()
    )[0]
    assert above / below == pytest.approx(1.6 / 0.4, rel=0.01)


def test_light_is_linear_in_energy_and_none_for_a_negative_one(small):
    def charge(energy):
        cascade = CASCADE.copy()
        cascade[0, 5] = energy
        return light.expected_charge(cascade, small.flat_positions, small.flat_efficiency, light.Ice())

    assert np.allclose(charge(3e4), 3 * charge(1e4), rtol=1e-12)
    assert (charge(-5.0) == 0).all()


@pytest.mark.parametrize("name", ["default", "amanda"])
def test_delay_density_is_the_derivative_of_its_cdf_and_integrates_to_one(name):
    ice = light.ICES[name]
    for r in (40.0, 120.0):
        kappa = light.shape(np.float64(r), ice)
        total, _ = integrate.quad(lambda t, k=kappa: light.delay_pdf(t, k, ice), 0, np.inf)
        assert total == pytest.approx(1.0, abs=1e-6)
        t = np.linspace(5.0, 900.0, 50)
        slope = (light.delay_cdf(t + 1e-3, kappa, ice) - light.delay_cdf(t - 1e-3, kappa, ice)) / 2e-3
        assert np.allclose(slope, light.delay_pdf(t, kappa, ice), rtol=1e-5)
    assert (light.delay_pdf(np.array([-1.0, 0.0]), np.array([1.5, 1.5]), ice) == 0).all()


def test_a_particle_flies_away_from_where_it_comes_from():
    assert np.allclose(light.direction(0.0, 0.0), [0, 0, -1])  # from above
    assert np.allclose(light.direction(np.pi / 2, np.pi / 2), [0, -1, 0])


# ------------------------------------------------------------------------------------------ draws


def test_counts_are_poisson_around_the_expectation(small, plain):
    records = many(plain, small, 300)
    total = np.zeros(small.n_doms)
    for record in records:
        total += np.bincount(record.pulses.dom, minlength=small.n_doms)
    mu = light.expected_charge(CASCADE, small.flat_positions, small.flat_efficiency, plain.ice)[0] * 300
    assert total[small.flat_dead].sum() == 0
    use = (mu > 5) & ~small.flat_dead
    assert use.sum() > 30
    chi2 = ((total - mu) ** 2 / mu)[use].sum()
    assert stats.chi2.sf(chi2, use.sum()) > SIGNIFICANCE and stats.chi2.cdf(chi2, use.sum()) > SIGNIFICANCE


def test_systematics_make_counts_negative_binomial(small, plain):
    records = many(changed(plain, systematics=0.2), small, 800)
    mu = light.expected_charge(CASCADE, small.flat_positions, small.flat_efficiency, plain.ice)[0]
    dom = int(np.argmax(np.where((mu < 20) & ~small.flat_dead, mu, 0)))
    counts = np.array([(record.pulses.dom == dom).sum() for record in records])
    nb = stats.nbinom(1 / 0.2, 1 / (1 + 0.2 * mu[dom]))
    edges = nb.ppf(np.linspace(0, 1, 11)[1:-1])
    bins = np.searchsorted(edges, counts)
    wanted = np.diff(np.concatenate([[0], nb.cdf(edges), [1]])) * len(counts)
    observed = np.bincount(bins, minlength=len(wanted))
    assert stats.chisquare(observed, wanted).pvalue > SIGNIFICANCE
    assert counts.var() > 2 * mu[dom]


def test_times_follow_the_cdf(small, plain):
    records = many(plain, small, 40)
    time = np.concatenate([record.pulses.time for record in records]).astype(float)
    dom = np.concatenate([record.pulses.dom for record in records])
    r = light.distance(CASCADE, small.flat_positions, plain.ice)[0][dom]
    delay = time - CASCADE[0, 6] - r / light.SPEED_IN_ICE
    uniform = light.delay_cdf(delay, light.shape(r, plain.ice), plain.ice)
    assert len(uniform) > 5000
    assert stats.kstest(uniform, "uniform").pvalue > SIGNIFICANCE


def test_times_outside_gaps_follow_what_is_left_of_the_cdf(small, plain):
    """Saturated DOMs lose the middle of their light, whatever the times were: the rest is still distributed right."""
    settings = changed(plain, dead_time={"saturation": 100.0})
    uniform = []
    for record in many(settings, small, 150):
        r = light.distance(CASCADE, small.flat_positions, plain.ice)[0]
        kappa = light.shape(r, plain.ice)
        start = CASCADE[0, 6] + r / light.SPEED_IN_ICE
        assert len(record.gaps) and not in_gap(record.pulses.time, record.pulses.dom, record.gaps).any()
        for dom, lo, hi in zip(record.gaps.dom, record.gaps.start, record.gaps.stop, strict=True):
            cdf = light.delay_cdf(np.array([lo, hi], float) - start[dom], kappa[dom], plain.ice)
            time = record.pulses.time[record.pulses.dom == dom].astype(float)
            u = light.delay_cdf(time - start[dom], kappa[dom], plain.ice)
            uniform.append(
                (u - np.where(u > cdf[0], np.minimum(u, cdf[1]) - cdf[0], 0)) / (1 - cdf[1] + cdf[0])
            )
    uniform = np.concatenate(uniform)
    assert len(uniform) > 3000
    assert stats.kstest(uniform, "uniform").pvalue > SIGNIFICANCE


def test_noise_has_its_rate_and_is_uniform(small, plain):
    settings = changed(plain, noise=300.0)
    dark = CASCADE.copy()
    dark[0, 5] = 0.0
    records = many(settings, small, 50, dark)
    counts = sum(np.bincount(r.pulses.dom, minlength=small.n_doms) for r in records)
    mu = 50 * 300.0 * small.flat_noise_rate * 12000.0
    chi2 = ((counts - mu) ** 2 / np.maximum(mu, 1e-9))[~small.flat_dead].sum()
    assert stats.chi2.sf(chi2, (~small.flat_dead).sum()) > SIGNIFICANCE and counts[small.flat_dead].sum() == 0
    time = np.concatenate([r.pulses.time for r in records])
    assert stats.kstest((time - 5000.0) / 12000.0, "uniform").pvalue > SIGNIFICANCE


def test_single_photo_electron_charges(plain):
    photons_ = photons.Pulses(np.ones(50000), np.zeros(50000), np.zeros(50000, int))
    readout = changed(plain, readout={"charge": "spe"}).readout
    charge = photons.with_readout_errors(EventKey(1, 1).stream(3), photons_, readout).charge
    assert charge.min() > 0.2 and charge.mean() == pytest.approx(1.0, rel=0.02)
    assert charge.std() == pytest.approx(0.3, rel=0.05)


def test_grouping_keeps_charge_mean_time_and_order():
    rng = np.random.default_rng(2)
    pulses = photons.joined(
        photons.Pulses(np.ones(1330), rng.uniform(0, 100, 1330), np.repeat([3, 4, 9], [1000, 30, 300]))
    )
    found, merged_doms = photons.grouped(pulses, 200)
    assert merged_doms == 2
    assert np.bincount(found.dom)[[3, 4, 9]].tolist() == [200, 30, 200]
    for dom in (3, 4, 9):
        before, after = pulses[pulses.dom == dom], found[found.dom == dom]
        assert after.charge.sum() == before.charge.sum() and (np.diff(after.time) >= 0).all()
        assert np.average(after.time, weights=after.charge) == pytest.approx(before.time.mean(), rel=1e-6)
    assert photons.grouped(pulses, 0) == (pulses, 0)


def test_bright_doms_are_excluded_beside_the_dead_ones(small, plain):
    close = CASCADE.copy()
    close[0, :3] = small.flat_positions[34] + [1.0, 0.0, 0.0]
    bright = plain.model_copy(update={"bright": Settings().bright})
    record = many(bright, small, 1, close)[0]
    assert set(record.excluded) == {34, *np.flatnonzero(small.flat_dead)}
    assert many(plain, small, 1, close)[0].excluded.tolist() == np.flatnonzero(small.flat_dead).tolist()


# ------------------------------------------------------------------------------------------ hypotheses


def test_cascades_of_a_track_lie_at_their_spacing_inside_the_cylinder():
    settings = Hypothesis(kind="track", n_cascades=40, spacing=15.0, energy=(1e4, 1e4))
    assert hypothesis.n_equidistant(settings) == 40
    names = hypothesis.parameter_names(settings)
    assert names[:6] == (
        "track_anchor_x",
        "track_anchor_y",
        "track_anchor_z",
        "track_zenith",
        "track_azimuth",
        "track_anchor_time",
    )
    assert names[6] == "track_cascade_00000_energy" and len(names) == 46
    array = event.Detector(np.zeros((1, 1, 3)), np.ones((1, 1)), np.zeros((1, 1)), np.zeros((1, 1), bool))
    for number in range(50):
        drawn = hypothesis.draw(EventKey(3, number).stream(1), settings, array)
        position, u = drawn.cascades[:, :3], light.direction(*drawn.parameters[3:5])
        assert np.allclose(np.diff(position, axis=0), 15.0 * u)
        assert np.allclose(np.diff(drawn.cascades[:, 6]), 15.0 / light.SPEED_OF_LIGHT)
        first = position[0] - 7.5 * u
        edge = max(np.hypot(*first[:2]) / 600.0, abs(first[2]) / 500.0)
        assert edge == pytest.approx(1.0, abs=1e-9)
        shines = drawn.cascades[:, 5] > 0
        assert (np.hypot(*position[shines, :2].T) < 602).all() and (np.abs(position[shines, 2]) < 502).all()
        assert drawn.cascades[:, 5].sum() == pytest.approx(1e4)


@pytest.mark.parametrize("angles", [(0.0, 0.0), (np.pi, 1.0), (np.pi / 2, 0.3)])
def test_vertical_and_horizontal_tracks_cross_the_cylinder(angles):
    anchor = np.array([100.0, 50.0, -20.0, *angles, 0.0, 1e4])
    first, last = hypothesis.crossing(anchor, Hypothesis(kind="track"))
    assert np.isfinite([first, last]).all() and first < 0 < last
    missing = anchor + np.array([2000.0, 0, 0, 0, 0, 0, 0])
    if angles[0] in (0.0, np.pi):
        first, last = hypothesis.crossing(missing, Hypothesis(kind="track", n_cascades=10))
        assert last - first == pytest.approx(15.0 * 9)


def test_several_cascades_share_line_and_speed():
    settings = Hypothesis(kind="cascades", n_cascades=3, max_distance=200.0)
    names = hypothesis.parameter_names(settings)
    assert names[7:] == (
        "cascade_cascade_00001_energy", "cascade_cascade_00001_distance",
        "cascade_cascade_00002_energy", "cascade_cascade_00002_distance",
    )  # fmt: skip
    drawn = hypothesis.draw(
        EventKey(3, 0).stream(1), settings, event.Detector(np.ones((1, 1, 3)), *[np.ones((1, 1))] * 3)
    )
    u = light.direction(*drawn.parameters[3:5])
    for number, (energy, distance) in enumerate(drawn.parameters[7:].reshape(-1, 2), 1):
        assert np.allclose(drawn.cascades[number, :3], drawn.parameters[:3] + distance * u)
        assert drawn.cascades[number, 5] == energy
        assert drawn.cascades[number, 6] - drawn.parameters[6] == pytest.approx(
            distance / light.SPEED_OF_LIGHT
        )


def test_start_values_are_angles_and_positive_energies(small):
    settings = Hypothesis(energy=(1e3, 1e4))
    widths = Settings().smearing
    seeds, truth = [], []
    for number in range(400):
        key = EventKey(8, number)
        drawn = hypothesis.draw(key.stream(1), settings, small)
        truth.append(drawn.parameters)
        seeds.append(hypothesis.smeared(key.stream(6), drawn, settings, widths))
    seeds, truth = np.array(seeds), np.array(truth)
    assert (seeds[:, 3] >= 0).all() and (seeds[:, 3] <= np.pi).all() and (seeds[:, 4] < 2 * np.pi).all()
    assert (seeds[:, 5] > 0).all()
    assert (seeds[:, 0] - truth[:, 0]).std() == pytest.approx(10.0, rel=0.15)
    assert (seeds[:, 6] - truth[:, 6]).std() == pytest.approx(30.0, rel=0.15)


# ------------------------------------------------------------------------------------------ reproducibility


def test_an_event_depends_on_seed_and_number_alone(small):
    settings = Settings()
    one = simulate(EventKey(7, 3), settings, small)
    simulate(EventKey(7, 2), settings, small)
    again = simulate(EventKey(7, 3), settings, small)
    for table, fields in one.tables().items():
        for field, array in fields.items():
            assert np.array_equal(array, again.tables()[table][field]), (table, field)
    other = simulate(EventKey(8, 3), settings, small)
    assert not np.array_equal(one.parameters, other.parameters)


def test_noise_changes_no_photon(small, plain):
    """Parts of an event draw from streams of their own."""
    quiet, loud = (simulate(EventKey(7, 3), changed(plain, noise=n), small) for n in (0.0, 30.0))
    assert np.array_equal(quiet.parameters, loud.parameters) and len(loud.pulses) > len(quiet.pulses) > 10
    assert set(quiet.pulses.time.tolist()) <= set(loud.pulses.time.tolist())


def digests(folder):
    found = {}
    for path in sorted(folder.glob("pulses-*.h5")):
        with shards.Shard(path) as shard:
            found[path.name] = shard.digest
    return found


def contents(folder, table="pulses"):
    parts = []
    for path in sorted(folder.glob("pulses-*.h5")):
        with shards.Shard(path) as shard:
            parts += [shard.read(e, table) for e in range(shard.n_events)]
    return parts


def test_events_do_not_depend_on_how_they_are_cut_into_files(run_simulate, tmp_path):
    assert run_simulate("-n", 12, "--per-file", 12, "--seed", 4, "--out", tmp_path / "a") == 0
    assert run_simulate("-n", 12, "--per-file", 5, "--seed", 4, "--out", tmp_path / "b") == 0
    assert len(digests(tmp_path / "b")) == 3
    for one, other in zip(contents(tmp_path / "a"), contents(tmp_path / "b"), strict=True):
        assert all(np.array_equal(one[f], other[f]) for f in one)


def test_finished_files_are_kept_and_changed_options_make_them_again(run_simulate, tmp_path, capsys):
    options = ("-n", 6, "--per-file", 3, "--seed", 4, "--out", tmp_path)
    assert run_simulate(*options) == 0
    before = digests(tmp_path)
    (tmp_path / "pulses-00001.h5").unlink()
    capsys.readouterr()
    assert run_simulate(*options) == 0
    assert "1 done" in capsys.readouterr().out and digests(tmp_path) == before
    assert run_simulate(*options, "--set", "noise=2") == 0
    assert not set(digests(tmp_path).values()) & set(before.values())


def test_first_file_continues_a_sample(run_simulate, tmp_path):
    assert run_simulate("-n", 6, "--per-file", 3, "--seed", 4, "--out", tmp_path / "a") == 0
    assert (
        run_simulate("-n", 3, "--per-file", 3, "--first-file", 1, "--seed", 4, "--out", tmp_path / "b") == 0
    )
    assert digests(tmp_path / "b")["pulses-00001.h5"] == digests(tmp_path / "a")["pulses-00001.h5"]


def test_ice_goes_by_name(run_simulate, tmp_path):
    options = ("-n", 2, "--seed", 1, "--out", tmp_path)
    assert run_simulate(*options, "--set", "ice=amanda") == 0
    with shards.Shard(tmp_path / "pulses-00000.h5") as shard:
        assert shard.attributes["generator"]["ice"]["scattering_time"] == 557.0
    with pytest.raises(ValueError, match="known: default, amanda"):
        run_simulate(*options, "--set", "ice=antarctic")


def test_unknown_constants_name_the_nearest(run_simulate, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'scattering'"):
        run_simulate("--seed", 1, "--out", tmp_path, "--set", "ice.scatering=3")


@pytest.mark.mpi
def test_files_do_not_depend_on_the_ranks(mpiexec, tmp_path):
    options = ["-m", "hpcreco", "simulate", "icecube", "-n", 20, "--per-file", 4, "--seed", 9]
    for ranks, more in ((1, ()), (3, ("--schedule", "dynamic"))):
        mpiexec(ranks, [*options, *more, "--out", tmp_path / str(ranks)])
    alone = digests(tmp_path / "1")
    assert len(alone) == 5 and digests(tmp_path / "3") == alone
