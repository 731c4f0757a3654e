"""The run lock: one holder, taken over from the dead, waited for by the requeued."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from hpcreco.train.lock import LockError, RunLock


def foreign(path, **changes):
    holder = {"host": "elsewhere", "pid": 1, "started": "0", "job": "7", **changes}
    path.write_text(json.dumps(holder))


@pytest.fixture(params=["hard links", "no hard links"])
def links(request, monkeypatch):
    """File systems of both kinds."""
    if request.param == "no hard links":
        monkeypatch.setattr("hpcreco.train.lock.os.link", refuse)


def refuse(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_second_holder_is_refused_by_name(tmp_path, links):
    with RunLock(tmp_path), pytest.raises(LockError, match=f"process {os.getpid()}"), RunLock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()
    with RunLock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_at_once(tmp_path, links, monkeypatch):
    code = (
        "import os, sys; from pathlib import Path; from hpcreco.train.lock import RunLock\n"
        "RunLock(Path(sys.argv[1])).__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / ".lock").exists()
    monkeypatch.setattr("hpcreco.train.lock.time.sleep", lambda seconds: pytest.fail("it waited"))
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_lock_without_content_is_left_alone_while_it_may_be_in_the_making(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            os.utime(tmp_path / ".lock", (1, 1))

    monkeypatch.setattr("hpcreco.train.lock.time.sleep", wait)
    with RunLock(tmp_path):
        assert len(waits) == 3


def test_a_reused_process_number_is_not_the_old_process(tmp_path):
    with RunLock(tmp_path):
        me = json.loads((tmp_path / ".lock").read_text())
    (tmp_path / ".lock").write_text(json.dumps({**me, "started": "1"}))
    with RunLock(tmp_path):
        pass


def test_another_host_holds_it_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    foreign(tmp_path / ".lock")
    with pytest.raises(LockError, match="host elsewhere"), RunLock(tmp_path, stale=30):
        pass
    os.utime(tmp_path / ".lock", (time.time() - 60, time.time() - 60))
    with RunLock(tmp_path, stale=30):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_requeued_job_waits_for_its_earlier_attempt(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    foreign(tmp_path / ".lock")
    over = threading.Event()

    def let_go():
        over.set()
        (tmp_path / ".lock").unlink()

    threading.Timer(0.6, let_go).start()
    with RunLock(tmp_path, heartbeat=0.1):
        assert over.is_set()


def test_the_heart_beats(tmp_path):
    with RunLock(tmp_path, heartbeat=0.05):
        os.utime(tmp_path / ".lock", (1, 1))
        deadline = time.monotonic() + 60
        while (tmp_path / ".lock").stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / ".lock").stat().st_mtime > 1


def test_without_proc_a_lock_is_alive_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcreco.train.lock._started", lambda pid: None)
    with RunLock(tmp_path), pytest.raises(LockError, match=f"process {os.getpid()}"), RunLock(tmp_path):
        pass
