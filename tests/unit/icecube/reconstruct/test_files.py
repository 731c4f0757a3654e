"""The verb over shards: what it writes, that a killed run goes on, that ranks change nothing; report and display."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.cli import main
from hpcreco.experiments.icecube.analysis import results, statistics
from hpcreco.experiments.icecube.reconstruct.files import file_name
from hpcreco.experiments.icecube.yinf import YINF


def arguments(simulated, out, *more):
    """A quick reconstruction of four events of each shard."""
    start = ["icecube", "reconstruct", "truth", "-i", str(simulated), "-o", str(out), "--events", "0:4"]
    return [*start, "--seed", "x_parameters", "--batch-size", "2", *more]


def parameters(folder):
    with shards.Shard(folder / "yinf-00000.h5", YINF) as made:
        return made.read_events(0, made.n_events, "fit")["parameters"]


@pytest.fixture(scope="module")
def made(simulated, tmp_path_factory):
    """A finished reconstruction with everything that a display can show."""
    out = tmp_path_factory.mktemp("reco")
    beyond = ("--covariance", "--scans", "--set", "llh_scans.points=11")
    assert main(arguments(simulated, out, *beyond)) == 0
    return out


def test_files_hold_every_event_in_order(simulated, made):
    assert sorted(p.name for p in made.glob("yinf*.h5")) == ["yinf-00000.h5", "yinf-00001.h5"]
    assert not list(made.glob(".*parts"))
    problems = shards.validate(made / "yinf-00000.h5", YINF)
    assert not problems
    with (
        shards.Shard(simulated / "pulses-00000.h5") as source,
        shards.Shard(made / "yinf-00000.h5", YINF) as found,
    ):
        assert list(found.event_ids) == list(source.event_ids[:4])
        assert found.attributes["input_digest"] == source.digest
        assert found.columns("fit", "parameters") == source.columns("event", "parameters")
        assert found.attributes["log"] == ["cascade_energy"]
        fit = found.read_events(0, 4, "fit")
        assert (fit["loss"] <= fit["seed_loss"]).all()
        np.testing.assert_allclose(fit["seed_loss"], fit["truth_loss"], rtol=1e-9)
        pit = found.read_events(0, 4, "pit")["truth"]
        assert (found.rows("scan") == 77).all()
        np.testing.assert_allclose(pit.sum(1), fit["charge"], rtol=1e-5)


def test_finished_files_are_skipped_and_others_made_again(simulated, made, capsys):
    beyond = ("--covariance", "--scans", "--set", "llh_scans.points=11")
    assert main(arguments(simulated, made, *beyond)) == 0
    assert "2 already finished" in capsys.readouterr().out
    assert main(arguments(simulated, made, "--dry-run")) == 0
    assert "stale" in capsys.readouterr().out


KILLED = """
import os, sys
from hpcreco.experiments.icecube.reconstruct import pipeline
original, calls = pipeline.Reconstruction.__call__, []
def dying(self, data, given):
    calls.append(1)
    if len(calls) == 2:
        os._exit(9)
    return original(self, data, given)
pipeline.Reconstruction.__call__ = dying
from hpcreco.cli import main
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_with_the_batch_that_it_was_at(simulated, made, tmp_path, monkeypatch):
    from hpcreco.experiments.icecube.reconstruct import pipeline

    one = simulated / "pulses-00000.h5"
    command = arguments(one, tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *command], capture_output=True, text=True, timeout=400
    )
    assert killed.returncode == 9, killed.stderr
    assert not list(tmp_path.glob("*.h5"))
    assert len(list(tmp_path.glob(".yinf-00000.parts/*.h5"))) == 1
    original, asked = pipeline.Reconstruction.__call__, []

    def counted(self, data, given):
        asked.append(given.numbers)
        return original(self, data, given)

    monkeypatch.setattr(pipeline.Reconstruction, "__call__", counted)
    assert main(command) == 0
    assert len(asked) == 1  # the first of two batches was not made again
    np.testing.assert_array_equal(parameters(tmp_path), parameters(made))
    assert not list(tmp_path.glob(".*parts"))


@pytest.mark.mpi
def test_two_ranks_write_what_one_writes(simulated, made, tmp_path, mpiexec):
    mpiexec(2, ["-m", "hpcreco", *arguments(simulated, tmp_path)], timeout=400)
    for name in ("yinf-00000.h5", "yinf-00001.h5"):
        with shards.Shard(tmp_path / name, YINF) as two, shards.Shard(made / name, YINF) as one:
            for field in ("parameters", "loss", "evaluations"):
                np.testing.assert_array_equal(
                    two.read_events(0, 4, "fit")[field], one.read_events(0, 4, "fit")[field]
                )


def test_wrong_wishes_are_refused_by_name(simulated, tmp_path, capsys):
    assert main(["icecube", "reconstruct", "truth", "-i", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert "nothing matches" in capsys.readouterr().err
    assert main(arguments(simulated, tmp_path, "--set", "batchsize=3")) == 2
    assert "did you mean 'batch_size'" in capsys.readouterr().err
    code = main([*arguments(simulated, tmp_path)[:7], "--events", "0:1", "--seed", "Monopod"])
    assert code == 1
    assert "no seed 'Monopod'; there are" in capsys.readouterr().err


def test_names_of_files():
    from pathlib import Path

    assert file_name(Path("pulses-00003.h5")) == "yinf-00003.h5"
    assert file_name(Path("Ernie.h5")) == "Ernie_yinf.h5"


def test_a_report_has_a_page_pictures_and_the_numbers_behind_them(made, tmp_path, capsys):
    assert main(["report", str(made), "-o", str(tmp_path / "report")]) == 0
    text = capsys.readouterr().out
    assert "all parameters, hessian" in text and "cascade_energy" in text
    written = {p.name for p in (tmp_path / "report").iterdir()}
    pictures = {p.removesuffix(".png") for p in written if p.endswith(".png")}
    assert pictures == {"resolution", "energy", "pulls", "coverage", "times", "loss"}
    assert {f"{name}.csv" for name in pictures} <= written
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert 'src="http' not in page
    with (tmp_path / "report" / "resolution.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["events"]) for row in rows[:-1]) == int(rows[-1]["events"]) == 8


def test_a_display_draws_the_event_and_what_is_known_of_it(made, tmp_path, capsys):
    assert main(["display", str(made / "yinf-00000.h5"), "-o", str(tmp_path), "--doms", "2"]) == 0
    names = {p.name for p in tmp_path.iterdir()}
    expected = {f"yinf-00000-event0-{part}.png" for part in ("array", "pulses", "doms", "scans")}
    assert names == expected | {"yinf-00000-event0.html"}
    assert main(["display", str(made / "yinf-00000.h5"), "--event", "99"]) == 2
    assert "no event 99" in capsys.readouterr().err


def test_statistics_of_results_that_are_known():
    """Normal residuals with the widths that are claimed: pulls of width 1, coverage on the diagonal."""
    rng = np.random.default_rng(0)
    n, names = 4000, ("x", "y", "z", "zenith", "azimuth", "energy", "time")
    truth = np.column_stack(
        [rng.normal(0, 50, (n, 3)), np.full(n, 1.5), np.full(n, 6.2), np.full(n, 1e4), np.zeros(n)]
    )
    sigma = np.array([2.0, 2, 3, 0.05, 0.05, 0.1, 4])
    moved = truth + sigma * rng.normal(size=(n, 7))
    moved[:, 4] %= 2 * np.pi
    moved[:, 5] = np.expm1(np.log1p(truth[:, 5]) + 0.1 * rng.normal(size=n))
    width = sigma * np.ones((n, 7))
    width[:, 5] = 0.1 * (1 + moved[:, 5])
    found = results.Results(
        names, names, ("energy",), {"parameters": moved, "seed": truth, "truth": truth, "loss": np.zeros(n)},
        {"hessian": np.einsum("ni,ij->nij", width**2, np.eye(7))},
        {"circular": np.full(n, 0.05)}, {}, {},
    )  # fmt: skip
    for row in statistics.pulls(found):
        assert row["std"] == pytest.approx(1, abs=0.05), row
        assert row["mean"] == pytest.approx(0, abs=0.08), row
    cover = statistics.coverage(found)
    for name, share in cover.found.items():
        np.testing.assert_allclose(share, cover.nominal, atol=0.03, err_msg=name)
    whole = statistics.resolutions(found)[-1]
    assert whole["ln_e_width"] == pytest.approx(0.1, rel=0.05)
    assert whole["angle_deg_68"] == pytest.approx(np.degrees(0.05 * np.sqrt(-2 * np.log(0.32))), rel=0.05)
    assert whole["angle_deg_68_seed"] == 0.0
    half = found.select(energy=(0, 2e4), radius=50.0)
    assert 0 < half.n_events < n
    with pytest.raises(results.ResultError, match="no event is left"):
        found.select(energy=(1, 2))


def test_a_tracks_error_is_across_its_line_and_a_flat_direction_has_no_pull():
    names = ("anchor_x", "anchor_y", "anchor_z", "zenith", "azimuth")
    truth = np.array([[0.0, 0, 0, 0, 0]])
    fitted = np.array([[3.0, 4, 50, 0, 0]])  # straight down, 5 m aside, the anchor 50 m along the line
    matrix = np.diag([4.0, 4.0, 1e-40, 0.01, 0.01])[None]
    fit = {"parameters": fitted, "truth": truth, "loss": np.zeros(1)}
    found = results.Results(names, names, (), fit, {"hessian": matrix}, {}, {}, {})
    assert found.vertex()[0] == pytest.approx(5.0)
    assert found.pull("anchor_x", "hessian")[0] == pytest.approx(1.5)
    assert np.isnan(found.pull("anchor_z", "hessian")[0])
