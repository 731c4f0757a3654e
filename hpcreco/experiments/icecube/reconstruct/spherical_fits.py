"""Distributions on the sphere fitted to directions: what samples of a posterior come down to. Torch-free.

von_mises_fisher: exp(kappa m.x), circular. gauss: normal in the plane that touches the sphere at the mean. kent (FB5):
exp(kappa g1.x + beta ((g2.x)^2 - (g3.x)^2)), elliptical (J. T. Kent, J. R. Stat. Soc. B 44, 1982). fb8: exp(a.x + x'Bx)
with any a and any symmetric B without trace, the whole Fisher-Bingham family: also bent and with two maxima.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_POLAR, _AZIMUTHAL = 96, 128  # points of the quadrature
_REACH = 10.0  # standard deviations within which a distribution is integrated
_FLAT = 1e-9  # directions of statistics whose variance is a smaller share of the largest say nothing


@dataclass(frozen=True)
class SphericalFit:
    """values: parameters by name, angles in rad. log_density: unit vectors (n, 3) -> (n,), per steradian."""

    kind: str
    values: dict[str, float]
    log_density: Callable[[np.ndarray], np.ndarray]


def vectors(zenith: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors."""
    sine = np.sin(zenith)
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), np.cos(zenith)], -1)


def von_mises_fisher(x: np.ndarray) -> SphericalFit:
    """Of unit vectors (n, 3), by maximum likelihood."""
    from scipy.stats import vonmises_fisher

    mean, kappa = vonmises_fisher.fit(x)
    log_norm = math.log(kappa / (2 * math.pi)) - math.log(-math.expm1(-2 * kappa))
    values = _direction(mean) | {"kappa": float(kappa)}
    return SphericalFit("von_mises_fisher", values, lambda v: log_norm + kappa * (v @ mean - 1.0))


def gauss(x: np.ndarray) -> SphericalFit:
    """major, minor: standard deviations, rad. angle: of the major axis, from larger zenith towards larger azimuth."""
    frame = _frame(x)
    plane = x @ frame[:, :2]
    values, axes = np.linalg.eigh(np.cov(plane.T))
    inverse = np.linalg.inv(np.cov(plane.T))
    centre = plane.mean(0)
    log_norm = -math.log(2 * math.pi) - 0.5 * math.log(values[0] * values[1])

    def log_density(v: np.ndarray) -> np.ndarray:
        away = v @ frame[:, :2] - centre
        return log_norm - 0.5 * np.einsum("ni,ij,nj->n", away, inverse, away)

    found = {
        **_direction(frame[:, 2]),
        "major": float(np.sqrt(values[1])),
        "minor": float(np.sqrt(values[0])),
        "angle": math.atan2(axes[1, 1], axes[0, 1]) % math.pi,
    }
    return SphericalFit("gauss", found, log_density)


def kent(x: np.ndarray) -> SphericalFit:
    """kappa, beta (0 <= beta) and the angle of the longer axis, by maximum likelihood from Kent's moment estimates."""
    from scipy.optimize import minimize
    from scipy.spatial.transform import Rotation

    frame = _principal(x)
    grid = Quadrature.around(x)
    mean, second = x.mean(0), x.T @ x / len(x)
    r1 = float(np.linalg.norm(mean))
    spread = float(frame[:, 0] @ second @ frame[:, 0] - frame[:, 1] @ second @ frame[:, 1])
    start = [1 / (2 - 2 * r1 - spread), 1 / (2 - 2 * r1 + spread)]
    kappa, beta = sum(start), max(0.5 * (start[0] - start[1]), 1e-3 * sum(start))

    def natural(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = frame @ Rotation.from_rotvec(values[:3]).as_matrix()
        g2, g3, g1 = turned.T
        strength = kappa * math.exp(values[3])
        lengthened = beta * math.exp(values[4])
        return strength * g1, lengthened * (np.outer(g2, g2) - np.outer(g3, g3))

    def loss(values: np.ndarray) -> float:
        a, b = natural(values)
        return grid.log_norm(a, b) - float(a @ mean) - float((b * second).sum())

    width = 1 / math.sqrt(kappa)
    simplex = np.zeros((6, 5))
    simplex[np.arange(1, 6), np.arange(5)] = [0.3 * width, 0.3 * width, 0.3, 0.2, 0.4]
    options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9, "maxiter": 2000, "maxfev": 2000}
    best = minimize(loss, np.zeros(5), method="Nelder-Mead", options=options).x
    a, b = natural(best)
    axis = (frame @ Rotation.from_rotvec(best[:3]).as_matrix())[:, 0]
    values = {
        **_direction(a / np.linalg.norm(a)),
        "kappa": float(np.linalg.norm(a)),
        "beta": beta * math.exp(best[4]),
        "angle": _angle(axis, a / np.linalg.norm(a)),
    }
    return SphericalFit("kent", values, _density(a, b, grid))


def fb8(x: np.ndarray) -> SphericalFit:
    """a_x ... a_z and b_xx ... b_yz, by maximum likelihood: convex in them, so Newton's steps find the only minimum.

    Statistics that do not vary in the samples keep the parameter 0: of a narrow distribution, those that would be seen
    only in its curvature.
    """
    grid = Quadrature.around(x)
    sample, nodes = _statistics(x), _statistics(grid.x)
    middle = sample.mean(0)
    values, axes = np.linalg.eigh(np.cov(sample.T))
    keep = values > _FLAT * values[-1]
    scale = axes[:, keep] / np.sqrt(values[keep])
    wanted, known = np.zeros(int(keep.sum())), (nodes - middle) @ scale
    theta = np.zeros(len(wanted))
    lowest, gradient, hessian = _newton(theta, known, grid.log_weight, wanted)
    for _ in range(100):
        step = np.linalg.solve(hessian + 1e-10 * np.eye(len(theta)), gradient)
        factor = 1.0
        while factor > 1e-6:
            new = _newton(theta - factor * step, known, grid.log_weight, wanted)
            if new[0] <= lowest - 1e-4 * factor * float(gradient @ step):
                break
            factor /= 2
        else:
            break
        theta, gain = theta - factor * step, lowest - new[0]
        lowest, gradient, hessian = new
        if gain < 1e-12:
            break
    natural = scale @ theta
    b = np.zeros((3, 3))
    b[0, 0], b[1, 1], b[0, 1], b[0, 2], b[1, 2] = natural[3:]
    b = (b + b.T) / 2
    b[2, 2] = -(b[0, 0] + b[1, 1])
    a = natural[:3]
    names = ("a_x", "a_y", "a_z", "b_xx", "b_yy", "b_xy", "b_xz", "b_yz")
    found = dict(zip(names, (*a, b[0, 0], b[1, 1], b[0, 1], b[0, 2], b[1, 2]), strict=True))
    return SphericalFit("fb8", {n: float(v) for n, v in found.items()}, _density(a, b, grid))


FITS = {"von_mises_fisher": von_mises_fisher, "gauss": gauss, "kent": kent, "fb8": fb8}


@dataclass(frozen=True)
class Quadrature:
    """Points x (m, 3) on the sphere and the ln of the solid angle of each."""

    x: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def around(cls, x: np.ndarray) -> Quadrature:
        """For distributions like that of unit vectors (n, 3): a cap that holds them, the whole sphere where needed."""
        frame = _frame(x)
        width = math.sqrt(float(np.linalg.eigvalsh(np.cov((x @ frame[:, :2]).T))[-1]))
        farthest = float(np.arccos(np.clip(x @ frame[:, 2], -1, 1)).max())
        edge = min(math.pi, max(_REACH * width, 1.5 * farthest))
        node, weight = np.polynomial.legendre.leggauss(_POLAR)
        polar = 0.5 * edge * (node + 1)
        around = 2 * math.pi * (np.arange(_AZIMUTHAL) + 0.5) / _AZIMUTHAL
        theta, phi = (grid.reshape(-1) for grid in np.meshgrid(polar, around, indexing="ij"))
        area = 0.5 * edge * weight * np.sin(polar) * 2 * math.pi / _AZIMUTHAL
        return cls(vectors(theta, phi) @ frame.T, np.log(np.repeat(area, _AZIMUTHAL)))

    def log_norm(self, a: np.ndarray, b: np.ndarray) -> float:
        """ln of the integral of exp(a.x + x'Bx)."""
        from scipy.special import logsumexp

        return float(logsumexp(self.x @ a + np.einsum("ni,ij,nj->n", self.x, b, self.x) + self.log_weight))


def _density(a: np.ndarray, b: np.ndarray, grid: Quadrature) -> Callable[[np.ndarray], np.ndarray]:
    norm = grid.log_norm(a, b)
    return lambda v: v @ a + np.einsum("ni,ij,nj->n", v, b, v) - norm


def _newton(
    theta: np.ndarray, known: np.ndarray, log_weight: np.ndarray, wanted: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean of minus ln density (the mean of the statistics is `wanted`), its gradient and second derivatives."""
    exponent = known @ theta + log_weight
    top = exponent.max()
    weight = np.exp(exponent - top)
    total = weight.sum()
    weight /= total
    mean = weight @ known
    away = known - mean
    return (
        float(top + math.log(total) - theta @ wanted),
        mean - wanted,
        (away * weight[:, None]).T @ away,
    )


def _statistics(x: np.ndarray) -> np.ndarray:
    """(n, 8): x, y, z, x^2 - z^2, y^2 - z^2, xy, xz, yz."""
    a, b, c = x.T
    return np.stack([a, b, c, a * a - c * c, b * b - c * c, a * b, a * c, b * c], 1)


def _frame(x: np.ndarray) -> np.ndarray:
    """(3, 3) columns: towards larger zenith, towards larger azimuth, the mean direction."""
    mean = x.mean(0)
    mean = mean / np.linalg.norm(mean)
    zenith, azimuth = math.acos(np.clip(mean[2], -1, 1)), math.atan2(mean[1], mean[0])
    south = vectors(np.array(zenith + math.pi / 2), np.array(azimuth))
    return np.stack([south, [-math.sin(azimuth), math.cos(azimuth), 0.0], mean], 1)


def _principal(x: np.ndarray) -> np.ndarray:
    """`_frame` turned so that its first column is the longer axis."""
    frame = _frame(x)
    axes = np.linalg.eigh(frame[:, :2].T @ (x.T @ x / len(x)) @ frame[:, :2])[1][:, ::-1]
    plane = frame[:, :2] @ axes
    if np.dot(np.cross(plane[:, 0], plane[:, 1]), frame[:, 2]) < 0:
        plane[:, 1] *= -1
    return np.column_stack([plane, frame[:, 2]])


def _direction(mean: np.ndarray) -> dict[str, float]:
    zenith = math.atan2(math.hypot(mean[0], mean[1]), mean[2])
    return {"zenith": zenith, "azimuth": math.atan2(mean[1], mean[0]) % (2 * math.pi)}


def _angle(axis: np.ndarray, mean: np.ndarray) -> float:
    """Of an axis around a direction, from larger zenith towards larger azimuth, in [0, pi)."""
    frame = _frame(mean[None])
    return math.atan2(float(axis @ frame[:, 1]), float(axis @ frame[:, 0])) % math.pi
