"""What all tests share: real MPI ranks, public detector data, and a closing list of what was skipped and why."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from hpcreco.doctor.asking import probe_environment

REPOSITORY = Path(__file__).parent.parent

# Triton kernels run in its interpreter where no GPU can run them; Triton asks for this when it is imported.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A busy machine makes no example wrong, nor does the draw of the day: a run tries the same examples as the one before.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

#: What takes longest begins first. The tests of a folder named here share what is made once (a cluster, an image), so
#: they go to one worker; those of any other file go to one together.
ORDER = ("tests/cluster/", "tests/image/", "tests/flow/", "tests/parallel/")
TOGETHER = ("tests/cluster/", "tests/image/")


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than there are processors, for one worker mostly waits for Slurm."""
    return min(len(os.sched_getaffinity(0)) + 1, 8)


def pytest_configure(config: pytest.Config) -> None:
    """Workers of one run compile the same kernels at the same time."""
    if hasattr(config, "workerinput"):
        one_writer_of_numbas_cache()


def one_writer_of_numbas_cache() -> None:
    """Makes numba's cache safe for processes that compile one function for different types at once.

    Numba reads a function's index, takes the next free number for its machine code, and writes both; of two processes
    that do so at once, one may later be given the other's code.
    """
    from numba.core.caching import IndexDataCacheFile

    save = IndexDataCacheFile.save

    def save_alone(self: IndexDataCacheFile, key: object, data: object) -> None:
        with open(f"{self._index_path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(self, key, data)

    IndexDataCacheFile.save = save_alone


class BySharing(LoadScopeScheduling):
    """Sends tests that share what is made once to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> BySharing:
    """How `-n` deals out the tests."""
    return BySharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests by folder, in the order in which they are to begin."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in ORDER])


@dataclass(frozen=True)
class Ranks:
    """How a run of MPI ranks ended, and all that they printed."""

    code: int
    out: str
    err: str


def find_mpiexec() -> str | None:
    """The mpiexec of the environment's own MPI, or the first on PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec")


@pytest.fixture(scope="session")
def mpiexec() -> Callable[..., Ranks]:
    """``mpiexec(ranks, arguments, timeout=, env=, cwd=, check=True)`` runs ``python ARGUMENTS`` on real MPI ranks.

    With ``check`` a run that fails fails the test and shows what the ranks printed. Whatever happens, no rank outlives
    the call: all of them belong to one process group, which is killed when the time is over.
    """
    program = find_mpiexec()
    if program is None:
        pytest.skip("needs mpiexec (the mpich wheel, or an MPI on PATH)")

    def run(
        ranks: int,
        arguments: Sequence[str | Path],
        *,
        timeout: float = 600,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> Ranks:
        command = [program, "-n", str(ranks), sys.executable, *map(str, arguments)]
        environment = probe_environment() | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | (env or {})
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            out, err = end(process)
            pytest.fail(f"{ranks} ranks of {arguments} did not end within {timeout} s\n{out}\n{err}")
        if check and process.returncode != 0:
            pytest.fail(f"{ranks} ranks of {arguments} ended with {process.returncode}\n{out}\n{err}")
        return Ranks(process.returncode, out, err)

    return run


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Asks mpiexec to end its ranks (they have process groups of their own), then kills what is left of its group."""
    process.terminate()
    try:
        return process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        return process.communicate()


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public detector data that HPCRECO_PUBLIC_DATA names."""
    named = os.environ.get("HPCRECO_PUBLIC_DATA")
    if not named:
        pytest.skip("needs public detector data: HPCRECO_PUBLIC_DATA names no folder")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"needs public detector data: HPCRECO_PUBLIC_DATA={named} is not a folder")
    return folder


@pytest.fixture
def triton_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose Triton compiles. Its functions and our kernels stay what they were when first imported, so
    other tests of this process must find them made for the interpreter.
    """
    if find_spec("triton"):
        import_module("hpcreco.sparse.gpu.launch")
        import_module("hpcreco.nn.gpu_rows")
    monkeypatch.setenv("TRITON_INTERPRET", "0")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts the skipped tests by reason, so that a suite that tests little cannot look like one that passes."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("what was not tested here")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:4d}  {reason}")
