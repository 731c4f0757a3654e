"""One event as a standalone HTML page: the points, and a small program that turns them, in one file."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from hpcreco.experiments.protodune.display.region import Region
from hpcreco.experiments.protodune.display.scene import AXES, FAINT, Scene

SCRIPTS = ("event.js", "view.js", "controls.js")


def page(scene: Scene, threshold: float, region: Region, others: Sequence[Scene] = ()) -> str:
    """The page's text: `region` of `scene` in its units, and what `others` call true as layers of their own.

    `threshold` is where the slider starts.
    """
    here = files(__package__)
    text = here.joinpath("page.html").read_text()
    # "</" would end the script element from within a string
    data = json.dumps(contents(scene, threshold, region, others)).replace("</", "<\\/")
    parts = {
        "@TITLE@": html.escape(scene.title),
        "@DATA@": data,
        "@SCRIPT@": "\n".join(here.joinpath(name).read_text() for name in SCRIPTS),
    }
    for mark, value in parts.items():
        text = text.replace(mark, value)
    return text


def contents(scene: Scene, threshold: float, region: Region, others: Sequence[Scene] = ()) -> dict[str, Any]:
    """What the page knows: little-endian arrays in base64, an entry per candidate, missed voxel, voxel of `others`.

    coords int16 (n, 3), flags uint8 (1 candidate, 2 true, 4 * k of the k-th other), and float32 scores, charge,
    predicted, true_charge where known.
    """
    n, m = len(scene.candidates), len(scene.missed)
    called = [other.called(threshold) for other in others]
    theirs = [other.candidates[c] for other, c in zip(others, called, strict=True)]
    amounts = [
        (other.charge if other.predicted is None else other.predicted)[c]
        for other, c in zip(others, called, strict=True)
    ]
    more = sum(map(len, theirs))
    flags = np.concatenate(
        [np.ones(n), np.full(m, 2), *(np.full(len(t), 4 * k) for k, t in enumerate(theirs, 1))]
    )
    if scene.is_true is not None:
        flags[:n] += 2 * scene.is_true

    def values(own: np.ndarray | None, missed: np.ndarray | float = 0.0) -> str:
        inside = np.zeros(n) if own is None else own
        return _pack(np.concatenate([inside, np.broadcast_to(missed, m), np.zeros(more)]), "<f4")

    known: dict[str, Any] = {}
    if scene.has_truth:
        known["true_charge"] = values(scene.true_charge, scene.missed_charge)
    if n:
        known["charge"] = _pack(np.concatenate([scene.charge, np.zeros(m), *amounts]), "<f4")
    if scene.scores is not None:
        known["scores"] = values(scene.scores)
    if scene.predicted is not None:
        known["predicted"] = values(scene.predicted)
    return {
        "coords": _pack(np.concatenate([scene.points, *theirs]), "<i2"),
        "flags": _pack(flags, "u1"),
        **known,
        "cell": list(scene.cell),
        "origin": region.origin.tolist(),
        "low": region.low.tolist(),
        "high": region.high.tolist(),
        "borders": [{"name": b.name, "low": b.low.tolist(), "high": b.high.tolist()} for b in scene.borders],
        "others": [other.title for other in others],
        "axes": list(AXES),
        "unit": region.unit,
        "threshold": threshold,
        "faint": FAINT,
        "has_truth": scene.has_truth,
        "charge_unit": scene.charge_unit,
        "truth_unit": scene.truth_unit,
    }


def _pack(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
