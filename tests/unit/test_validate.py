"""`hpcreco validate`: finds each file's schema by its format and says what is wrong."""

from __future__ import annotations

import argparse
import json
import os

import h5py
import pytest

from hpcreco import experiment, shards, validate

SCHEMA = shards.Schema(
    "hpcreco/toy/points",
    1,
    (shards.Table("points", (shards.Field("value", "float32"),)),),
    (shards.Attribute("tpc", "int"),),
)
TOY = experiment.Experiment(
    "toy", "", "", "", "", schemas={"points": "schema"}, checks={"points": "further checks"}
)


def below_ten(path):
    """What the toy's schema cannot see: values stay below ten."""
    with shards.Shard(path) as shard:
        values = shard.read_events(0, shard.n_events, "points")["value"]
    return [f"{path}: points/value has {v:g}, above 10" for v in values if v > 10]


@pytest.fixture(autouse=True)
def toy_experiment(monkeypatch):
    monkeypatch.setattr(experiment, "find", lambda name: TOY if name == "toy" else pytest.fail(name))
    monkeypatch.setattr(experiment, "load", {"schema": SCHEMA, "further checks": below_ten}.__getitem__)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        with shards.ShardWriter(tmp_path / "deep" / f"{name}.h5", SCHEMA, {"tpc": 1}) as writer:
            writer.append(0, {"points": {"value": [1.0, 2.0]}})
    return tmp_path


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    validate.add_arguments(parser)
    return validate.run(parser.parse_args([str(argument) for argument in arguments]))


def test_sound_files(folder, capsys):
    assert run(folder, folder / "deep" / "a.h5") == 0  # a file named twice is looked at once
    assert "3 done" in capsys.readouterr().out


def test_every_problem_is_printed_and_the_code_is_1(folder, capsys):
    deep = folder / "deep"
    os.truncate(deep / "a.h5", 1000)
    with h5py.File(deep / "b.h5", "r+") as file:
        del file["points/value"], file.attrs["tpc"]
    (deep / "d.h5").write_text("")
    assert run(folder, deep / "e.h5", "--run-report", folder / "r.json") == 1
    out = capsys.readouterr().out
    for words in (
        "a.h5: not a readable HDF5",
        "b.h5: attribute 'tpc'",
        "d.h5: not a readable",
        "e.h5: no such file",
    ):
        assert words in out
    assert "c.h5: " not in out.replace("c.h5 done", "")
    counts = json.loads((folder / "r.json").read_text())["counts"]
    assert counts == {"done": 1, "failed": 4}


def test_a_folder_without_files_is_an_error(tmp_path):
    with pytest.raises(validate.ValidateError, match=r"no \.h5 file"):
        run(tmp_path)


def test_a_format_of_no_experiment_is_a_problem(folder, capsys):
    other = shards.Schema("hpcreco/toy/lines", 1)
    with shards.ShardWriter(folder / "x.h5", other, {}):
        pass
    assert run(folder / "x.h5") == 1
    assert "lines" in capsys.readouterr().out


def test_an_experiment_checks_what_its_schema_cannot_see(folder, capsys):
    with shards.ShardWriter(folder / "deep" / "d.h5", SCHEMA, {"tpc": 1}) as writer:
        writer.append(0, {"points": {"value": [1.0, 12.0, 30.0]}})
    assert run(folder) == 1
    out = capsys.readouterr().out
    assert "d.h5: points/value has 12, above 10" in out and "has 30, above 10" in out
    assert "3 done, 1 failed" in out
