"""A wheel holds all that the package needs at run time, and the configs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def names(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from the checkout; the build writes outside of it."""
    if not (repository / "README.md").exists():
        pytest.skip("the checkout has no README.md yet, which the wheel's metadata needs")
    folder = tmp_path_factory.mktemp("wheel")
    program = (
        "import sys, setuptools; sys.argv = ['setup', '-q', 'egg_info', '--egg-base', {0!r}, 'build',"
        " '--build-base', {0!r},"
        " 'bdist_wheel', '--bdist-dir', {0!r} + '/tree', '--dist-dir', {0!r}]; setuptools.setup()"
    ).format(str(folder))
    build = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_file_of_the_package_is_in_the_wheel(names, repository):
    package = repository / "hpcreco"
    files = [
        p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"
    ]
    missing = {str(p.relative_to(repository)) for p in files} - names
    assert files
    assert not missing


@pytest.mark.parametrize("folder", [f for f in ("configs", "jobs") if f == "configs" or (ROOT / f).exists()])
def test_shipped_folders_are_in_the_wheel(names, repository, folder):
    shipped = {
        f"hpcreco/_{p.relative_to(repository)}" for p in (repository / folder).rglob("*") if p.is_file()
    }
    assert shipped
    assert not shipped - names


def test_tests_and_tools_stay_out(names):
    assert not [name for name in names if name.startswith(("tests/", "tools/", "configs/"))]
