"""The image, really built on this machine, and ways to run commands in it and beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import emulated
from tests.conftest import REPOSITORY

NOBODY = 65534
#: enough for hpcreco to be found, and no setting of this machine; one thread, for results depend on their number
CLEAN = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
}


def missing() -> str:
    """Why no image can be built and run here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root: a base is made with debootstrap, and images are built in a chroot"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    programs = ("buildah", "debootstrap", "ch-run", "mksquashfs", "unshare")
    absent = [program for program in programs if not shutil.which(program, path=path)]
    if absent:
        return f"needs {', '.join(absent)} (tools/setup image installs them as root on Debian and Ubuntu)"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "needs mount namespaces, which this machine does not permit"
    return ""


@pytest.fixture(scope="session", autouse=True)
def buildable() -> None:
    """Skips what cannot be done here, with the reason."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def workshop(buildable) -> Iterator[Path]:
    """A folder for images, readable for everyone; neither it nor a mount below it outlives the tests."""
    # charliecloud shows /tmp inside; a folder elsewhere it could not bind into a read-only image.
    folder = Path(tempfile.mkdtemp(prefix="hpcreco-image-tests-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    lines = Path("/proc/self/mounts").read_text().splitlines()
    for place in sorted((line.split()[1] for line in lines), reverse=True):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place])
    shutil.rmtree(folder)


def tools_image(*arguments: str | Path) -> str:
    """Runs tools/image build; returns what it said."""
    command = [REPOSITORY / "tools/image", "build", "cpu", "--base", "debootstrap", *map(str, arguments)]
    environment = os.environ | {"HPCRECO_SQUASH": "lz4"}
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500, env=environment
    )
    assert run.returncode == 0, run.stdout[-5000:]
    return run.stdout


@dataclass(frozen=True)
class Image:
    """A built image as a folder, and what its build printed."""

    root: Path
    said: str


@pytest.fixture(scope="session")
def dockerfile(workshop) -> Image:
    """The Dockerfile's cpu target, built by buildah and unpacked; or what HPCRECO_TEST_IMAGE names."""
    built = os.environ.get("HPCRECO_TEST_IMAGE")
    root = Path(built) if built else workshop / "dockerfile"
    said = "" if built else tools_image("--engine", "buildah", "--store", workshop / "store", "-o", root)
    for source in root.glob("opt/hpcreco/.venv/lib/python3.*/site-packages/hpcreco/**/*.py"):
        # A SquashFS has whole seconds, and numba compiles anew what has another time.
        os.utime(source, (int(source.stat().st_atime), int(source.stat().st_mtime)))
    return Image(root, said)


@pytest.fixture(scope="session")
def definition(workshop) -> Image:
    """apptainer.def's %files, %post, %environment and %test, followed in a chroot."""
    root = workshop / "definition"
    return Image(root, tools_image("--engine", "chroot", "-o", root))


@pytest.fixture(scope="session")
def sif(workshop, dockerfile) -> Path:
    """The image in one file, as a SIF holds it: a SquashFS."""
    path = workshop / "reco.sif"
    subprocess.run(
        ["mksquashfs", dockerfile.root, path, "-quiet", "-no-progress", "-comp", "lz4"],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="session")
def nobodys(workshop) -> Path:
    """A folder that uid 65534 may write, on a path that it may walk."""
    folder = workshop / "data"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


@pytest.fixture(scope="session")
def clean() -> dict[str, str]:
    """The environment of a command that must not depend on this machine's."""
    return dict(CLEAN)


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run(command, folder, environment, check=True)`` runs a command to its end, or fails with what it printed."""

    def run(
        command: Sequence[str | Path], folder: Path, environment: dict[str, str], check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            stdin=subprocess.DEVNULL,
        )
        if check and ended.returncode != 0:
            pytest.fail(f"{command} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended

    return run


@pytest.fixture(scope="session")
def inside(run) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``inside(image, folder, *command)``: by uid 65534, no home, image read-only, in ``folder`` below /tmp."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def inside(
        image: Path, folder: Path, *command: str | Path, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        environment = CLEAN | {"USER": "nobody"}
        return run(
            [*user, "ch-run", f"--set-env=TMPDIR={folder}", f"--cd={folder}", image, "--", *command],
            folder,
            environment,
            check,
        )

    return inside


@pytest.fixture(scope="session")
def cluster(buildable, tmp_path_factory) -> Iterator[emulated.Cluster]:
    """A Slurm cluster of emulated nodes with own host names."""
    running = emulated.start(tmp_path_factory.mktemp("cluster"))
    try:
        yield running
    finally:
        emulated.stop(running)
