"""The cache of engine wheels never hands out a wheel that was built for something else; patches never miss silently."""

from __future__ import annotations

import importlib.util
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
    engine = build.horovod()
    name = keys(engine).name
    assert "torch-2.13.0+cpu" in name
    assert f"py{sys.version_info.major}.{sys.version_info.minor}" in name
    assert "mpich-5.0.2" in name
    changed = replace(engine, patches=[replace(engine.patches[0], new="something else"), *engine.patches[1:]])
    assert keys(changed) != keys(engine)
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    assert keys(build.horovod()).name != name
    assert "mpich" not in keys(build.minkowski()).name


def test_torch_decides_the_standard(build):
    assert "20" in build.patches.horovod((2, 13))[1].new
    assert "17" in build.patches.horovod((2, 12))[1].new


def test_a_patch_that_finds_nothing_is_an_error(build, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("another source\n")
    with pytest.raises(LookupError, match=r"CMakeLists\.txt"):
        build.patches.horovod((2, 13))[0].apply(tmp_path)


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
