"""The likelihood around a fit: over the sky, and along each parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpcreco.experiments.icecube.display.load import Shown
from hpcreco.experiments.icecube.display.style import COLOURS, FIT, TRUTH


def draw_sky(shown: Shown) -> Figure:
    """The scan on the whole sky, and close around its minimum."""
    import healpy

    from hpcreco.experiments.icecube.analysis.results import unit

    table = shown.extra["sky"]
    rise = 2 * (table["loss"] - np.nanmin(table["loss"]))
    whole = _finest(table["nside"], table["pixel"], rise)
    nside = healpy.npix2nside(len(whole))
    figure = Figure(figsize=(14.5, 5.2), layout="constrained")
    broad, close = figure.subplots(1, 2, width_ratios=(1.7, 1))
    best = table["parameters"][int(np.nanargmin(table["loss"]))]
    zenith, azimuth = shown.role("zenith", best), shown.role("azimuth", best)
    width = 1.1 * max(12.0, _extent(table, rise, unit(np.array([zenith]), np.array([azimuth]))[0]))
    low, high = (
        azimuth - np.radians(width) / np.sin(max(zenith, 0.2)),
        azimuth + np.radians(width) / np.sin(max(zenith, 0.2)),
    )
    top = max(0.0, zenith - np.radians(width)), min(np.pi, zenith + np.radians(width))
    for axis, azimuths, zeniths in ((broad, (0, 2 * np.pi), (0, np.pi)), (close, (low, high), top)):
        a, z = np.meshgrid(np.linspace(*azimuths, 500), np.linspace(*zeniths, 400))
        image = whole[healpy.ang2pix(nside, z, np.mod(a, 2 * np.pi), nest=True)]
        limit = float(np.nanquantile(image[np.isfinite(image)], 0.6)) if axis is broad else 40.0
        extent = (*np.degrees(azimuths), *np.degrees(zeniths[::-1]))
        shown_image = axis.imshow(
            image, extent=extent, aspect="auto", cmap="viridis_r", norm=Normalize(0, max(limit, 10.0)),
            interpolation="nearest",
        )  # fmt: skip
        figure.colorbar(shown_image, ax=axis, label="2 Δ loss", extend="max")
        if axis is close:
            lines = {"levels": [1.386, 4.605], "colors": "w", "linestyles": ["-", "--"]}
            axis.contour(np.degrees(a), np.degrees(z), image, **lines)
        for colour, values, marker in ((TRUTH, shown.truth, "x"), (FIT, shown.best, "+")):
            place = shown.role("azimuth", values), shown.role("zenith", values)
            if place[0] is not None and np.isfinite(place[0]):
                turned = place[0] + 2 * np.pi * np.round(
                    ((azimuths[0] + azimuths[1]) / 2 - place[0]) / (2 * np.pi)
                )
                axis.plot(
                    *np.degrees([turned, place[1]]), marker, color=colour, markersize=11, markeredgewidth=2.2
                )
        axis.set(
            xlim=np.degrees(azimuths),
            ylim=np.degrees(zeniths[::-1]),
            xlabel="azimuth [degrees]",
            ylabel="zenith [degrees]",
        )
    broad.set_title("whole sky")
    close.set_title("around the minimum; lines hold 50 % and 90 %")
    handles = (
        [Line2D([], [], marker="x", linestyle="", color=TRUTH, label="truth", markeredgewidth=2)]
        if shown.truth is not None
        else []
    )
    handles.append(Line2D([], [], marker="+", linestyle="", color=FIT, label="fit", markeredgewidth=2))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _finest(nside: np.ndarray, pixel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """NESTED map at the finest resolution; a finer pixel beats a coarser one."""
    finest = int(nside.max())
    whole = np.full(12 * finest**2, np.nan)
    for resolution in np.unique(nside):
        share = (finest // int(resolution)) ** 2
        own = nside == resolution
        whole.reshape(-1, share)[pixel[own]] = values[own][:, None]
    return whole


def _extent(table: Any, rise: np.ndarray, centre: np.ndarray) -> float:
    """Degrees from the minimum to the farthest pixel within 90 %."""
    import healpy

    far = 0.0
    for nside, pixel, value in zip(table["nside"], table["pixel"], rise, strict=True):
        if value < 4.6:
            place = np.array(healpy.pix2vec(int(nside), int(pixel), nest=True))
            far = max(far, float(np.degrees(np.arccos(np.clip(place @ centre, -1, 1)))))
    return min(far, 60.0)


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
