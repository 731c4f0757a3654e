"""`hpcreco validate` finds each defect that the schema of a pulses shard cannot see."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.icecube import checks, detector
from hpcreco.experiments.icecube.pulses import PULSES, numbers, quantiles


def pulses(dom=(1, 1, 5), time=(10.0, 30.0, 20.0), charge=(1.0, 1.0, 2.0), number=None, quantile=None):
    dom = np.array(dom, np.int32)
    charge = np.array(charge)
    return {
        "charge": charge,
        "time": np.array(time),
        "dom": dom,
        "number": numbers(dom) if number is None else np.array(number, np.int32),
        "quantile": quantiles(charge, dom) if quantile is None else np.array(quantile),
    }


def gaps(start=(15.0, 40.0), stop=(20.0, 50.0), dom=(1, 1)):
    return {"start": np.array(start), "stop": np.array(stop), "dom": np.array(dom, np.int32)}


def event(window=(0.0, 100.0), ids=(0, 0, 0, 0)):
    return {"parameters": np.zeros(7), "window": np.array(window), "weight": 1.0, "ids": np.array(ids)}


@pytest.fixture
def write(tmp_path, small):
    """Writes one good event and the event given, in a sound file: only its content is wrong."""

    def written(shape=(7, 10), beside=True, **tables):
        good = {
            "pulses": pulses(),
            "gaps": gaps(),
            "excluded": {"dom": np.array([3, 9], np.int32)},
            "event": event(),
        }
        attributes = {
            "detector_sha256": small.sha256, "detector_shape": shape, "detector": "", "generator": {},
        }  # fmt: skip
        path = tmp_path / "pulses-0.h5"
        with shards.ShardWriter(path, PULSES, attributes) as writer:
            writer.append(0, good)
            writer.append(1, {**good, "event": event(ids=(0, 1, 0, 0)), **tables})
        if beside:
            detector.write(small, tmp_path)
        assert shards.validate(path, PULSES) == []
        return path

    return written


def test_a_good_file_has_no_problem(write):
    assert checks.problems(write()) == []


def test_simulated_files_have_none(sample):
    for path in sorted(sample.glob("pulses-*.h5")):
        assert checks.problems(path) == []


DEFECTS = {
    "not sorted by DOM and time": {"pulses": pulses(dom=(5, 1, 1), number=(0, 0, 1))},
    "not sorted by DOM": {"pulses": pulses(time=(30.0, 10.0, 20.0))},
    "outside the readout window": {"pulses": pulses(time=(10.0, 30.0, 100.5))},
    "charge is not above 0": {"pulses": pulses(charge=(1.0, 1.0, 0.0))},
    "pulses/dom is not in 0..69": {"pulses": pulses(dom=(1, 1, 70))},
    "does not count": {"pulses": pulses(number=(0, 0, 0))},
    "fraction of the DOM's charge": {"pulses": pulses(quantile=(0.5, 0.9, 1.0))},
    "pulses lie in a gap": {"pulses": pulses(time=(10.0, 15.0, 20.0))},
    "not behind gaps/start": {"gaps": gaps(start=(15.0, 40.0), stop=(15.0, 50.0))},
    "gaps of one DOM overlap": {"gaps": gaps(start=(15.0, 19.0), stop=(20.0, 29.0))},
    "gaps are not sorted": {"gaps": gaps(dom=(2, 1))},
    "beyond the readout window": {"gaps": gaps(start=(15.0, 90.0), stop=(20.0, 101.0))},
    "gaps/dom is not in": {"gaps": gaps(dom=(-1, 1))},
    "excluded/dom does not rise": {"excluded": {"dom": np.array([9, 9], np.int32)}},
    "excluded/dom is not in": {"excluded": {"dom": np.array([9, 80], np.int32)}},
    "does not start before it stops": {
        "event": event(window=(100.0, 100.0), ids=(0, 1, 0, 0)),
        "pulses": {name: array[:0] for name, array in pulses().items()},
        "gaps": gaps((), (), ()),
    },
    "the same run, event": {"event": event()},
}


@pytest.mark.parametrize("words", DEFECTS)
def test_every_defect_is_found_alone(write, words):
    found = checks.problems(write(**DEFECTS[words]))
    assert any(words in problem for problem in found), found
    assert len(found) == 1 and ("event 1" in found[0] or "the same run" in words)


def test_the_detector_belongs_to_the_file(write):
    assert "not beside it" in checks.problems(write(beside=False))[0]
    assert "detector_shape" in checks.problems(write(shape=(10, 7)))[0]


def test_a_detector_that_is_not_what_its_digest_says(tmp_path, small):
    path = detector.write(small, tmp_path)
    assert checks.detector_problems(path) == []
    arrays = {name: getattr(small, name) for name in ("positions", "efficiency", "noise_rate", "dead")}
    arrays["noise_rate"] = 2 * arrays["noise_rate"]
    shards.write_artefact(path, detector.DETECTOR, {"sha256": small.sha256, "name": ""}, arrays)
    assert "were changed" in checks.detector_problems(path)[0]
