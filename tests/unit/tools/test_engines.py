"""The cache of engine wheels never hands out a wheel that was built for something else; patches never miss silently."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def build(repository) -> ModuleType:
    """tools/engines/build.py, which is a script."""
    spec = importlib.util.spec_from_file_location("engine_build", repository / "tools/engines/build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def keys(build, monkeypatch, tmp_path):
    """key(engine): the name of its cache folder; torch and MPI are what the test says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        build.metadata, "version", lambda name: {"torch": "2.13.0+cpu", "mpich": "5.0.2"}[name]
    )
    monkeypatch.setattr(build, "mpi_identity", lambda: "mpich-5.0.2")
    return build.cache_folder


def test_key_names_torch_python_mpi_and_patches(build, keys, monkeypatch):
    engine = build.recipes.horovod()
    name = keys(engine).name
    assert "torch-2.13.0+cpu" in name
    assert f"py{sys.version_info.major}.{sys.version_info.minor}" in name
    assert "mpich-5.0.2" in name
    changed = replace(engine, patches=[replace(engine.patches[0], new="something else"), *engine.patches[1:]])
    assert keys(changed) != keys(engine)
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    assert keys(build.recipes.horovod()).name != name
    assert "mpich" not in keys(build.recipes.minkowski()).name


def test_torch_decides_the_standard(build):
    assert "20" in build.recipes.patches.horovod((2, 13))[1].new
    assert "17" in build.recipes.patches.horovod((2, 12))[1].new


def test_a_patch_that_finds_nothing_is_an_error(build, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("another source\n")
    with pytest.raises(LookupError, match=r"CMakeLists\.txt"):
        build.recipes.patches.horovod((2, 13))[0].apply(tmp_path)


def test_a_half_written_wheel_is_not_taken(build, tmp_path):
    (tmp_path / ".horovod-0.28.1.whl.part-1").write_text("half")
    assert build.cached(tmp_path) is None
    (tmp_path / "horovod-0.28.1.whl").write_text("whole")
    assert build.cached(tmp_path) == tmp_path / "horovod-0.28.1.whl"


def test_own_mpi_comes_first_unless_the_site_is_asked_for(build, monkeypatch):
    own = str(Path(sys.prefix) / "bin")
    monkeypatch.delenv("HPCRECO_SITE_MPI", raising=False)
    assert build.search_path().split(":")[0] == own
    monkeypatch.setenv("HPCRECO_SITE_MPI", "1")
    assert build.search_path().split(":")[-1] == own


def test_gpus_have_wheels_of_their_own_and_cpus_keep_theirs(build, keys, monkeypatch):
    for engine in (build.recipes.horovod, build.recipes.minkowski):
        on_cpu = keys(engine()).name
        assert "cuda" not in on_cpu
        on_gpu = keys(engine("13.0")).name
        assert "cuda-13.0-sm8.0-9.0" in on_gpu
        assert keys(engine("12.8")) != keys(engine("13.0"))
        with monkeypatch.context() as patch:
            patch.setattr(build.cuda_toolkit, "ARCHITECTURES", ("8.0",))
            assert keys(engine("13.0")).name != on_gpu
            assert keys(engine()).name == on_cpu


@pytest.mark.parametrize(
    ("wanted", "torch_has", "chosen"),
    [("", "13.0", None), (None, None, None), ("13.0", "13.0", "13.0"), ("torch", "12.8", "12.8")],
)
def test_cuda_is_that_of_torch(build, monkeypatch, wanted, torch_has, chosen):
    monkeypatch.setattr("torch.version.cuda", torch_has)
    assert build.cuda_toolkit.chosen(wanted) == chosen


@pytest.mark.parametrize(
    ("wanted", "torch_has", "reason"), [("13.0", None, "CPU build"), ("13.0", "12.8", "built with CUDA 12.8")]
)
def test_another_cuda_than_that_of_torch_is_refused(build, monkeypatch, wanted, torch_has, reason):
    monkeypatch.setattr("torch.version.cuda", torch_has)
    with pytest.raises(SystemExit, match=reason):
        build.cuda_toolkit.chosen(wanted)


def test_cuda_12_needs_the_sites_toolkit(build, monkeypatch, tmp_path):
    """A toolkit of that version is taken as it is, another one is named; nothing is downloaded."""
    nvcc = tmp_path / "site/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "site"))
    assert build.cuda_toolkit.toolkit("12.8", tmp_path / "made").home == tmp_path / "site"
    with pytest.raises(SystemExit, match=f"no compiler for CUDA 12.4.*{tmp_path}/site"):
        build.cuda_toolkit.toolkit("12.4", tmp_path / "made")


def test_links_make_a_toolkit_of_wheels(build, tmp_path):
    wheels, made = tmp_path / "wheels", tmp_path / "made"
    for file in ("include/crt/a.h", "include/b.h", "lib/libnccl.so.2", "lib/libcudart_static.a"):
        (wheels / file).parent.mkdir(parents=True, exist_ok=True)
        (wheels / file).write_text("of torch")
    (made / "include").mkdir(parents=True)
    (made / "include/b.h").write_text("of the compiler")
    build.cuda_toolkit.link_tree(wheels, made)
    build.cuda_toolkit.link_names(made / "lib")
    assert (made / "include/crt/a.h").read_text() == "of torch"
    assert (made / "include/b.h").read_text() == "of the compiler"
    assert (made / "lib/libnccl.so").read_text() == "of torch"
    assert not (wheels / "lib/libnccl.so").exists()


def test_another_torch_frees_its_cuda_packages_and_nothing_else(repository, tmp_path):
    """tools/setup's constraints for HPCRECO_TORCH."""
    setup = (repository / "tools/setup").read_text()
    function = setup[setup.index("lock_with() {") :].split("\n}\n")[0] + "\n}\n"
    made = tmp_path / "requirements.lock"
    subprocess.run(
        ["bash", "-euc", function + 'lock_with 2.11.0 "$1"', "bash", made], cwd=repository, check=True
    )
    before = set((repository / "tools/requirements.lock").read_text().splitlines())
    after = set(made.read_text().splitlines())
    gone = {line.split("==")[0] for line in before - after}
    assert after - before == {"torch==2.11.0"}
    assert {"torch", "triton", "nvidia-nccl-cu13", "cuda-toolkit"} <= gone
    assert all(name in {"torch", "triton"} or name.startswith(("nvidia-", "cuda-")) for name in gone)
