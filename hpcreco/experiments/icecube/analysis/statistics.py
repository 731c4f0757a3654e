"""Numbers of a reconstruction: resolutions against energy, coverage, pulls, calibration of times."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcreco.experiments.icecube.analysis.results import Results

Row = dict[str, float | int | str]
FROM_GRADIENTS = ("opg", "sandwich", "sandwich_fit")  # covariances estimated from the terms of each event
DOMS_PER_PARAMETER = 10  # with light; fewer make such an estimate far off


def energy_bins(energy: np.ndarray, per_decade: int = 2) -> np.ndarray:
    """Edges of logarithmic bins that hold all energies."""
    known = energy[np.isfinite(energy) & (energy > 0)]
    if not len(known):
        return np.array([1.0, 10.0])
    low = np.floor(np.log10(known.min()) * per_decade + 1e-6) / per_decade
    high = np.ceil(np.log10(known.max()) * per_decade - 1e-6) / per_decade
    count = max(1, round((high - low) * per_decade))
    return np.logspace(low, max(high, low + 1 / per_decade), count + 1)


def resolutions(results: Results) -> list[Row]:
    """Per bin of true energy, and over all: median and 68 % of errors of fit and seed, median and width of ln E."""
    energy = results.value("energy", "truth")
    if energy is None:
        return []
    edges = energy_bins(energy)
    groups = [(lo, hi, (energy >= lo) & (energy < hi)) for lo, hi in pairwise(edges)]
    groups.append((edges[0], edges[-1], np.isfinite(energy)))
    rows = []
    for low, high, chosen in groups:
        if not chosen.any():
            continue
        row: Row = {"energy_low": float(low), "energy_high": float(high), "events": int(chosen.sum())}
        for which, suffix in (("parameters", ""), ("seed", "_seed")):
            for name, error, scale in (
                ("angle_deg", results.opening(which), np.degrees(1.0)),
                ("vertex_m", results.vertex(which), 1.0),
            ):
                if error is not None:
                    median, most = np.nanquantile(error[chosen] * scale, [0.5, 0.68])
                    row |= {f"{name}_median{suffix}": float(median), f"{name}_68{suffix}": float(most)}
            ratio = results.log_energy(which)
            if ratio is not None:
                low_, middle, high_ = np.nanquantile(ratio[chosen], [0.16, 0.5, 0.84])
                row |= {f"ln_e_bias{suffix}": float(middle), f"ln_e_width{suffix}": float((high_ - low_) / 2)}
        rows.append(row)
    return rows


def pulls(results: Results) -> list[Row]:
    """Per parameter and kind of covariance: mean, standard deviation, and the share within one standard deviation."""
    if not results.has_truth:
        return []
    rows = []
    for kind in results.covariance:
        for name in results.free:
            pull = results.pull(name, kind)
            known = pull[np.isfinite(pull)]
            if not len(known):
                continue
            low, high = np.quantile(known, [0.1587, 0.8413])
            rows.append(
                {
                    "parameter": name,
                    "covariance": kind,
                    "events": len(known),
                    "mean": float(known.mean()),
                    "std": float(known.std()),
                    "width_68": float((high - low) / 2),
                    "within_1_sigma": float((np.abs(known) < 1).mean()),
                }
            )
    return rows


@dataclass(frozen=True)
class Coverage:
    """For nominal probabilities (m,), the share of events (m,) whose truth lies within, by name of the uncertainty."""

    nominal: np.ndarray
    found: dict[str, np.ndarray]


def coverage(results: Results, points: int = 41) -> Coverage | None:
    """How often the truth lies within what the uncertainty of the direction, and the whole covariance, say."""
    if not results.has_truth:
        return None
    nominal = np.linspace(0, 1, points)
    found = {}
    psi = results.opening()
    for name, sigma in results.direction.items():
        if psi is not None:
            label = {"circular": "direction, circularised", "from_covariance": "direction, covariance"}.get(
                name, name
            )
            found[label] = _share(-np.expm1(-(psi**2) / (2 * np.maximum(sigma, 1e-9) ** 2)), nominal)
    few = few_terms(results)
    for kind, matrix in results.covariance.items():
        if kind in FROM_GRADIENTS and few > 0.5:
            continue  # `few_terms` says why
        found[f"all parameters, {kind}"] = _share(_mahalanobis_probability(results, matrix), nominal)
    return Coverage(nominal, found) if found else None


def few_terms(results: Results) -> float:
    """Share of events with too few DOMs with light for a covariance from gradients."""
    doms = results.fit.get("doms")
    return 0.0 if doms is None else float((doms < DOMS_PER_PARAMETER * len(results.free)).mean())


def warnings(results: Results) -> list[str]:
    """What a reader of the numbers has to know."""
    kinds = [kind for kind in FROM_GRADIENTS if kind in results.covariance]
    few = few_terms(results)
    if not kinds or not few:
        return []
    said = "their coverage is not shown" if few > 0.5 else "take their coverage with care"
    text = (
        f"{', '.join(kinds)}: estimates from the terms of each event; {few:.0%} of the events have fewer than "
        f"{DOMS_PER_PARAMETER} DOMs with light per parameter, which is too few: {said}; use hessian"
    )
    return [text]


def _mahalanobis_probability(results: Results, matrix: np.ndarray) -> np.ndarray:
    """(n,) probability content of the ellipsoid that the truth lies on."""
    from scipy.stats import chi2

    residual = np.stack([results.residual(name) for name in results.free], 1)
    # energies were subtracted as logarithms; their covariance is in physical units
    scale = np.ones_like(residual)
    for k, name in enumerate(results.free):
        if name in results.log:
            scale[:, k] = 1 + results.fit["parameters"][:, results.names.index(name)]
    inner = matrix / (scale[:, :, None] * scale[:, None, :])
    distance = np.full(len(residual), np.nan)
    for event in np.flatnonzero(np.isfinite(inner).all((1, 2))):
        distance[event] = residual[event] @ np.linalg.pinv(inner[event]) @ residual[event]
    return chi2.cdf(distance, residual.shape[1])


def _share(probability: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    known = probability[np.isfinite(probability)]
    return (known[:, None] <= nominal).mean(0) if len(known) else np.full(len(nominal), np.nan)


def summary(results: Results) -> list[Row]:
    """One row: what of the fits as such can be said in numbers."""
    fit = results.fit
    finite = np.isfinite(fit["loss"])
    row: Row = {
        "events": results.n_events,
        "failed": int((~finite).sum()),
        "converged": float(fit["converged"].mean()),
        "evaluations_mean": float(fit["evaluations"].mean()),
        "seconds_per_event": float(fit["seconds"].mean()),
        "gain_over_seed": float(np.median((fit["seed_loss"] - fit["loss"])[finite]))
        if finite.any()
        else np.nan,
    }
    if "truth_loss" in fit:
        below = fit["truth_loss"] - fit["loss"]
        known = np.isfinite(below)
        row |= {
            "gain_over_truth": float(np.mean(below[known])) if known.any() else np.nan,
            "worse_than_truth": int((below[known] < -0.01).sum()),
        }
    return [row]
