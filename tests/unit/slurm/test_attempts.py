"""Attempts on disk, and the decision about another try as a property over histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcreco import attempts
from hpcreco.attempts import Attempt, decide


def attempt(restart, from_step, outcome="killed", step=None, reason=""):
    return Attempt(
        "7", restart, 5, 0.0, from_step, outcome, None, from_step if step is None else step, reason
    )


def environment(job="7", restart="0", **more):
    return {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": restart, **more}


def test_rows_come_back_as_attempts(tmp_path):
    path = tmp_path / "run" / "attempts.csv"
    first = attempts.Record(path, 5, environment())
    first.start(0)
    first.end("stopped", 12, "USR2")
    attempts.Record(path, 4, environment(restart="1")).start(12)
    third = attempts.Record(path, 4, environment(restart="2"))
    third.start(20)
    third.end("failed", 21, "RuntimeError: two\nlines\tand a tab")
    read = attempts.read(path)
    assert [(a.outcome, a.from_step, a.step, a.restart, a.ranks) for a in read] == [
        ("stopped", 0, 12, 0, 5),
        ("killed", 12, 12, 1, 4),
        ("failed", 20, 21, 2, 4),
    ]
    assert read[2].reason == "RuntimeError: two lines and a tab"
    assert path.read_text().splitlines()[0].split("\t") == list(attempts.COLUMNS)


def test_a_torn_last_row_and_a_missing_file_are_no_attempts(tmp_path):
    path = tmp_path / "attempts.csv"
    assert attempts.read(path) == []
    attempts.Record(path, 1, environment()).start(3)
    with open(path, "a") as stream:
        stream.write("2026-01-01T00:00:00+0000\tdone\t7")
    assert [a.outcome for a in attempts.read(path)] == ["killed"]


def test_an_array_task_is_a_job_of_its_own():
    array = environment("12", SLURM_ARRAY_JOB_ID="10", SLURM_ARRAY_TASK_ID="2")
    assert attempts.job_of(array) == ("10_2", 0)
    assert attempts.job_of({}) == ("", 0)


@pytest.mark.parametrize(
    ("code", "history", "requeue", "says"),
    [
        (0, [attempt(0, 0, "done", 9)], False, "done"),
        (75, [attempt(0, 0, "stopped", 4, "SIGUSR2")], True, "SIGUSR2 at step 4"),
        (137, [attempt(0, 0)], True, "killed"),
        (1, [attempt(0, 0, "failed", 5, "ValueError: x")], True, "failed at step 5"),
        (
            1,
            [attempt(0, 0, "failed", 5), attempt(1, 3, "failed", 5, "ValueError: x")],
            False,
            "ValueError: x",
        ),
        (1, [attempt(0, 0, "failed", 5), attempt(1, 3, "failed", 8)], True, "failed at step 8"),
        (137, [attempt(0, 0), attempt(1, 6)], True, "killed"),  # the first had saved step 6
        (137, [attempt(0, 0), attempt(1, 6), attempt(2, 6)], False, "two attempts in a row"),
        (137, [attempt(0, 0), attempt(1, 0, "stopped", 3), attempt(2, 3)], True, "killed"),
        (2, [], False, "usage"),
        (1, [], False, "refused to begin"),
        (143, [], True, "before it began"),
        (1, [attempt(0, 0, "done", 9)], False, "done"),
        (75, [attempt(r, 4, "stopped") for r in range(3)], False, "more time"),
        (75, [attempt(r, 4, "stopped") for r in range(2)], True, "going on"),
    ],
)
def test_training(code, history, requeue, says):
    decision = decide(code, history, max((a.restart for a in history), default=0))
    assert (decision.requeue, says in decision.reason) == (requeue, True), decision


def test_what_was_saved_decides_where_it_is_known():
    """Both died with the same checkpoint as the newest: nothing was gained. A new one since, and it goes on."""
    lost = [attempt(0, 0), attempt(1, 6)]
    assert not decide(143, lost, 1, gained=False).requeue
    assert decide(143, lost, 1, gained=True).requeue
    assert decide(143, [attempt(0, 0), attempt(1, 0)], 1, gained=True).requeue
    assert decide(143, [attempt(0, 0, "stopped", 6), attempt(1, 6)], 1, gained=False).requeue
    failing = [attempt(0, 0, "failed", 8), attempt(1, 6, "failed", 8)]
    assert not decide(1, failing, 1, gained=True).requeue


def test_attempts_lost_before_they_began_count():
    """A restart without a row, twice in a row, is not tried a third time."""
    assert decide(143, [], 0).requeue
    assert not decide(143, [], 1).requeue
    assert not decide(143, [attempt(0, 0)], 1).requeue
    assert decide(140, [], 1).requeue  # preempted in its start, which says nothing of the job
    assert not decide(140, [], 2).requeue
    assert decide(143, [attempt(0, 0, "stopped", 5)], 1).requeue


@pytest.mark.parametrize(
    ("code", "history", "requeue"),
    [
        (75, [attempt(0, 0, "stopped", 3)], True),
        (1, [attempt(0, 0, "failed", 3, "2 files failed")], False),
        (137, [attempt(0, 0)], True),
        (137, [attempt(0, 0), attempt(1, 4)], True),  # four new files in between
        (137, [attempt(0, 4), attempt(1, 4)], False),
    ],
)
def test_file_wise_verbs(code, history, requeue):
    assert decide(code, history, history[-1].restart, by_file=True).requeue is requeue


histories = st.lists(
    st.tuples(
        st.sampled_from(["stopped", "failed", "killed", "absent"]), st.integers(0, 1), st.integers(0, 1)
    ),
    min_size=1,
    max_size=12,
)


@given(histories, st.booleans(), st.booleans())
def test_no_history_loops_without_progress(steps, by_file, known):
    """Play a job's life: as long as it is requeued, it goes on. Three attempts from one saved step are the most."""
    saved, life = 0, []
    starts = []
    for restart, (outcome, gained, more) in enumerate(steps):
        starts.append(saved)
        if outcome != "absent":
            reached = saved + gained + (more if outcome == "failed" else 0)
            life.append(attempt(restart, saved, outcome, saved if outcome == "killed" else reached))
            saved += gained
        code = {"stopped": 75, "failed": 1}.get(outcome, 137)
        of_now = known and outcome != "absent"
        decision = decide(code, life, restart, by_file=by_file, gained=bool(gained) if of_now else None)
        assert decision.reason
        if outcome == "stopped" and gained:
            assert decision.requeue
        if not decision.requeue:
            break
    longest = max(starts.count(step) for step in starts)
    assert longest <= attempts.FRUITLESS


@given(histories)
def test_the_decision_depends_on_the_last_attempts_alone(steps):
    """What a job went through before it last gained a step neither saves nor dooms it."""
    life = [
        attempt(n, 10 * n + a, outcome, 10 * n + a + (b if outcome != "killed" else 0))
        for n, (outcome, a, b) in enumerate(steps)
        if outcome != "absent"
    ]
    last = len(steps) - 1
    recent = [a for a in life if a.restart > last - attempts.FRUITLESS]
    assert decide(137, life, last) == decide(137, recent, last)
