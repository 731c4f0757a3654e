"""The users' files, read as they are; what is wrong in a config is said with its key."""

from __future__ import annotations

import pytest
from small_icecube import assignments, flags, run_of

from hpcreco import cli, config, experiment
from hpcreco.config import ConfigError
from hpcreco.experiments.icecube import aliases

USERS = {
    "cascade_7param_noise_tw_BFRv1Spice321": ("pulses", None),
    "starting_multi_cascade_7param_noise_tw_BFRv1Spice321_low_mem_n002": ("pairs", "cascade"),
    "track_equidistant_cascades_n10_w15_7param_noise_tw_BFRv1Spice321_low_mem": ("tracks", "track"),
}


@pytest.mark.parametrize("name", USERS)
def test_users_files_are_read_unchanged(name, public_data):
    raw = config.load(str(public_data / "user-configs" / f"{name}.yaml"))
    found = experiment.recognise(raw)
    assert found.name == "icecube"
    run = found.load("normalise")(raw)
    assert (run.iterations, run.steps.mode, run.steps.size) == (1_000_000, "events", 32)
    assert (run.save.every, run.save.unit, run.validate_every.every) == (500, "steps", 100)
    assert run.validation_events == 32
    assert raw["unique_name"] in str(run.output_dir)
    assert run.resume == (None if USERS[name][1] else "auto")
    assert run.settings.frozen == ()  # all parts are new, or all are loaded and train on
    assert "data_iterator_settings.training.num_jobs" in run.settings.inert
    assert [term.function for term in run.settings.losses] == [
        "unbinned_pulse_time_llh",
        "negative_binomial_charge_pdf",
    ]


@pytest.fixture(scope="module")
def cascade(simulated, tmp_path_factory):
    """An exported small cascade, of which users' multi-cascades are made."""
    folder = tmp_path_factory.mktemp("exported")
    changes = flags(assignments(simulated, folder / "run"))
    for arguments in (["icecube", "trafo"], ["train"]):
        assert cli.main([*arguments, "cascade_tiny", *changes]) == 0
    assert cli.main(["icecube", "export", "cascade_tiny", *changes, "-o", str(folder / "export")]) == 0
    return folder / "export" / "models_0000"


@pytest.mark.parametrize("name", USERS)
def test_users_files_take_a_real_step(name, public_data, simulated, cascade, tmp_path):
    data, multi = USERS[name]
    changes = {
        "output_dir": tmp_path / "run",
        "data_trafo_settings.model_dir": tmp_path / "trafo",
        "training_settings.num_training_iterations": 1,
        "data_iterator_settings.training.batch_size": 4,
        **{
            f"data_iterator_settings.{part}.input_data": simulated / data
            for part in ("training", "trafo", "validation", "test")
        },
    }
    if multi:
        changes["model_settings.multi_source_bases.noise.load_dir"] = cascade / "noise"
        inner = f"model_settings.multi_source_bases.{multi}.multi_source_bases.cascade"
        changes[f"{inner}.load_dir"] = cascade / "cascade"
    arguments = [str(public_data / "user-configs" / f"{name}.yaml")]
    arguments += flags([f"{key}={value}" for key, value in changes.items()])
    assert cli.main(["icecube", "trafo", *arguments]) == 0
    assert cli.main(["train", *arguments]) == 0
    assert (tmp_path / "run/checkpoints").is_dir()
    row = (tmp_path / "run/summaries.csv").read_text().splitlines()[1]
    assert row.count("nan") == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("training_settings.num_training_iteration=1", "did you mean 'num_training_iterations'"),
        ("model_settings.model_class=egenerator.x.IndependentSource", "did you mean .IndependentMultiSource"),
        ("model_settings.multi_source_bases.cascade.model_class=NoSuch", "known are DefaultNoiseModel"),
        ("model_settings.config.sources.cascade=cascde", "did you mean 'cascade'"),
        ("loss_module_settings=[{config: {loss_function_name: unbinned_time}}]", "unbinned_pulse_time_llh"),
        ("data_handler_settings.data_settings.time_window_mode=all", "readout or pulses"),
        ("data_handler_settings.filter_settings.constraints=[[a, b, '!', 1]]", "known are <"),
        ("reconstruction_settings.sed=x", "did you mean 'seed'"),
        ("training_settings.optimizer_settings.learning_rate={class: x}", "full_class_string"),
    ],
)
def test_what_is_wrong_is_named(change, expected):
    with pytest.raises(ConfigError, match=expected):
        run_of([change])


def test_a_step_may_be_a_cost_and_that_cut_into_parts_for_ranks():
    training = "data_iterator_settings.training"
    steps = run_of([f"{training}.cost_budget=1e5"]).steps
    assert (steps.mode, steps.size, steps.rank_size) == ("cost", 1e5, None)
    steps = run_of([f"{training}.cost_budget=1e5", f"{training}.rank_budget=2e4"]).steps
    assert (steps.mode, steps.size, steps.rank_size) == ("cost", 1e5, 2e4)
    with pytest.raises(ConfigError, match=r"training\.rank_budget: it is a rank's part"):
        run_of([f"{training}.rank_budget=2e4"])


def test_lenient_leaves_unknown_keys_out(caplog):
    assert run_of(["training_settings.num_iterations=1"], lenient=True).iterations == 600
    assert "training_settings.num_iterations: unknown key" in caplog.text


def test_included_files_are_joined_and_no_key_is_defined_twice(tmp_path):
    (tmp_path / "a.yaml").write_text("include: [b.yaml]\nx: {one: 1}\nnames: ['{who}', {deep: '{who}'}]\n")
    (tmp_path / "b.yaml").write_text("who: me\nx: {two: 2}\n")
    read = config.load(str(tmp_path / "a.yaml"))
    assert read["x"] == {"one": 1, "two": 2}
    assert read["names"] == ["me", {"deep": "me"}]
    (tmp_path / "b.yaml").write_text("x: {one: 3}\n")
    with pytest.raises(ConfigError, match=r"both define x\.one"):
        config.load(str(tmp_path / "a.yaml"))


def test_a_key_without_value_is_null_and_tags_are_read():
    raw = config.parse("{'keep_prob':, 'small': !!float 1e-6, 'list': [1, 2,],}", "text")
    assert raw == {"keep_prob": None, "small": 1e-6, "list": [1, 2]}


def test_class_names_of_the_original_are_known_by_their_last_part():
    assert aliases.source("egenerator.model.source.noise.default.DefaultNoiseModel") == "DefaultNoiseModel"
    assert aliases.source("my.package:Source") == "my.package:Source"


def test_loaded_parts_are_frozen_beside_new_ones_unless_the_config_says_otherwise():
    base = "model_settings.multi_source_bases"
    assert run_of([]).settings.frozen == ()
    assert run_of([f"{base}.noise.load_dir=x"]).settings.frozen == (("noise",),)
    assert run_of([f"{base}.noise.load_dir=x", f"{base}.noise.trainable=true"]).settings.frozen == ()
    assert run_of([f"{base}.noise.load_dir=x", f"{base}.cascade.load_dir=y"]).settings.frozen == ()
    assert run_of([f"{base}.cascade.trainable=false"]).settings.frozen == (("cascade",),)


@pytest.mark.parametrize("name", ["cascade", "starting_cascades", "track"])
def test_shipped_configs_are_read_with_a_headline(name):
    for config_name in (name, f"{name}_tiny"):
        assert config.find(config_name).read_text().startswith("# ")
        assert run_of([], config_name).experiment == "icecube"
