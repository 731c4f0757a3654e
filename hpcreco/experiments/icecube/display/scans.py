"""The likelihood along each parameter, around the fit."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from hpcreco.experiments.icecube.display.load import Shown
from hpcreco.experiments.icecube.display.style import COLOURS, FIT, TRUTH


def draw_scans(shown: Shown) -> Figure:
    """Loss along each parameter."""
    table = shown.extra["scan"]
    numbers = np.unique(table["parameter"])[:12]
    columns = min(4, len(numbers))
    lines = -(-len(numbers) // columns)
    figure = Figure(figsize=(3.9 * columns, 3 * lines), layout="constrained")
    widths = shown.widths()
    best_loss = float(shown.extra["fit"]["loss"])
    for place, number in enumerate(numbers):
        axis = figure.add_subplot(lines, columns, place + 1)
        rows = table["parameter"] == number
        value, loss = table["value"][rows], table["loss"][rows] - best_loss
        name, middle = shown.names[number], float(shown.best[number])
        axis.plot(value, loss, color=COLOURS[0])
        held = _conditional(shown, name)
        if held is not None:
            axis.plot(value, 0.5 * ((value - middle) / held) ** 2, "--", color="0.5", linewidth=1.2)
        axis.axvline(middle, color=FIT, linewidth=1)
        if shown.truth is not None and value.min() <= shown.truth[number] <= value.max():
            axis.axvline(float(shown.truth[number]), color=TRUTH, linestyle=":", linewidth=1.4)
        finite = loss[np.isfinite(loss)]
        axis.set_ylim(min(-0.5, float(finite.min())), max(1.0, min(float(np.quantile(finite, 0.95)), 60.0)))
        said = f"{middle:.5g}" + (f" ± {widths[name]:.2g}" if name in widths else "")
        axis.set_title(f"{name}\n{said}", fontsize=10)
    figure.supylabel("loss above the fit's")
    return figure


def _conditional(shown: Shown, name: str) -> float | None:
    """Standard deviation with the other parameters held: one over the root of the inverse covariance's diagonal."""
    flat = shown.extra.get("covariance", {}).get("hessian")
    if flat is None or name not in shown.free:
        return None
    k, number = len(shown.free), shown.free.index(name)
    matrix = np.asarray(flat).reshape(k, k)
    if not np.isfinite(matrix).all():
        return None
    information = np.linalg.pinv(matrix, hermitian=True, rcond=1e-15)[number, number]
    return float(1 / np.sqrt(information)) if information > 0 else None
