"""Configs: merged, overridden, expanded, typed; every mistake is named with its remedy."""

import pytest
from pydantic import BaseModel

from hpcreco import config


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_extends_merges_mappings_and_replaces_the_rest(tmp_path):
    write(tmp_path, "base.yaml", "a: {x: 1, y: [1, 2]}\nb: 2\n")
    write(tmp_path, "middle.yaml", "extends: base.yaml\na: {y: [3]}\n")
    top = write(tmp_path, "top.yaml", "extends: [middle.yaml]\nc: null\na: {z: 4}\n")
    assert config.read(top) == {"a": {"x": 1, "y": [3], "z": 4}, "b": 2, "c": None}


def test_a_file_that_extends_itself_is_named(tmp_path):
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    path = write(tmp_path, "b.yaml", "extends: a.yaml\n")
    with pytest.raises(config.ConfigError, match="extends itself"):
        config.read(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3: key 'a' is defined twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "should hold keys and values"),
    ],
)
def test_text_that_is_no_config_is_refused(text, expected):
    with pytest.raises(config.ConfigError, match=expected):
        config.parse(text, "file.yaml")


def test_numbers_are_numbers():
    parsed = config.parse("a: 1e-4\nb: 1.5e3\nc: !!float 1e-6\nd: 5\ne: 1e\n", "x")
    assert parsed == {"a": 1e-4, "b": 1500.0, "c": 1e-6, "d": 5, "e": "1e"}


def test_overrides_reach_any_depth_and_are_yaml():
    raw = config.override({"a": {"b": 1, "c": 2}}, ["a.b=[1, 2]", "d.e.f=true", "a.c=null"])
    assert raw == {"a": {"b": [1, 2], "c": None}, "d": {"e": {"f": True}}}
    with pytest.raises(config.ConfigError, match=r"key\.subkey=value"):
        config.override({}, ["a.b"])


def test_variables_and_placeholders_expand_everywhere():
    raw = {
        "name": "run{number}",
        "number": 7,
        "out": "$ROOT/{name}",
        "list": [{"deep": "${ROOT}/x"}],
        "flow": "{a: 1}",
    }
    assert config.expand(raw, {"ROOT": "/r"}) == {
        "name": "run7",
        "number": 7,
        "out": "/r/run7",
        "list": [{"deep": "/r/x"}],
        "flow": "{a: 1}",
    }


def test_a_variable_that_is_not_set_is_named_with_its_key():
    with pytest.raises(config.ConfigError, match=r"data\.path: the environment variable SCRATCH is not set"):
        config.expand({"data": {"path": "$SCRATCH/x"}}, {})


def test_an_override_spares_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCH", raising=False)
    path = write(tmp_path, "a.yaml", "out: $SCRATCH/x\n")
    assert config.load(str(path), ["out=here"]) == {"out": "here"}


class Section(config.Strict):
    learning_rate: float
    momentum: float = 0.9


class Whole(config.Strict):
    section: Section
    other: int = 0


def test_unknown_keys_are_answered_with_the_nearest_one_beside_them():
    with pytest.raises(
        config.ConfigError, match=r"section\.learnin_rate: unknown key; did you mean 'learning_rate'"
    ):
        config.build(Whole, {"section": {"learning_rate": 1, "learnin_rate": 2}})


def test_every_problem_is_listed_at_once():
    with pytest.raises(config.ConfigError) as caught:
        config.build(Whole, {"section": {"learning_rate": "fast"}, "other": 1.5, "unheard": 1})
    for key in ("section.learning_rate", "other", "unheard"):
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("written", "every", "unit"),
    [
        ("2 epochs", 2, "epochs"),
        ("1 step", 1, "steps"),
        (5, 5, "epochs"),
        ({"every": 30, "unit": "seconds"}, 30, "seconds"),
    ],
)
def test_cadences_can_be_written_in_words(written, every, unit):
    cadence = config.Cadence.model_validate(written)
    assert (cadence.every, cadence.unit) == (every, unit)


def run(**keys):
    return config.build(
        config.Run, {"experiment": "x", "output_dir": "o", "settings": Section(learning_rate=1), **keys}
    )


def test_identity_ignores_what_does_not_change_the_training():
    base = run(epochs=1)
    assert base.identity() == run(epochs=9, output_dir="p", backend="ddp", keep_checkpoints=3).identity()
    assert base.identity() != run(epochs=1, seed=1).identity()
    changed = run(settings=Section(learning_rate=2)).identity()
    assert config.differences(base.identity(), changed) == ["settings.learning_rate: 1.0 -> 2.0"]


def test_a_run_ends_by_epochs_or_by_iterations():
    with pytest.raises(config.ConfigError, match="not both"):
        run(epochs=1, iterations=5)


def test_shipped_configs_are_found_by_name_and_misspellings_answered():
    assert config.find("ghost3d_tiny").name == "ghost3d_tiny.yaml"
    assert config.find("protodune/ghost3d").name == "ghost3d.yaml"
    with pytest.raises(config.ConfigError, match="did you mean 'ghost3d_tiny'"):
        config.find("ghost3d_tinny")


def test_settings_ride_along_when_a_run_is_written():
    class Own(BaseModel):
        value: int = 3

    assert run(settings=Own()).model_dump(mode="json")["settings"] == {"value": 3}
