"""One event as a standalone HTML page: the points, and a small program that turns them, in one file."""

from __future__ import annotations

import base64
import html
import json
from importlib.resources import files
from typing import Any

import numpy as np

from hpcreco.experiments.protodune.display.scene import AXES, Scene


def page(scene: Scene, threshold: float, unit: str = "mm") -> str:
    """The page's text. `unit` of the axes is "mm" or "cells"; `threshold` is where the slider starts."""
    here = files(__package__)
    text = here.joinpath("page.html").read_text()
    # "</" would end the script element from within a string
    data = json.dumps(contents(scene, threshold, unit)).replace("</", "<\\/")
    parts = {
        "@TITLE@": html.escape(scene.title),
        "@DATA@": data,
        "@SCRIPT@": here.joinpath("page.js").read_text(),
    }
    for mark, value in parts.items():
        text = text.replace(mark, value)
    return text


def contents(scene: Scene, threshold: float, unit: str = "mm") -> dict[str, Any]:
    """What the page knows: little-endian arrays in base64, one entry per candidate and then per missed voxel.

    coords int16 (n, 3), flags uint8 (1 candidate, 2 true), and float32 scores, charge, true_charge where known.
    """
    n, m = len(scene.candidates), len(scene.missed)
    low, high = scene.bounds()
    flags = np.concatenate([np.ones(n, np.uint8), np.full(m, 2, np.uint8)])
    known: dict[str, Any] = {}
    if scene.is_true is not None:
        flags[:n] += 2 * scene.is_true.astype(np.uint8)
    if scene.has_truth or m:
        inside = scene.true_charge if scene.true_charge is not None else np.zeros(n)
        known["true_charge"] = _pack(np.concatenate([inside, scene.missed_charge]), "<f4")
    if n:
        known["charge"] = _pack(np.concatenate([scene.charge, np.zeros(m)]), "<f4")
    if scene.scores is not None:
        known["scores"] = _pack(np.concatenate([scene.scores, np.zeros(m)]), "<f4")
    return {
        "coords": _pack(scene.points, "<i2"),
        "flags": _pack(flags, "u1"),
        **known,
        "cell": list(scene.cell),
        "origin": list(scene.origin) if unit == "mm" else [0, 0, 0],
        "low": low.tolist(),
        "high": high.tolist(),
        "axes": list(AXES),
        "unit": unit,
        "threshold": threshold,
        "has_truth": scene.has_truth or m > 0,
        "charge_unit": scene.charge_unit,
        "truth_unit": scene.truth_unit,
    }


def _pack(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
