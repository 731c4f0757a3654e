"""Lines through measured points, and measurements that are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcreco.planning import measurement
from hpcreco.planning.measurement import MeasurementError


def test_a_line_is_found_again():
    costs = [100.0, 300.0, 5000.0, 2e5]
    found = measurement.line(costs, [0.02 + 3e-6 * cost for cost in costs])
    assert found.constant == pytest.approx(0.02)
    assert found.slope == pytest.approx(3e-6)
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_neither_part_is_negative():
    assert measurement.line([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]).slope == 0
    assert measurement.line([1.0, 2.0, 3.0], [1.0, 3.0, 5.0]).constant == 0


def test_one_cost_gives_a_rate_alone():
    found = measurement.line([10.0, 10.0], [2.0, 4.0])
    assert (found.constant, found.slope) == (0.0, pytest.approx(0.3))


def test_what_is_written_is_read(pure, tmp_path):
    path = tmp_path / "deep" / "measured.json"
    stages = (replace(pure, stage="first"), pure)
    measurement.write(stages, path)
    assert measurement.read(path, ["first", "main"]) == stages
    with pytest.raises(MeasurementError, match="of the stages first, main, the config has main"):
        measurement.read(path, ["main"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "hpcreco/measurement", "version": 2}'])
def test_another_file_is_refused_with_its_name(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(MeasurementError, match=r"other\.json"):
        measurement.read(path)
    with pytest.raises(MeasurementError, match="missing"):
        measurement.read(tmp_path / "missing")


def test_scaling_scales_computing_alone(pure):
    twice = pure.scaled(2.0)
    assert twice.forward_backward.at(10) == pytest.approx(2 * pure.forward_backward.at(10))
    assert twice.forward.at(10) == pytest.approx(2 * pure.forward.at(10))
    assert (twice.memory, twice.network, twice.save) == (pure.memory, pure.network, pure.save)
    assert np.isclose(twice.update, 2 * pure.update)
