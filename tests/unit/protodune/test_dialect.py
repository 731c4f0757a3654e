"""The users' config dialect: what it accepts, what it refuses and how it says so, and which files it selects."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys

import pytest
import yaml

from hpcreco import config, experiment
from hpcreco.config import ConfigError
from hpcreco.experiments.protodune import files
from hpcreco.experiments.protodune.dialect import normalise
from hpcreco.experiments.protodune.dialect.keys import IGNORED, Dialect
from hpcreco.experiments.protodune.plugins import task

GHOST = {
    "trainer": "basic",
    "output_dir": "out",
    "data": {
        "name": "sparse",
        "data_path": ["a", "b"],
        "train_i": [[701, 950], [101, 840]],
        "inference_i": [[951, 1000], None],
        "tpcs": [None, [1]],
        "batch_size": 1,
        "threshold": 0.001,
    },
    "model": {"name": "cellnet_binary", "nChannels": 4, "nStrides": 2, "downsample_t": [2, 2]},
    "loss": {"name": "BCELoss"},
    "optimizer": {"name": "Adam", "lr": 0.01},
    "train": {"n_epochs": 3},
    "metrics": {"acc": "BinAccuracy"},
}

USERS = "ghost3d charge ghost_inf ghost2 ghost3d_2 ghost3d_3 ghost_downsample ghost_schedule charge_downsample".split()


def changed(**changes):
    """GHOST with dotted keys (written with __) replaced; ... removes one."""
    raw = copy.deepcopy(GHOST)
    for key, value in changes.items():
        *path, last = key.split("__")
        section = raw
        for part in path:
            section = section.setdefault(part, {})
        if value is ...:
            section.pop(last, None)
        else:
            section[last] = value
    return raw


def test_a_ghost_config_becomes_a_run():
    run = normalise(GHOST)
    sources = run.settings.sources
    assert sources.train == ((701, 950), (101, 840))
    assert sources.validation == ((951, 1000), None)
    assert sources.tpcs == (None, (1,))
    assert (run.epochs, run.steps.mode, run.store) == (3, "files", None)
    assert run.settings.reading.threshold == 0.001
    arguments = run.settings.model.arguments
    assert arguments["spatial_size"] == (1024, 1024, 512)
    assert arguments["downsample"] == (2, 2)
    assert arguments["momentum"] == 0.99


@pytest.mark.parametrize("name", USERS)
def test_the_users_own_files_load_unchanged(name, monkeypatch, public_data):
    monkeypatch.setenv("SCRATCH", "/scratch")
    raw = config.load(str(public_data / "user-configs" / f"{name}.yaml"))
    found = experiment.recognise(raw)
    assert found.name == "protodune"
    run = found.load("normalise")(raw, False)
    assert task.of(run).model(run)
    assert str(run.output_dir).startswith("/scratch/mlreco_cell/")
    assert (run.settings.sources.train is None) == ("train_i" not in raw["data"])
    assert run.settings.loss.name == raw["loss"]["name"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__treshold": 1}, "data.treshold: unknown key; did you mean 'threshold'"),
        ({"model__nChanels": 1}, "model.nChanels: unknown key; did you mean 'nChannels'"),
        ({"train__n_epoch": 1}, "train.n_epoch: unknown key; did you mean 'n_epochs'"),
        ({"outputdir": 1}, "outputdir: unknown key; did you mean 'output_dir'"),
        ({"store_inference": {"everyNepochs": 2}}, "did you mean 'everyNepoch'"),
        (
            {"data__transforms": {"noise": {"std": 1}}},
            "data.transforms.noise.std: unknown key; did you mean 'sd'",
        ),
        ({"model__name": "cellnet_binry"}, "did you mean 'cellnet_binary'"),
        ({"model__conv_kernel": 2}, "must be odd"),
        ({"trainer": "schedule_platau"}, "did you mean 'schedule_plateau'"),
        ({"data__name": "randm"}, "no dataset 'randm'"),
        ({"data__batch_size": 4}, "data.event_batch"),
        ({"data__train_i": [[1, 2]]}, "1 entries for 2 data_path entries"),
        ({"data__train_i": [1, 2]}, "expected a list of 2"),
        ({"data__train_i": [[5, 2], None]}, "expected [first, last]"),
        ({"data__tpcs": [1]}, "expected a list of 2"),
        ({"data__transforms": {"scale": [1.0]}}, "1 numbers for 2 data_path entries"),
        ({"data__train_i": ..., "data__inference_i": ...}, "names no files"),
        ({"optimizer": ...}, "optimizer: missing"),
        ({"train": {}}, "train.n_epochs: missing"),
        ({"optimizer": {"lr": 1}}, "name of a class"),
        ({"data__event_batch": 2, "data__cost_budget": 10}, "not both"),
        ({"data__rank_budget": 5}, "data.rank_budget: it is a rank's part of a step of cost_budget"),
        ({"data__cost_budget": 10, "data__rank_budget": 11}, "cannot exceed the step's cost_budget of 10"),
        ({"data__event_batch": 2, "train__lr_scaling": "linear"}, "leave it out"),
        ({"model__nInputFeatures": 1, "data__transforms": {"z_segments": [10]}}, "leaves no charge"),
        ({"train__iterations": 5}, "not both"),
        ({"output_dir": ...}, "output_dir"),
    ],
)
def test_mistakes_are_named_with_their_remedy(changes, said):
    with pytest.raises(ConfigError) as error:
        normalise(changed(**changes))
    assert said in str(error.value)
    assert error.value.exit_code == 2


def test_lenient_leaves_unknown_keys_out_and_says_so(caplog):
    raw = changed(data__treshold=1, model__colour="red", nonsense={"a": 1})
    with caplog.at_level(logging.WARNING, logger="hpcreco"):
        run = normalise(raw, lenient=True)
    assert run == normalise(GHOST)
    assert {"data.treshold", "model.colour", "nonsense"} <= {
        r.getMessage().split(":")[0] for r in caplog.records
    }


def test_lenient_still_refuses_wrong_values():
    with pytest.raises(ConfigError, match=r"train\.n_epochs"):
        normalise(changed(train__n_epochs="many", data__treshold=1), lenient=True)


def test_ignored_keys_exist_and_change_nothing_but_a_note():
    plateau = {"name": "schedule_plateau", "metric": "acc"}
    for key in IGNORED:
        section, name = key.split(".")
        if section == "trainer":
            one, other = changed(trainer=plateau), changed(trainer={**plateau, name: True})
        else:
            assert name in Dialect.model_fields[section].annotation.model_fields
            default = Dialect.model_fields[section].annotation.model_fields[name].default
            one, other = GHOST, changed(**{f"{section}__{name}": not default})
        run = normalise(other)
        assert run.model_copy(update={"notes": ()}) == normalise(one)
        assert [key in note for note in run.notes] == [True]


def test_an_inference_lists_what_only_training_reads():
    (note,) = normalise(changed(data__train_i=...)).notes
    assert note.startswith("keys without effect: trainer, optimizer, train.n_epochs (nothing is trained")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        (False, None),
        (None, None),
        (True, (1, 1, "inference")),
        ({"everyNepoch": 2, "everyNsample": 5}, (2, 5, "inference")),
        ({"everyNepoch": None, "everyNsample": 3, "outdir": "inf_pion"}, (1, 3, "inf_pion")),
    ],
)
def test_store_inference(written, stored):
    store = normalise(changed(store_inference=written)).store
    assert (store and (store.every_epochs, store.every_samples, store.outdir)) == stored


def test_one_path_takes_one_range_and_flat_tpcs():
    raw = changed(data__data_path="xy", data__train_i=[1, 9], data__inference_i=[10, 10], data__tpcs=[1, 5])
    sources = normalise(raw).settings.sources
    assert (sources.train, sources.validation, sources.tpcs) == (((1, 9),), ((10, 10),), ((1, 5),))


def test_without_train_i_nothing_is_needed_to_train():
    raw = changed(data__train_i=..., optimizer=..., train=..., loss=...)
    assert files.find(normalise(raw), "train") is None
    assert normalise(changed(data__train_i=[None, None])).settings.sources.train is None


def test_steps_by_file_events_and_cost():
    assert normalise(changed(data__event_batch=7)).steps.model_dump()["mode"] == "events"
    steps = normalise(changed(data__cost_budget=1e5, data__micro_cost=5e4)).steps
    assert (steps.mode, steps.size, steps.micro_cost, steps.rank_size) == ("cost", 1e5, 5e4, None)
    steps = normalise(changed(data__cost_budget=1e5, data__rank_budget=2e4)).steps
    assert (steps.mode, steps.size, steps.rank_size) == ("cost", 1e5, 2e4)


def test_plateau_trainer_is_a_schedule():
    trainer = {"name": "schedule_plateau", "metric": "acc", "patience": 2, "factor": 0.2}
    rates = normalise(changed(trainer=trainer)).settings.rates
    assert rates.scheduler.name == "ReduceLROnPlateau"
    assert rates.scheduler.arguments == {"mode": "max", "patience": 2, "factor": 0.2}
    assert rates.metric == "acc"


def test_identity_ignores_paths_epochs_and_backends():
    first = normalise(GHOST)
    other = normalise(
        changed(
            output_dir="elsewhere", data__data_path=["c", "d"], train__n_epochs=99, backend="ddp",
            sparse={"backend": "minkowski"}, metrics={}, data__workers=3,
        )
    )  # fmt: skip
    assert config.differences(first.identity(), other.identity()) == []
    assert config.differences(first.identity(), normalise(changed(data__threshold=2)).identity())
    assert config.differences(first.identity(), normalise(changed(model__reps=1)).identity())
    json.dumps(first.identity())


def test_recognition():
    found = experiment.find("protodune")
    assert found.recognises(GHOST)
    assert not found.recognises({"iotool": {}, "model": {"name": "full_chain"}, "trainval": {}})
    assert not found.recognises({"unique_name": "x", "training_settings": {}})


def test_reading_a_config_imports_no_torch():
    code = (
        "import sys, json; from hpcreco import experiment; "
        "e = experiment.find('protodune'); e.load('normalise')(json.loads(sys.argv[1])); e.schema('yinf'); "
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(GHOST)], check=True)


@pytest.mark.parametrize(
    "path", sorted((config.shipped_configs() / "protodune").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_configs_are_valid(path, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    raw = config.load(str(path))
    run = experiment.recognise(raw).load("normalise")(raw)
    assert yaml.safe_load(path.read_text())  # plain YAML too, for the users' own scripts
    assert run.settings.sources.validation is not None
    assert ("_inf" in path.stem) == (run.settings.sources.train is None)
    assert task.of(run).model(run)


# ------------------------------------------------------------------------------------------ files


@pytest.fixture
def folders(tmp_path):
    """Two folders of empty files: electrons without, cosmics with several TPCs."""
    for index in (1, 2, 3, 10):
        for batch in (0, 1):
            (tmp_path / "a" / f"batch{batch}-reco_singleElectron_{index:03d}_xy-TPC1.h5").parent.mkdir(
                exist_ok=True
            )
            (tmp_path / "a" / f"batch{batch}-reco_singleElectron_{index:03d}_xy-TPC1.h5").touch()
    (tmp_path / "b").mkdir()
    for tpc in ("TPC1", "TPC2", "TPC159", "TPCJ1-5-10"):
        (tmp_path / "b" / f"batch0-reco_BeamCosmic_2_xy-{tpc}.h5").touch()
    (tmp_path / "b" / "batch0-reco_BeamCosmic_2_pixel-TPC1.h5").touch()
    (tmp_path / "b" / ".batch0-reco_BeamCosmic_2_xy-TPC9.h5.part-12").touch()
    (tmp_path / "b" / "notes.h5").touch()
    (tmp_path / "b" / "tile_report.json").touch()
    return tmp_path


def find(folders, part="train", **changes):
    raw = changed(data__data_path=[str(folders / "a"), str(folders / "b")], data__train_i=[[2, 3], [0, 9]])
    raw["data"].update(changes)
    return [path.name for path in files.find(normalise(raw), part) or ()]


def test_ranges_are_inclusive_and_matched_by_position(folders):
    assert find(folders, tpcs=[None, [1]]) == [
        "batch0-reco_singleElectron_002_xy-TPC1.h5", "batch0-reco_singleElectron_003_xy-TPC1.h5",
        "batch1-reco_singleElectron_002_xy-TPC1.h5", "batch1-reco_singleElectron_003_xy-TPC1.h5",
        "batch0-reco_BeamCosmic_2_xy-TPC1.h5",
    ]  # fmt: skip


def test_null_skips_a_path_and_tpcs_filter_both_parts(folders):
    assert len(find(folders, train_i=[None, [2, 2]], tpcs=None)) == 4
    second = find(folders, "validation", inference_i=[None, [2, 2]], tpcs=[None, [2]])
    assert second == ["batch0-reco_BeamCosmic_2_xy-TPC2.h5"]
    assert find(folders, train_i=[None, [2, 2]], tpcs=[None, [1, 5, 10]]) == [
        "batch0-reco_BeamCosmic_2_xy-TPC1.h5",
        "batch0-reco_BeamCosmic_2_xy-TPCJ1-5-10.h5",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_i": [[4, 9], None]}, ["data.train_i: [4, 9]", "/a", "1-3, 10"]),
        ({"train_i": [None, [2, 2]], "tpcs": [None, [6]]}, ["data.tpcs: [6]", "/b", "TPC 2"]),
        ({"data_path": ["missing", "b"]}, ["no folder missing", "hpcreco tile"]),
    ],
)
def test_what_is_missing_is_named(folders, changes, said):
    with pytest.raises(ConfigError) as error:
        find(folders, **changes)
    assert all(text in str(error.value) for text in said), error.value


def test_an_empty_folder_and_one_of_legacy_files_are_told_apart(tmp_path):
    raw = changed(data__data_path=str(tmp_path), data__train_i=[0, 9], data__inference_i=..., data__tpcs=None)
    with pytest.raises(ConfigError, match="holds no xy shards.*hpcreco tile"):
        files.find(normalise(raw), "train")
    (tmp_path / "batch0-reco_singleElectron_1_xy-TPC1.npz").touch()
    with pytest.raises(ConfigError, match="hpcreco convert"):
        files.find(normalise(raw), "train")
