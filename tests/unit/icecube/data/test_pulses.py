"""Arithmetic of pulses and dead times, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcreco.experiments.icecube.pulses import Gaps, Pulses, bright_doms, in_gap, merged, numbers, quantiles

WINDOW = (0.0, 100.0)
interval = st.tuples(st.integers(-20, 120), st.integers(0, 40), st.integers(0, 3))


def as_gaps(rows) -> Gaps:
    table = np.array(rows, float).reshape(-1, 3)
    return Gaps(table[:, 0], table[:, 0] + table[:, 1], table[:, 2].astype(int))


@given(st.lists(interval, max_size=12))
def test_merged_gaps_cover_the_same_time(rows):
    gaps = as_gaps(rows)
    found = merged(gaps, WINDOW)
    time = np.arange(0.0, 100.0, 0.5)
    for dom in range(4):
        mine, theirs = found.dom == dom, gaps.dom == dom
        covered = ((time[:, None] >= found.start[mine]) & (time[:, None] < found.stop[mine])).sum(axis=1)
        wanted = ((time[:, None] >= gaps.start[theirs]) & (time[:, None] < gaps.stop[theirs])).any(axis=1)
        assert np.array_equal(covered, wanted.astype(int))  # never twice: disjoint
    same = found.dom[1:] == found.dom[:-1]
    assert (found.start < found.stop).all() and (np.diff(found.dom) >= 0).all()
    assert (found.start[1:][same] > found.stop[:-1][same]).all()


@given(
    st.lists(interval, max_size=8), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 3)), max_size=20)
)
def test_in_gap_agrees_with_a_loop(rows, pulses):
    gaps = merged(as_gaps(rows), WINDOW)
    time, dom = (np.array([p[i] for p in pulses], float) for i in (0, 1))
    wanted = [
        any(lo <= t < hi and d == g for lo, hi, g in zip(gaps.start, gaps.stop, gaps.dom, strict=True))
        for t, d in zip(time, dom, strict=True)
    ]
    assert in_gap(time.astype(np.float32), dom.astype(np.int32), gaps).tolist() == wanted


def test_a_gap_holds_its_start_and_not_its_end():
    gaps = merged(as_gaps([(10, 5, 1)]), WINDOW)
    time = np.array([9.5, 10.0, 14.5, 15.0, 12.0])
    assert in_gap(time, np.array([1, 1, 1, 1, 2]), gaps).tolist() == [False, True, True, False, False]


def test_numbers_and_quantiles_restart_at_every_dom():
    dom = np.array([2, 2, 2, 5, 7, 7])
    charge = np.array([1.0, 1.0, 2.0, 3.0, 1.0, 3.0])
    assert numbers(dom).tolist() == [0, 1, 2, 0, 0, 1]
    assert quantiles(charge, dom).tolist() == [0.25, 0.5, 1.0, 1.0, 0.25, 1.0]
    assert len(numbers(np.zeros(0, int))) == 0 and len(quantiles(np.zeros(0), np.zeros(0, int))) == 0


def test_bright_doms_need_both_share_and_charge():
    def with_charges(*charges):
        return Pulses(np.array(charges), np.zeros(len(charges)), np.arange(len(charges)))

    assert bright_doms(with_charges(60.0, 20.0, 20.0), 3).tolist() == []  # not above 100 PE
    assert bright_doms(with_charges(600.0, 200.0, 200.0), 3).tolist() == [0]
    assert bright_doms(with_charges(450.0, 550.0), 3).tolist() == [0, 1]
    assert bright_doms(with_charges(*[200.0] * 4), 4).tolist() == []


def test_sorting_is_by_dom_then_time():
    pulses = Pulses(np.array([1.0, 2.0, 3.0]), np.array([5.0, 1.0, 0.0]), np.array([1, 1, 0])).sorted()
    assert pulses.charge.tolist() == [3.0, 2.0, 1.0] and pulses.time.dtype == np.float32


def test_empty_gaps_hold_nothing():
    assert not in_gap(np.array([1.0]), np.array([0]), Gaps.none()).any()
    assert len(merged(Gaps.none(), WINDOW)) == 0
    assert merged(as_gaps([(10, 5, 1), (15, 5, 1)]), WINDOW).stop.tolist() == pytest.approx([20.0])
