"""`hpcreco plan` on the toy experiment: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
import shlex

import pytest
import yaml
from toy_two_tables import write_shard

from hpcreco import attempts, cli
from hpcreco.planning import advice, history, sites
from hpcreco.planning.plan import Plan
from hpcreco.slurm.scripts import SubmitError, shipped_jobs


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A toy config on small shards; the folder of the run is tmp_path/run."""
    files = [str(write_shard(tmp_path / f"{number}.h5", 9, number)) for number in range(3)]
    run = {
        "experiment": "toy_two_tables:EXPERIMENT",
        "output_dir": str(tmp_path / "run"),
        "epochs": 4,
        "steps": {"mode": "events", "size": 8},
        "settings": {"files": files[:2], "validation": files[2:]},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(run))
    monkeypatch.chdir(tmp_path)
    return path


def plan(*words):
    return cli.main(["plan", *map(str, words)])


def test_a_plan_from_nothing(config, tmp_path, capsys):
    """Measures, predicts, recommends; the measurement can be used again, and nothing of a run is left behind."""
    assert plan(config, "--seconds", 1, "--csv", "plan.csv", "--plot", "plan.png", "-o", "m.json") == 0
    said = capsys.readouterr().out
    assert "18 events in 2 files" in said
    assert "9 events validated" in said
    assert "more than 8 ranks would be idle" in said
    line = next(line for line in said.splitlines() if line.strip().startswith("hpcreco submit train"))
    assert cli.main([*shlex.split(line)[1:], "--dry-run"]) == 0
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "plan.csv").read_text()
    assert "recursive halving" in text
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert [(row["ranks"], row["stage"]) for row in rows[:3]] == [
        ("1", s) for s in ("all", "first", "second")
    ]
    assert [int(row["ranks"]) for row in rows[::3]] == [1, 2, 4, 8, 16]
    assert float(rows[0]["efficiency"]) == 1
    # 3 steps an epoch; the first stage takes 5 steps in two of four epochs
    assert [int(row["steps"]) for row in rows[:3]] == [11, 5, 6]
    spent = [float(row["spent"]) for row in rows[:3]]
    assert spent[0] == pytest.approx(spent[1] + spent[2], rel=1e-4)
    assert not (tmp_path / "run").exists()
    capsys.readouterr()
    assert plan(config, "--measured", "m.json", "-N", 2, "--ranks-per-node", 3) == 0
    assert " 6 " in capsys.readouterr().out


def test_measuring_alone(config, tmp_path, capsys):
    assert plan(config, "--seconds", 1, "--measure", "-o", "m.json") == 0
    assert "per unit of cost" in capsys.readouterr().out
    first, second = json.loads((tmp_path / "m.json").read_text())["stages"]
    assert (first["stage"], second["stage"]) == ("first", "second")
    assert (
        second["parameters"] - first["parameters"] == 10
    )  # the links' head trains in the second stage alone
    assert sum(second["gradients"]) - sum(first["gradients"]) == 40
    assert (first["start"] > 0) > (second["start"] > 0)
    assert first["memory"]["constant"] > 1e6
    capsys.readouterr()
    assert plan(config, "--measured", "m.json", "--set", "settings.stages=1") == 2
    assert "is of the stages first, second, the config has main" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--measure"], "-o FILE"),
        (["--ranks", "2", "-N", "2"], "one of them"),
        (["--plot", "plan.doc"], "plan.doc"),
        (["--ranks", "0"], "at least 1"),
        (["--ranks-per-node", "0"], "at least 1"),
        (["--measured", "m.json"], "m.json"),
    ],
)
def test_refusals(config, flags, message, capsys):
    assert plan(config, *flags) == 2
    assert message in capsys.readouterr().err


def test_data_that_are_not_there(config, capsys):
    assert plan(config, "--set", "settings.files=[nothing.h5]") == 1
    assert "nothing.h5" in capsys.readouterr().err


def test_the_rate_of_a_run_scales_the_prediction(predictor, tmp_path):
    made = Plan((predictor([10.0] * 8, "events", 4),))
    assert history.evidence(tmp_path, made) is None
    record = attempts.Record(tmp_path / "attempts.csv", 2, {})
    record.start(0, "")
    rows = [
        ("epoch", "train_time", "valid_time", "steps", "events"),
        *[(n, 1.0, 0.1, 20, 80) for n in range(3)],
    ]
    (tmp_path / "summaries.csv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    found = history.evidence(tmp_path, made)
    assert (found.ranks, found.measured) == (2, pytest.approx(0.05))
    assert found.factor == pytest.approx(0.05 / 0.02)
    assert history.evidence(tmp_path, Plan((predictor([10.0] * 8, "events", 2),))) is None  # other steps


def test_the_most_ranks_that_are_efficient_and_fit(predictor):
    rows = [predictor([10.0] * 32, "events", 8, update=0.01).predict(ranks) for ranks in (1, 2, 4, 8)]
    assert rows[2].efficiency > 0.6 > rows[3].efficiency
    assert advice.choose(rows, 0.6, None) is rows[2]
    assert advice.choose(rows, 0.6, 0.9 * rows[-1].memory) is None
    assert advice.choose(rows, 1.1, None) is None


def test_memory_that_is_not_there_names_the_key(predictor):
    made, small = (Plan((predictor(costs, "events", len(costs)),)) for costs in ([1e7, 10.0], [1.0]))
    site = sites.read("cori", shipped_jobs())
    said = " ".join(advice.warnings(made, [made.predict(1)], advice.Nodes(site, 2)))
    assert "micro_cost" in said
    assert "micro_cost" not in " ".join(
        advice.warnings(
            small,
            [made.predict(1)],
            advice.Nodes(sites.read("local", shipped_jobs()), 1),
        )
    )


def test_sites_say_what_their_nodes_have():
    jobs = shipped_jobs()
    site = sites.read("perlmutter", jobs)
    assert (site.ranks, site.cores, site.memory, site.gpu_memory) == (4, 64, 256e9, 40e9)
    assert site.lead == 120
    assert sites.read("local", jobs).memory is None
    with pytest.raises(SubmitError, match="perlmutter"):
        sites.read("perlmuter", jobs)
