"""Peaks of memory are seen, whether or not the kernel lets them begin anew."""

import mmap
import threading

import pytest
import torch

from hpcreco.planning import memory

BYTES = 64 << 20


@pytest.fixture
def peak_of(monkeypatch):
    """``peak_of(size)``: the peak of a block of code that takes so much."""
    looks, resident = threading.Semaphore(0), memory._resident

    def look():
        seen = resident()
        looks.release()
        return seen

    def peak_of(size):
        # not from the allocator, which might have that much left over and take nothing more
        with memory.Peak(torch.device("cpu")) as peak, mmap.mmap(-1, size) as block:
            for page in range(0, size, mmap.PAGESIZE):
                block[page] = 1
            while looks.acquire(blocking=False):
                pass
            for _ in range(2 if peak._looker else 0):  # the first may have begun before
                assert looks.acquire(timeout=300)
        return peak.bytes

    monkeypatch.setattr(memory, "_resident", look)
    return peak_of


@pytest.mark.parametrize("kept", [True, False], ids=["as the system has it", "by looking"])
def test_the_peak_of_a_block_is_seen_and_an_earlier_one_is_not(kept, peak_of, monkeypatch):
    if not kept:
        monkeypatch.setattr(memory, "_begins_anew", lambda: False)
    peak_of(4 * BYTES)
    # the system may take cold pages of the process in the meantime, which moves any one difference
    differences = [peak_of(BYTES) - peak_of(1) for _ in range(5)]
    assert min(differences) < 1.2 * BYTES
    assert max(differences) > 0.8 * BYTES


def test_a_reset_that_changes_nothing_is_noticed(monkeypatch):
    fields = {"VmHWM": 1e9, "VmRSS": 1e8}
    monkeypatch.setattr(memory, "_status", fields.__getitem__)
    assert not memory._begins_anew()


def test_some_memory_is_free():
    assert 0 < memory.available(torch.device("cpu")) < float("inf")
