"""A config of IceCube that trains within a second, for tests."""

from __future__ import annotations

from pathlib import Path

from hpcreco import cli, config, experiment


def simulate(folder: Path) -> Path:
    """Write pulses/, pairs/ and tracks/ into `folder`: 48 events each in 7 strings of 4 DOMs, in files of 16."""
    for preset, name in (("tiny", "pulses"), ("tiny-pairs", "pairs"), ("tiny-tracks", "tracks")):
        arguments = [
            "--preset",
            preset,
            "-n",
            "48",
            "--per-file",
            "16",
            "--detector",
            "hex7x4",
            "--seed",
            "1",
        ]
        energy = ["--set", "hypothesis.energy=[1e3,1e4]"]
        assert cli.main(["simulate", "icecube", *arguments, *energy, "--out", str(folder / name)]) == 0
    return folder


SMALL = {"num_filters_list": [6, 10, 22], "use_residual_list": [True, True, False]}


def assignments(simulated: Path, output: Path, **more) -> list[str]:
    """What makes cascade_tiny a second's work on `simulated`."""
    changes = {
        "output_dir": output,
        "data_trafo_settings.model_dir": output.parent / "trafo",
        "data_iterator_settings.training.input_data": simulated / "pulses/pulses-0000[01].h5",
        "data_iterator_settings.training.batch_size": 4,
        "data_iterator_settings.validation.input_data": simulated / "pulses/pulses-00002.h5",
        "data_iterator_settings.test.input_data": simulated / "pulses/pulses-00002.h5",
        "training_settings.num_training_iterations": 8,
        "training_settings.validation_frequency": 4,
        "training_settings.save_frequency": 3,
        **{f"model_settings.multi_source_bases.cascade.config.{k}": v for k, v in SMALL.items()},
        **more,
    }
    return [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changes.items()
    ]


def flags(changes: list[str]) -> list[str]:
    """The same for a command line."""
    return [part for change in changes for part in ("--set", change)]


def run_of(changes: list[str], name: str = "cascade_tiny", lenient: bool = False):
    """The `Run` of a config with changes."""
    raw = config.load(name, changes)
    return experiment.recognise(raw).load("normalise")(raw, lenient)
