"""Parameters to coordinates and back, statistics that do not depend on who read the events."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.collective import Alone
from hpcreco.experiments.icecube import trafo as trafos
from hpcreco.experiments.icecube.trafo import Moments, TrafoError, Transformation
from hpcreco.shards import ShardError

NAMES = ("x", "energy", "time", "constant")
LOG = (False, True, False, False)


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(0)
    n = 2000
    columns = [
        rng.normal(30, 120, n),
        10 ** rng.uniform(2, 6, n),
        rng.uniform(9500, 10500, n),
        np.full(n, 7.1),
    ]
    return np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def trafo(events):
    return trafos.fit([events], NAMES, LOG)[0]


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-9)]
)
def test_inverse_undoes_transform(trafo, events, dtype, rtol, atol):
    """In float32 ln(1 + E) is known to 1e-7 of about 10, so E to 1e-6."""
    x = torch.tensor(events, dtype=dtype)
    torch.testing.assert_close(trafo.inverse(trafo.transform(x)), x, rtol=rtol, atol=atol)


def test_sample_has_mean_0_and_width_1(trafo, events):
    y = trafo.transform(torch.tensor(events)).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(y[:, :3].std(0), 1, rtol=1e-5)
    assert trafo.std[3] == 1.0
    np.testing.assert_allclose(trafo.mean[1], np.log1p(events[:, 1]).mean())


def test_jacobian_is_the_derivative(trafo, events):
    x = torch.tensor(events[:5]).requires_grad_(True)
    (slope,) = torch.autograd.grad(trafo.transform(x).sum(), x)
    torch.testing.assert_close(trafo.jacobian(x), slope)
    whole = torch.autograd.functional.jacobian(trafo.transform, x[0])
    torch.testing.assert_close(trafo.log_abs_det_jacobian(x)[0], torch.linalg.slogdet(whole).logabsdet)


def test_covariance_propagates(trafo):
    rng = np.random.default_rng(1)
    point = torch.tensor([10.0, 5e4, 10000.0, 7.0]).double()
    root = 0.01 * rng.standard_normal((4, 4))
    covariance = torch.tensor(root @ root.T)
    y = trafo.transform(point) + torch.tensor(rng.standard_normal((200_000, 4)) @ root.T)
    x = trafo.inverse(y).numpy()
    scale = x.std(0)
    np.testing.assert_allclose(
        np.cov(x.T) / np.outer(scale, scale),
        trafo.covariance(covariance, point).numpy() / np.outer(scale, scale),
        atol=0.02,
    )
    x[:, 1] = np.log1p(x[:, 1])
    scale = x.std(0)
    in_log = trafo.covariance(covariance, point, log_units=True)
    np.testing.assert_allclose(
        np.cov(x.T) / np.outer(scale, scale), in_log.numpy() / np.outer(scale, scale), atol=0.02
    )


class Ranks(Alone):
    """A collective that already knows what the other ranks will give."""

    def __init__(self, moments):
        self.moments = moments

    def gather(self, obj, root=0):
        return [(m.count, m.skipped, m.mean, m.m2) for m in self.moments]


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_statistics_do_not_depend_on_ranks_or_batches(trafo, events, ranks):
    everyone = [Moments(LOG, NAMES) for _ in range(ranks)]
    for number, batch in enumerate(np.array_split(events, 31)):
        everyone[number % ranks].add(batch)
    everyone.append(Moments(LOG, NAMES))  # a rank that got nothing
    found = everyone[0].combined(Ranks(everyone)).transformation()
    np.testing.assert_allclose(found.mean, trafo.mean, rtol=1e-12)
    np.testing.assert_allclose(found.std, trafo.std, rtol=1e-12)


def test_events_that_are_not_finite_are_counted_not_used(events):
    broken = events.copy()
    broken[3, 0], broken[8, 2] = np.nan, np.inf
    found, moments = trafos.fit([broken], NAMES, LOG)
    assert (moments.skipped, moments.count) == (2, 1998) and np.isfinite(found.mean).all()


def test_logarithms_of_minus_one_name_the_parameter(trafo, events):
    with pytest.raises(TrafoError, match="energy is -1 or less"):
        trafo.transform(torch.tensor([[0.0, -1.0, 0.0, 0.0]]))
    bad = events.copy()
    bad[0, 1] = -3.0
    with pytest.raises(TrafoError, match="energy"):
        Moments(LOG, NAMES).add(bad)
    assert torch.isfinite(trafo.inverse(torch.full((4,), 1e6))).all()


def test_nothing_to_average_is_an_error():
    with pytest.raises(TrafoError, match="no event"):
        Moments(LOG, NAMES).transformation()


def test_artefact(trafo, tmp_path):
    trafos.write(tmp_path / trafos.FILE, trafo, n_events=2000)
    found = trafos.read(tmp_path)
    assert found.names == trafo.names and found.epsilon == trafo.epsilon
    for name in ("mean", "std", "log"):
        np.testing.assert_array_equal(getattr(found, name), getattr(trafo, name))
    with pytest.raises(TrafoError, match="icecube trafo"):
        trafos.read(tmp_path / "elsewhere")
    (tmp_path / "text").write_text("x")
    with pytest.raises(ShardError):
        trafos.read(tmp_path / "text")


def test_select_renames(trafo):
    part = trafo.select(["energy", "x"], ["E", "east"])
    assert (
        part.names == ("E", "east") and part.log.tolist() == [True, False] and part.mean[1] == trafo.mean[0]
    )
    with pytest.raises(TrafoError, match="zenith"):
        trafo.select(["zenith"])


def test_identity():
    x = torch.randn(3, 2)
    torch.testing.assert_close(Transformation.identity(["a", "b"]).transform(x), x)
