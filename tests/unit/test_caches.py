"""Caches move to $TMPDIR where their usual place cannot be written, and only then."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from hpcreco import caches


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The folder below $TMPDIR that this user gets."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"hpcreco-{os.getuid()}"


def test_nothing_moves_where_all_can_be_written(tmp_path, place):
    environment = {"HOME": str(tmp_path)}
    caches.settle(environment, package=tmp_path)
    assert environment == {"HOME": str(tmp_path)}
    assert not place.exists()


@pytest.mark.parametrize("home", [{}, {"HOME": "/nonexistent"}])
def test_a_missing_home(home, tmp_path, place):
    environment = dict(home)
    caches.settle(environment, package=tmp_path)
    assert environment == {"HOME": str(place)}
    assert place.stat().st_mode & 0o077 == 0


def test_a_package_that_cannot_be_written(tmp_path, place):
    environment = {"HOME": str(tmp_path)}
    caches.settle(environment, package=Path("/nonexistent"))
    assert environment == {"HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(place / "numba")}
    named = {"HOME": str(tmp_path), "NUMBA_CACHE_DIR": "/scratch"}
    caches.settle(named, package=Path("/nonexistent"))
    assert named["NUMBA_CACHE_DIR"] == "/scratch"


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path, place):
    place.mkdir()
    place.chmod(0o777)
    environment = {"HOME": str(tmp_path)}
    caches.settle(environment, package=Path("/nonexistent"))
    chosen = Path(environment["NUMBA_CACHE_DIR"]).parent
    assert chosen != place
    assert chosen.stat().st_mode & 0o077 == 0
