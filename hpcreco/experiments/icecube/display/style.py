"""Colours and resolution of an event's pictures."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DPI = 110
TRUTH, FIT = "#000000", "#D55E00"
