"""The built image: what is in it and what is not, and the tiny flow by nobody on a read-only file system."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from hpcreco import version
from hpcreco.train import summary

pytestmark = pytest.mark.slow

#: two epochs of one step of five events
SHORT = (
    "--set=data.train_i=[1,5]",
    "--set=data.inference_i=[6,6]",
    "--set=data.event_batch=5",
    "--set=train.n_epochs=2",
    "--set=schedule=null",
)
CLOCK = ("time", "rate", "memory")


@pytest.fixture(scope="module", params=["dockerfile", "definition"])
def image(request):
    """The image by either recipe."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def flow(dockerfile, nobodys, inside) -> Path:
    """A folder with what simulate, tile, train and infer left there, run in the image by nobody."""
    for line in (
        (
            "simulate",
            "protodune",
            "--preset",
            "tiny",
            "--files",
            "6",
            "--events",
            "1",
            "--seed",
            "1",
            "--out",
            "parsed",
        ),
        ("tile", "-i", "parsed", "-o", "xy", "-t", "1"),
        ("train", "ghost3d_tiny", *SHORT),
        ("infer", "ghost_inf_tiny", "--set=data.inference_i=[6,6]"),
    ):
        inside(dockerfile.root, nobodys, "hpcreco", *line)
    return nobodys


def rows(run: Path) -> list[dict[str, float]]:
    """What training measured, without the clock's columns."""
    return [
        {name: value for name, value in row.items() if not any(part in name for part in CLOCK)}
        for row in summary.read(run / "summaries.csv")
    ]


def test_doctor_finds_both_engines_and_the_mpich_abi(image, nobodys, inside):
    told = inside(image.root, nobodys, "hpcreco", "doctor", "--json").stdout
    found = {line["name"]: line for line in json.loads(told)["findings"]}
    for name in ("torch", "numba", "mpi4py, MPI", "Horovod", "MinkowskiEngine"):
        assert found[name]["state"] == "works", found[name]
    assert "/opt/hpcreco/.venv/lib/libmpi.so.12 (MPICH ABI)" in found["mpi4py, MPI"]["detail"]
    assert str(nobodys) in found["numba's cache"]["detail"]  # below $TMPDIR
    if image.said:  # it was built from this checkout
        assert version.commit() in found["hpcreco"]["detail"]


def test_nothing_that_builds_or_tests_is_left(image, nobodys, inside):
    for program in ("cc", "c++", "make", "pytest", "ruff", "mypy", "cmake", "ninja"):
        assert not list(image.root.glob(f"**/bin/{program}")), program
    for folder in (
        "root/.cache",
        "var/lib/apt/lists",
        "run/build",
        "opt/hpcreco/hpcreco",
        "opt/hpcreco/tools",
    ):
        assert not list((image.root / folder).glob("**/[!.]*")), folder
    assert {path.name for path in (image.root / "opt/hpcreco").iterdir()} == {
        "LICENSE",
        ".venv",
        "configs",
        "jobs",
    }
    assert not inside(
        image.root, nobodys, "/opt/hpcreco/.venv/bin/python", "-m", "pip", "config", "list"
    ).stdout


def test_set_up_and_image_share_the_wheel_cache(image):
    if sys.version_info[:2] != (3, 11) or platform.libc_ver()[1] != "2.36":
        pytest.skip("this machine's wheels are not those of the image: it has another Python or C library")
    if not image.said:
        pytest.skip("HPCRECO_TEST_IMAGE names an image that was not built here")
    assert "horovod 0.28.1 works" in image.said
    assert "installing a C++ compiler" not in image.said


def test_tiny_flow_by_nobody(flow):
    scored = list(flow.glob("runs/ghost3d_tiny/**/*yinf*.h5"))
    assert scored
    assert all(path.stat().st_uid == 65534 for path in scored)
    assert list(flow.glob("hpcreco-65534/numba/**/*.nbi")), "kernels were not kept"


def test_training_in_the_image_equals_training_without(flow, tmp_path, run, clean):
    command = [sys.executable, "-m", "hpcreco", "train", "ghost3d_tiny", *SHORT]
    run([*command, f"--set=data.data_path={flow / 'xy'}"], tmp_path, clean | {"HOME": str(tmp_path)})
    assert rows(flow / "runs/ghost3d_tiny") == rows(tmp_path / "runs/ghost3d_tiny")


def test_the_image_is_read_only(dockerfile, nobodys, inside):
    ended = inside(dockerfile.root, nobodys, "touch", "/opt/hpcreco/.venv/new", check=False)
    assert ended.returncode != 0


@pytest.fixture(scope="module")
def on_five_nodes(flow, cluster, run, clean):
    """on_five_nodes(folder, *words): `srun -N 5 WORDS train ...`; returns what was said and what was measured."""
    slurm = {name: value for name, value in cluster.environment.items() if name.startswith("SLURM")}
    # In the container's user namespace not even root may enter nobody's private folder; compiling anew takes a minute.
    subprocess.run(["chmod", "-R", "a+rwX", flow / "hpcreco-65534"], check=True)
    kernels = {"NUMBA_CACHE_DIR": str(flow / "hpcreco-65534/numba")}

    def train(name: str, *words: str | Path) -> tuple[str, list[dict[str, float]]]:
        folder = flow / name
        folder.mkdir(exist_ok=True)
        (folder / "xy").symlink_to("../xy")
        environment = (
            clean | slurm | {"USER": "root", "HOME": str(folder)} | (kernels if name != "bare" else {})
        )
        environment["PATH"] = f"{Path(__file__).parent}:{environment['PATH']}"  # the shim named apptainer
        ended = run(["srun", "-N", "5", *words, "train", "ghost3d_tiny", *SHORT], folder, environment)
        return ended.stdout + ended.stderr, rows(folder / "runs/ghost3d_tiny")

    return train


@pytest.fixture(scope="module")
def without_image(on_five_nodes):
    """What five ranks measure without an image (batch normalisation makes them differ from one rank)."""
    return on_five_nodes("bare", sys.executable, "-m", "hpcreco")[1]


def test_five_nodes_in_a_folder(on_five_nodes, without_image, flow, dockerfile):
    words = ("--mpi=pmi2", "ch-run", f"--cd={flow / 'ch-run'}", dockerfile.root, "--", "hpcreco")
    said, measured = on_five_nodes("ch-run", *words)
    assert "5 rank(s) on horovod" in said
    for here, there in zip(measured, without_image, strict=True):
        assert here == pytest.approx(there, rel=1e-4)


def test_the_users_own_line(on_five_nodes, without_image, flow, sif):
    """`srun -N 5 apptainer exec reco.sif hpcreco train CONFIG`, with a stand-in for Apptainer."""
    (flow / "apptainer").mkdir()
    (flow / "apptainer/reco.sif").symlink_to(sif)
    said, measured = on_five_nodes("apptainer", "apptainer", "exec", "reco.sif", "hpcreco")
    assert "5 rank(s) on horovod" in said
    for here, there in zip(measured, without_image, strict=True):
        assert here == pytest.approx(there, rel=1e-4)


def test_the_shim_refuses_what_it_does_not_know(tmp_path):
    shim = Path(__file__).parent / "apptainer"
    for words in (["run", "reco.sif"], ["exec", "--unknown", "reco.sif", "true"]):
        assert subprocess.run([shim, *words], capture_output=True, cwd=tmp_path).returncode == 2
