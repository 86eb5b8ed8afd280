r"""The fit of ``smoothloss/losses/_partition.py``: ``python docs/partition.py`` prints it.

It computes log Z and its first two derivatives in alpha by quadrature and fits, on [0, 2], with
b = 2 - alpha, L = log(b/2) and t = 1 - alpha,

    log Z = log(2 pi)/2 - b (L + K)/4 + b^2 S
    S     = FREE(t) + L TIMES_L(t) + L^2 TIMES_L2(t) + sum of RESIDUES/(alpha + POLES)

where the first three names are polynomials. The terms before S are the exact expansion at
alpha = 2; the poles stand for the essential singularity at 0. S is linear in its coefficients once
the poles are fixed; those came from a Nelder-Mead search for the least maximal error, each step of
which was such a fit.

It needs numpy and mpmath, and takes half a minute.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import exp, log, mp, mpf, sqrt  # type: ignore[import-untyped]
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Triple = tuple[Floats, Floats, Floats]  # a value, its first and its second derivative

POLES = (0.0373, 0.0773, 0.1718, 0.4598)
DEGREES = {"FREE": 3, "TIMES_L": 2, "TIMES_L2": 1}
SCALES = (2e-8, 1e-7, 1e-4)  # of the errors that count alike in value and derivatives
K = float(np.euler_gamma + 2 * np.log(2) - 1)
AT_2 = float(np.log(2 * np.pi) / 2)
STEP = 0.0625  # of the quadrature


def at_node(alpha: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    """The loss and its derivatives in alpha where 1 + u^2/b = c^2, at fixed u."""
    log_c, log_1, log_2 = log(c), (1 - c**-2) / (2 * b), (1 - c**-4) / (2 * b * b)
    power = c**alpha
    power_1 = power * (log_c + alpha * log_1)
    h = (power - 1) / alpha
    h_1 = (power_1 - h) / alpha
    power_2 = power_1 * (log_c + alpha * log_1) + power * (2 * log_1 + alpha * log_2)
    h_2 = (power_2 - 2 * h_1) / alpha
    return b * h, b * h_1 - h, b * h_2 - 2 * h_1


def reference(alpha: Any) -> tuple[Any, Any, Any]:
    """Log Z and its first two derivatives at alpha in [0, 2), to about 25 digits.

    With u = sqrt(b) sinh(s), the trapezoidal rule in s converges geometrically. The derivatives of
    log Z are cumulants of those of the loss. Extra digits cover what cancels as alpha tends to 0.
    """
    with mp.workdps(90 if alpha < 1e-3 else 40):
        alpha = max(mpf(alpha), mpf(10) ** -25)
        b = 2 - alpha
        ratio, e, k = exp(mpf(STEP)), mpf(1), 0
        z = first = second = square = mpf(0)
        while True:
            c = (e + 1 / e) / 2
            f, f_1, f_2 = at_node(alpha, b, c)
            w = c * exp(-f) * (1 if k else mpf(0.5))
            z, first, second = z + w, first + w * f_1, second + w * f_2
            square += w * f_1 * f_1
            k, e = k + 1, e * ratio
            if k * STEP >= 2 and w * (1 + f_1 * f_1 + abs(f_2)) <= mpf(10) ** -34 * z:
                break
        slope = -first / z
        return log(2 * STEP * sqrt(b) * z), slope, (square - second) / z - slope * slope


def samples(n: int, shift: float) -> Floats:
    """Rows of alpha, b, log Z and its derivatives, clustered at both ends of [0, 2]."""
    c = 1 - np.cos(np.pi * (np.arange(n) + shift) / n)
    tiny = 10 ** np.linspace(-5 + shift / 9, -1.5, n // 6)
    near_0 = np.concatenate([[0, 1e-4, 1e-3, 1e-2], tiny, c[c <= 1]])
    tiny = 1.2e-7 * 10 ** np.linspace(0, 6 - shift / 9, n // 4)
    near_2 = np.concatenate([c[c < 1], 10.0 ** np.arange(-6, 0), tiny])
    with mp.workdps(30):
        points = [(mpf(a), 2 - mpf(a)) for a in near_0] + [(2 - mpf(b), mpf(b)) for b in near_2]
        return np.array([[a, b, *reference(a)] for a, b in points], dtype=float)


def terms(alpha: Floats, b: Floats) -> list[Triple]:
    """The terms of S, with their derivatives in alpha (poles) or b (others)."""
    log_b, t, one = np.log(b / 2), b - 1, np.ones_like(b)
    factors = (
        (one, 0 * b, 0 * b),
        (log_b, 1 / b, -(b**-2)),
        (log_b**2, 2 * log_b / b, 2 * (1 - log_b) / b**2),
    )
    out = []
    for (g, g_1, g_2), degree in zip(factors, DEGREES.values(), strict=True):
        for k in range(degree + 1):
            p, p_1, p_2 = t**k, k * t ** max(k - 1, 0), k * (k - 1) * t ** max(k - 2, 0)
            out.append((g * p, g_1 * p + g * p_1, g_2 * p + 2 * g_1 * p_1 + g * p_2))
    # In b = 2 - alpha, the first derivative has the other sign.
    out += [((alpha + p) ** -1, (alpha + p) ** -2, 2 * (alpha + p) ** -3) for p in POLES]
    return out


def basis(alpha: Floats, b: Floats) -> Triple:
    """The terms of b^2 S and their derivatives in alpha: a row per point, a column per term."""
    s, s_1, s_2 = (np.stack(part) for part in zip(*terms(alpha, b), strict=True))
    return (
        (b * b * s).T,
        -(2 * b * s + b * b * s_1).T,
        (2 * s + 4 * b * s_1 + b * b * s_2).T,
    )


def system(data: Floats) -> tuple[Triple, Triple, Triple]:
    """What is fitted: the bases, the values they should have and the units of the errors."""
    alpha, b, f, f_1, f_2 = data.T
    log_b, one = np.log(b / 2), np.ones_like(b)
    wanted = f - AT_2 + b * (log_b + K) / 4, f_1 - (log_b + K + 1) / 4, f_2 + 1 / (4 * b)
    return basis(alpha, b), wanted, (one, one, np.maximum(1, abs(f_2)))


def minimax(data: Floats, steps: int = 150) -> Floats:
    """The coefficients of the least maximal error, by Lawson's reweighted least squares."""
    parts = list(zip(*system(data), SCALES, strict=True))
    matrix = np.vstack([m / (unit * scale)[:, None] for m, _, unit, scale in parts])
    wanted = np.hstack([v / (unit * scale) for _, v, unit, scale in parts])
    norm, weights = np.linalg.norm(matrix, axis=0), np.ones_like(wanted)
    best: Floats = np.zeros_like(norm)
    least = np.inf
    for _ in range(steps):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(matrix / norm * root[:, None], wanted * root, rcond=1e-15)[0] / norm
        error = abs(matrix @ found - wanted)
        if error.max() < least:
            best, least = found, error.max()
        weights *= (error / error.max() + 1e-3) / weights.mean()
    return best


def main() -> None:
    """Fit, print the coefficients, and print the errors at other points."""
    found = minimax(samples(160, 0.5))
    parts = np.split(found, np.cumsum([degree + 1 for degree in DEGREES.values()]))
    for name, part in zip((*DEGREES, "RESIDUES"), parts, strict=True):
        print(f"{name} = {tuple(part.tolist())}")
    print(f"POLES = {POLES}  # at -alpha")
    names = ("value", "first derivative", "second derivative, relative where beyond 1")
    for name, m, v, unit in zip(names, *system(samples(397, 0.37)), strict=True):
        print(f"maximal error of the {name}: {np.max(abs(m @ found - v) / unit):.2e}")


if __name__ == "__main__":
    main()
