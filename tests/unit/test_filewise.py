"""File-wise jobs in one process: splits, what is redone, failures, stops. Real ranks are in tests/parallel."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcreco import filewise, shards
from hpcreco.collective import Alone
from hpcreco.filewise.running import _part_of_array
from hpcreco.filewise.signals import Stopped, StopSignals
from hpcreco.filewise.splitting import split

numbers = st.integers(0, 60)
parts = st.integers(1, 25)


@given(numbers, parts)
def test_contiguous_blocks(n, parts):
    blocks = filewise.contiguous(n, parts)
    assert [number for block in blocks for number in block] == list(range(n))
    lengths = [len(block) for block in blocks]
    assert lengths == sorted(lengths)  # the remainder goes to the last
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) == n // parts


def test_the_users_own_example():
    assert [len(block) for block in filewise.contiguous(8, 3)] == [2, 3, 3]


@given(st.lists(st.integers(0, 1000), max_size=40), parts)
def test_by_size_is_complete_disjoint_and_balanced(sizes, parts):
    shares = filewise.by_size(sizes, parts)
    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))
    loads = [sum(max(1, sizes[number]) for number in share) for share in shares]
    largest = max((max(1, size) for size in sizes), default=0)
    assert (
        max(loads) <= sum(loads) / parts + largest
    )  # whoever got the last file had no more than the mean before
    if len(sizes) >= parts:
        assert all(shares)


@given(
    sizes=st.lists(st.integers(0, 1000), max_size=40),
    tasks=st.integers(1, 7),
    ranks=st.integers(1, 5),
    schedule=st.sampled_from(filewise.SCHEDULES),
)
def test_array_tasks_share_the_whole_list(sizes, tasks, ranks, schedule):
    """What a task does depends on the list alone: tasks start at different times and see different outputs."""
    jobs = [filewise.Job(str(number), (), (), size=size) for number, size in enumerate(sizes)]
    mine = [_part_of_array(jobs, schedule, task, tasks, ranks) for task in range(tasks)]
    assert sorted(number for part in mine for number in part) == list(range(len(sizes)))
    workers = split(sizes, tasks * ranks, schedule)
    for task, part in enumerate(mine):
        assert part == sorted(
            number for share in workers[task * ranks : (task + 1) * ranks] for number in share
        )


class Files:
    """Jobs that write their key into a file of their own."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self.jobs = [filewise.Job(f"f{k}", (), (folder / f"f{k}.txt",), f"v{k}", 10 * k) for k in range(n)]
        self.worked: list[str] = []

    def work(self, job: filewise.Job) -> dict:
        self.worked.append(job.key)
        with shards.atomic(job.outputs[0]) as temporary:
            temporary.write_text(job.fingerprint)
        return {"written": len(job.fingerprint)}

    @staticmethod
    def finished(job: filewise.Job) -> str | None:
        if not job.outputs[0].exists():
            return "missing"
        found = job.outputs[0].read_text()
        if found == "?":
            raise OSError("unreadable")
        return None if found == job.fingerprint else f"stale: made with {found}"

    def run(self, work=None, **options) -> int:
        return filewise.run(
            self.jobs,
            work or self.work,
            finished=self.finished,
            title="toy",
            report=self.report,
            collective=Alone(),
            **options,
        )

    def reported(self) -> dict:
        return json.loads(self.report.read_text())

    def statuses(self) -> dict[str, str]:
        return {record["key"]: record["status"] for record in self.reported()["jobs"]}


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path, 6)


@pytest.fixture(autouse=True)
def handlers():
    """A stopped run keeps its signal handlers until the process ends; these tests go on."""
    previous = {number: signal.getsignal(number) for number in (2, 10, 12, 15)}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("schedule", filewise.SCHEDULES)
def test_only_what_is_missing_stale_or_broken_is_done(files, schedule):
    assert files.run(schedule=schedule) == 0
    assert sorted(files.worked) == [job.key for job in files.jobs]
    files.worked.clear()
    assert files.run(schedule=schedule) == 0
    assert files.worked == []
    assert set(files.statuses().values()) == {"skipped"}

    files.jobs[0].outputs[0].unlink()
    files.jobs[2].outputs[0].write_text("old")
    files.jobs[4].outputs[0].write_text("?")
    assert files.run(schedule=schedule) == 0
    assert sorted(files.worked) == ["f0", "f2", "f4"]
    reasons = {record["key"]: record["reason"] for record in files.reported()["jobs"]}
    assert reasons["f0"] == "missing"
    assert reasons["f2"] == "stale: made with old"
    assert reasons["f4"] == "broken: unreadable"
    assert reasons["f1"] == "finished"
    files.worked.clear()
    assert files.run(schedule=schedule, force=True) == 0
    assert sorted(files.worked) == [job.key for job in files.jobs]


def test_one_bad_file_fails_alone(files, capsys):
    def work(job):
        if job.key == "f2":
            raise ValueError("bad numbers\nsecond line")
        return None if job.key == "f3" else files.work(job)

    assert files.run(work) == 1
    assert Counter(files.statuses().values()) == {"done": 4, "failed": 2}
    records = {record["key"]: record for record in files.reported()["jobs"]}
    assert records["f2"]["error"] == "ValueError: bad numbers\nsecond line"
    assert "raise ValueError" in records["f2"]["traceback"]
    assert "f3.txt" in records["f3"]["error"]  # a work that makes nothing has not done its job
    assert records["f1"]["result"] == {"written": 2}
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "f2" in line] == ["hpcreco: error: toy: f2: ValueError: bad numbers"]
    assert files.run() == 0
    assert files.worked[-2:] == ["f2", "f3"]


def test_dry_run_prints_and_touches_nothing(files, capsys):
    files.jobs[1].outputs[0].write_text("v1")
    (files.folder / ".f0.txt.part-elsewhere-1").write_text("")
    before = {item: item.stat().st_mtime_ns for item in files.folder.iterdir()}
    assert files.run(dry_run=True) == 0
    assert {item: item.stat().st_mtime_ns for item in files.folder.iterdir()} == before
    assert files.worked == []
    out = capsys.readouterr().out
    assert "6 files, 1 finished, 5 to do" in out
    assert "140 B" in out  # 0 + 20 + 30 + 40 + 50
    assert "f0  worker 0  missing" in out
    assert "f1" not in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_abandons_the_file_in_work(files, number):
    def work(job):
        if job.key != "f2":
            return files.work(job)
        with shards.atomic(job.outputs[0]) as temporary:
            temporary.write_text("half")
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # launchers repeat themselves; the clean-up goes on
        return None

    assert files.run(work) == 75
    statuses = files.statuses()
    assert [statuses[job.key] for job in files.jobs] == ["done", "done", "stopped", "left", "left", "left"]
    assert files.reported()["stopped_by"] == [number.name]
    assert sorted(item.name for item in files.folder.iterdir()) == ["f0.txt", "f1.txt", "report.json"]
    assert files.run() == 0
    assert files.worked == ["f0", "f1", "f2", "f3", "f4", "f5"]


def test_a_work_that_catches_exceptions_cannot_catch_the_stop(files):
    def work(job):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # noqa: BLE001
            pytest.fail("the stop was taken for an error")
        return files.work(job)

    assert files.run(work) == 75
    assert files.worked == []


@pytest.mark.parametrize("busy", [False, True])
def test_a_stop_within_a_callback_that_swallows_exceptions_is_not_lost(files, busy, monkeypatch):
    """Busy: the main thread is held up where it asks for the signal once more, longer than that takes to come."""

    class Referred:
        pass

    class Thread(threading.Thread):
        def start(self):
            super().start()
            time.sleep(0.1)

    def work(job):
        if busy:
            monkeypatch.setattr(threading, "Thread", Thread)
        referred = Referred()
        reference = weakref.ref(referred, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del referred
        assert reference() is None
        time.sleep(300)

    hook = sys.unraisablehook
    assert files.run(work) == 75
    assert files.statuses()["f0"] == "stopped"
    assert sys.unraisablehook is hook


def test_a_stop_between_two_files_is_one(files):
    signals = StopSignals()
    with signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), signals.interrupting():
            pytest.fail("the work has begun")
        for number, handler in signals._previous.items():
            signal.signal(number, handler)


def test_handlers_are_restored_after_an_undisturbed_run(files):
    before = signal.getsignal(signal.SIGTERM)
    files.run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_dead_writers_left_is_removed_and_nothing_else(files):
    dead = 2**22 + 1  # above the largest process number of Linux
    host = os.uname().nodename
    (files.folder / f".f0.txt.part-{host}-{dead}").write_text("")
    other = files.folder / f".other.txt.part-{host}-{dead}"
    other.write_text("")
    alive = files.folder / f".f1.txt.part-{host}-{os.getppid()}"
    alive.write_text("")
    elsewhere = files.folder / ".f1.txt.part-node17-12"
    elsewhere.write_text("")
    old = files.folder / ".f2.txt.part-node17-12"
    old.write_text("")
    os.utime(old, (0, 0))
    assert files.run() == 0
    assert {item for item in files.folder.iterdir() if item.name.startswith(".")} == {other, alive, elsewhere}


def test_two_jobs_with_one_output_are_refused(files):
    files.jobs.append(filewise.Job("other", (), files.jobs[0].outputs))
    with pytest.raises(filewise.FilewiseError, match=r"f0\.txt"):
        files.run()
    assert files.worked == []


def test_no_jobs_are_no_failure(tmp_path, capsys):
    assert Files(tmp_path, 0).run() == 0
    assert "no files" in capsys.readouterr().out


@pytest.mark.parametrize("task", [0, 1, 2])
def test_each_array_task_writes_its_own_report(files, task, monkeypatch):
    for name, value in {"ID": task, "COUNT": 3, "MIN": 0, "MAX": 2, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert files.run() == 0
    assert files.worked == [f"f{2 * task}", f"f{2 * task + 1}"]
    files.report = files.report.with_name(f"report.task{task}.json")
    content = files.reported()
    assert (content["array_task"], content["array_tasks"], content["workers"]) == (task, 3, 3)
    assert {record["worker"] for record in content["jobs"]} == {task}


def test_a_report_that_cannot_be_written_is_a_failure(files, capsys, tmp_path):
    (tmp_path / "no folder").write_text("")
    assert files.run(run_report=tmp_path / "no folder" / "report.json") == 1
    assert set(files.worked) == {job.key for job in files.jobs}
    assert "no folder/report.json" in capsys.readouterr().err


def test_the_flags_are_the_options_of_run(files, tmp_path):
    parser = argparse.ArgumentParser()
    filewise.add_filewise_arguments(parser)
    wanted = tmp_path / "mine.json"
    args = parser.parse_args(["--schedule", "size", "--force", "--run-report", str(wanted)])
    assert files.run(**filewise.options(args)) == 0
    assert json.loads(wanted.read_text())["schedule"] == "size"
    assert not files.report.exists()
