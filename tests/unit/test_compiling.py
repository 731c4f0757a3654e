"""Compiled functions are cached, and the cache sees an edit of any file that they are made of."""

import subprocess
import sys

import numba
import pytest

from hpcreco.compiling import compiled, inner

KERNEL = """
from hpcreco.compiling import compiled
from helper import constant

@compiled()
def kernel():
    return constant()

print(kernel(), sum(kernel.stats.cache_hits.values()))
"""
HELPER = """
from hpcreco.compiling import inner

@inner
def constant():
    return {}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # bytecode looks at whole seconds
    (tmp_path / "kernel.py").write_text(KERNEL)

    def with_constant(value):
        text = HELPER.format(value)
        if not (tmp_path / "helper.py").exists() or (tmp_path / "helper.py").read_text() != text:
            (tmp_path / "helper.py").write_text(text)
        done = subprocess.run(
            [sys.executable, tmp_path / "kernel.py"], capture_output=True, text=True, check=True, timeout=300
        )
        return tuple(map(int, done.stdout.split()))

    return with_constant


def test_an_edit_of_a_helper_in_another_file_is_seen(run):
    assert run(1) == (1, 0)
    assert run(1) == (1, 1)
    assert run(2) == (2, 0)
    assert run(2) == (2, 1)


def test_inner_functions_stay_functions_to_python():
    @inner
    def twice(x):
        return 2 * x

    @compiled()
    def four_times(x):
        return twice(twice(x))

    assert four_times(3) == 12
    assert twice([1]) == [1, 1]


def test_functions_compile_where_no_cache_can_be_written(monkeypatch):
    njit = numba.njit

    def no_locator(*functions, cache=False, **options):
        def refuse(function):
            raise RuntimeError("cannot cache function: no locator available")

        return refuse if cache else njit(*functions, **options)

    monkeypatch.setattr(numba, "njit", no_locator)
    assert compiled()(lambda x: x + 1)(1) == 2
