"""Interrupted jobs go on by themselves, lose little, and come to what an undisturbed run comes to."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from hpcreco import shards

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def of_attempts(toy, name: str) -> list[tuple[str, int]]:
    return [(attempt.outcome, attempt.from_step) for attempt in toy.attempts(name)]


def test_a_time_limit_is_survived_until_the_run_is_done(interrupted, toy):
    result = interrupted["time_limit"].result()
    attempts = toy.attempts("limited")
    assert len(attempts) >= 2
    assert {attempt.outcome for attempt in attempts[:-1]} == {"stopped"}
    assert attempts[-1].outcome == "done"
    for before, after in pairwise(attempts):
        assert after.from_step == before.step  # the signal came in time: no step was lost
    assert int(result["end"]["Restarts"]) >= 1
    toy.equals_straight("limited")
    assert re.search(r"^state +training$", result["during"], re.M), result["during"]
    assert f"job {result['job']} RUNNING".replace("job ", "") in result["during"]
    after = toy.cluster.run("hpcreco", "status", toy.folder("limited")).stdout
    assert re.search(r"^state +done$", after, re.M), after
    assert re.search(r"^steps +30 of 30$", after, re.M), after


def test_a_preempted_job_saves_and_goes_on(interrupted, toy):
    result = interrupted["preempted"].result()
    assert int(result["end"]["Restarts"]) >= 1
    first, *_, last = toy.attempts("preempted")
    assert first.outcome == "stopped"
    assert last.from_step >= first.step > 0
    toy.equals_straight("preempted")


def test_a_job_preempted_before_its_first_save_starts_afresh(interrupted, toy):
    interrupted["preempted_early"].result()
    assert of_attempts(toy, "early") == [("killed", 0), ("done", 0)]
    toy.equals_straight("early")


def test_a_killed_rank_ends_the_step_and_the_run_goes_on_from_its_last_checkpoint(interrupted, toy):
    result = interrupted["killed_rank"].result()
    first, second = toy.attempts("killed")
    assert first.outcome in ("killed", "failed")
    assert second.outcome == "done"
    assert second.from_step == 15  # killed in step 16 (5 of the first stage, 10 of the second), saved every 3
    assert len(re.findall(r"^hpcreco: .*: exit code \d+, requeueing$", result["log"], re.M)) == 1
    assert (
        "First task exited" not in result["log"]
    )  # so srun would say of ranks that waited for the dead one's peers
    toy.equals_straight("killed")


def test_a_lost_node_ends_the_step_and_the_run_goes_on_elsewhere(needs_isolation, interrupted, toy):
    result = interrupted["node_down"].result()
    assert result["lost"] not in result["end"]["NodeList"]
    attempts = toy.attempts("node")
    assert attempts[0].outcome in ("killed", "failed")
    assert attempts[-1].outcome == "done"
    assert attempts[-1].from_step >= result["saved"].order[1]
    toy.equals_straight("node")


def test_a_job_that_fails_twice_at_the_same_step_stops_with_the_reason(interrupted, toy):
    result = interrupted["failing_twice"].result()
    assert result["end"]["Restarts"] == "1"
    first, second = toy.attempts("failing")
    assert first.outcome == second.outcome == "failed"
    assert first.step == second.step
    assert "two attempts in a row" in result["log"]
    assert "a toy fault" in toy.cluster.run("hpcreco", "status", toy.folder("failing")).stdout


def test_an_array_task_is_requeued_alone(interrupted, toy):
    result = interrupted["array_task"].result()
    assert [end["Restarts"] for end in result["ends"]] == ["0", "1"]
    made = sorted((toy.cluster.folder / "xy-requeued").glob("*.h5"))
    assert len(made) == 12
    assert all(shards.validate(path) == [] for path in made)
