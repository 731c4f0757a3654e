"""The likelihood over the sky, as a scan found it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpcreco.experiments.icecube.display.load import Shown
from hpcreco.experiments.icecube.display.style import FIT, TRUTH
from hpcreco.experiments.icecube.healpix import combined

Span = tuple[float, float]  # rad


def draw_sky(shown: Shown) -> Figure:
    """The scan on the whole sky, and close around its minimum."""
    table = shown.extra["sky"]
    rise = 2 * (table["loss"] - np.nanmin(table["loss"]))
    whole = combined(table["nside"], table["pixel"], rise)
    figure = Figure(figsize=(14.5, 5.2), layout="constrained")
    broad, close = figure.subplots(1, 2, width_ratios=(1.7, 1))
    everywhere, near = ((0.0, 2 * np.pi), (0.0, np.pi)), _around_minimum(shown, table, rise)
    _draw_map(figure, broad, whole, *everywhere)
    grid = _draw_map(figure, close, whole, *near, limit=40.0)
    close.contour(*grid, levels=[1.386, 4.605], colors="w", linestyles=["-", "--"])
    _mark(broad, shown, everywhere[0])
    _mark(close, shown, near[0])
    broad.set_title("whole sky")
    close.set_title("around the minimum; lines hold 50 % and 90 %")
    figure.legend(handles=_handles(shown), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _around_minimum(shown: Shown, table: Any, rise: np.ndarray) -> tuple[Span, Span]:
    """Azimuths and zeniths of a window that holds the region of 90 %."""
    from hpcreco.experiments.icecube.analysis.results import unit

    best = table["parameters"][int(np.nanargmin(table["loss"]))]
    zenith, azimuth = shown.role("zenith", best), shown.role("azimuth", best)
    reach = np.radians(
        1.1 * max(12.0, _extent(table, rise, unit(np.array([zenith]), np.array([azimuth]))[0]))
    )
    aside = reach / np.sin(max(zenith, 0.2))
    return (azimuth - aside, azimuth + aside), (max(0.0, zenith - reach), min(np.pi, zenith + reach))


def _extent(table: Any, rise: np.ndarray, centre: np.ndarray) -> float:
    """Degrees from the minimum to the farthest pixel within 90 %."""
    import healpy

    far = 0.0
    for nside, pixel, value in zip(table["nside"], table["pixel"], rise, strict=True):
        if value < 4.6:
            place = np.array(healpy.pix2vec(int(nside), int(pixel), nest=True))
            far = max(far, float(np.degrees(np.arccos(np.clip(place @ centre, -1, 1)))))
    return min(far, 60.0)


def _draw_map(
    figure: Figure, axis: Axes, whole: np.ndarray, azimuths: Span, zeniths: Span, limit: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A window of the NESTED map `whole`; returns azimuth and zenith in degrees, and what is shown, as grids.

    limit: where the colours end; by default above the lower 60 % of what is shown.
    """
    import healpy

    a, z = np.meshgrid(np.linspace(*azimuths, 500), np.linspace(*zeniths, 400))
    image = whole[healpy.ang2pix(healpy.npix2nside(len(whole)), z, np.mod(a, 2 * np.pi), nest=True)]
    if limit is None:
        limit = max(float(np.nanquantile(image[np.isfinite(image)], 0.6)), 10.0)
    colours = axis.imshow(
        image, extent=(*np.degrees(azimuths), *np.degrees(zeniths[::-1])), aspect="auto", cmap="viridis_r",
        norm=Normalize(0, limit), interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(colours, ax=axis, label="2 Δ loss", extend="max")
    axis.set(
        xlim=np.degrees(azimuths),
        ylim=np.degrees(zeniths[::-1]),
        xlabel="azimuth [degrees]",
        ylabel="zenith [degrees]",
    )
    return np.degrees(a), np.degrees(z), image


def _mark(axis: Axes, shown: Shown, azimuths: Span) -> None:
    """Truth and fit, turned to where the window is."""
    for colour, values, marker in ((TRUTH, shown.truth, "x"), (FIT, shown.best, "+")):
        azimuth, zenith = shown.role("azimuth", values), shown.role("zenith", values)
        if azimuth is not None and np.isfinite(azimuth):
            turns = np.round((sum(azimuths) / 2 - azimuth) / (2 * np.pi))
            place = np.degrees([azimuth + 2 * np.pi * turns, zenith])
            axis.plot(*place, marker, color=colour, markersize=11, markeredgewidth=2.2)


def _handles(shown: Shown) -> list[Line2D]:
    """What the marks mean."""
    marks = [("x", TRUTH, "truth")] if shown.truth is not None else []
    return [
        Line2D([], [], marker=marker, linestyle="", color=colour, label=label, markeredgewidth=2)
        for marker, colour, label in (*marks, ("+", FIT, "fit"))
    ]
