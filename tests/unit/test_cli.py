"""The command line: verbs, help that teaches, exit codes, errors in one line."""

import os
import subprocess
import sys

import pytest

from hpcreco import cli, experiment

VERBS = [
    "simulate protodune",
    "tile",
    "join-tpcs",
    "train",
    "infer",
    "solve",
    "protodune mask",
    "protodune merge-tpcs",
    "report",
    "display",
    "validate",
    "convert",
    "config",
    "doctor",
    "submit",
    "status",
    "legacy",
]


def hpcreco(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "hpcreco", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_verb_and_the_exit_codes(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb.split()[0]} " in text
    assert "75" in text
    assert cli.main([]) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*verb.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 8
    assert "hpcreco" in text.partition("options:")[2], "no example after the options"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "did you mean 'train'"),
        (["simulate"], "name one of icecube, protodune"),
        (["simulate", "nowhere"], "installed: icecube, protodune"),
        (["train", "no_such_config"], "neither as a file nor among the shipped ones"),
        (["protodune", "fly"], "it has: "),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, expected, capsys):
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hpcreco: error: ")
    assert expected in lines[0]


def test_a_defect_keeps_its_traceback(monkeypatch):
    module = type(
        "module", (), {"__doc__": "", "add_arguments": lambda parser: None, "run": lambda args: 1 / 0}
    )
    monkeypatch.setattr("importlib.import_module", lambda name: module)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_the_module_can_be_run():
    done = hpcreco("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("hpcreco ")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["config", "list"], 1), (["train", "--help"], 0), (["--version"], 1)]
)
def test_a_reader_that_has_seen_enough_gets_no_traceback(arguments, code):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "hpcreco", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == code


def test_a_process_without_an_output_is_one_all_the_same():
    command = ["sh", "-c", '"$0" -m hpcreco --version >&-', sys.executable]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_experiment_of_ones_own_is_found_and_a_wrong_name_explained():
    assert experiment.find("toy_two_tables:EXPERIMENT").name == "toy_two_tables"
    for name, expected in (
        ("nowhere_module:X", "no module 'nowhere_module'"),
        ("toy_two_tables:NOTHING", "has no 'NOTHING'"),
        ("toy_two_tables:write_shard", "not an Experiment"),
    ):
        with pytest.raises(experiment.ExperimentError, match=expected):
            experiment.find(name)


def test_configs_without_an_experiment_are_recognised_or_refused():
    ours = {"data": {"data_path": "x"}, "model": {"name": "cellnet_binary"}}
    assert experiment.recognise(ours).name == "protodune"
    with pytest.raises(experiment.ExperimentError, match="add `experiment:`"):
        experiment.recognise({"iotool": {}})


def test_the_experiment_of_a_run_or_a_file_is_told_from_it(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "0.yaml").write_text("experiment: toy_two_tables:EXPERIMENT\n")
    assert experiment.of_paths([tmp_path]).name == "toy_two_tables"
    with pytest.raises(experiment.ExperimentError, match="cannot tell the experiment"):
        experiment.of_paths([tmp_path / "configs"])


def test_a_file_that_is_not_there_is_named(capsys):
    assert cli.main(["display", "--event", "3", "nowhere/a_yinf.h5"]) == 2
    assert "there is no file or folder nowhere/a_yinf.h5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("batch0-reco_Mu_001_xy-TPC1.npz", "protodune"),
        ("frames-anode1.tar.bz2", "protodune"),
        ("pulses.hdf5", "icecube"),
        ("geometry.parquet", "icecube"),
    ],
)
def test_foreign_files_are_claimed_by_one_experiment(name, expected, tmp_path):
    (tmp_path / name).touch()
    assert experiment.of_paths([tmp_path / name]).name == expected
    assert experiment.of_paths([tmp_path]).name == expected, "a folder of such files"


def test_a_file_that_two_experiments_claim_needs_a_name(tmp_path, monkeypatch):
    twins = [experiment.Experiment(name, "", "", "", "", claims=lambda path: True) for name in ("one", "two")]
    monkeypatch.setattr(experiment, "installed", lambda: twins)
    (tmp_path / "x.bin").touch()
    with pytest.raises(experiment.ExperimentError, match="name yours first: one, two"):
        experiment.of_paths([tmp_path / "x.bin"])


def test_the_experiment_may_be_the_first_argument_of_a_verb_for_files(tmp_path, capsys):
    (tmp_path / "unknown.dat").touch()
    assert cli.main(["display", str(tmp_path / "unknown.dat")]) == 2
    assert "name it first" in capsys.readouterr().err
    assert cli.main(["display", "protodune", str(tmp_path / "nothing.h5")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_legacy_scripts_call_hpcreco(tmp_path, capsys):
    assert cli.main(["legacy", "install", str(tmp_path / "bin")]) == 0
    script = tmp_path / "bin" / "create_trafo_model.py"
    done = subprocess.run([script, "no_such_config"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no config 'no_such_config'" in done.stderr
    assert cli.main(["legacy", "install", str(tmp_path / "bin")]) == 2
    assert "already" in capsys.readouterr().err
    assert cli.main(["legacy", "install", str(tmp_path / "bin"), "--force"]) == 0
