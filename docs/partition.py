r"""The fit of ``smoothloss/losses/_partition.py``: ``python docs/partition.py`` prints it.

With b = 2 - alpha and w = -log(b/2), log Z on [0, 2] is

    log Z = log(2 pi)/2 - b (K - w)/4 + b^2 S(w)

where the terms before S are the exact expansion at alpha = 2. It computes S by quadrature and
interpolates it between the knots, which are the wider apart the farther from alpha = 0, where log Z
has an essential singularity. The last piece is used beyond its end, where b^2 is next to nothing.

It needs numpy and mpmath, and takes some seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import euler, exp, log, mp, mpf, pi, sqrt  # type: ignore[import-untyped]
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KNOTS = (0.0, 0.014, 0.045, 0.11, 0.25, 0.57, 1.4, 3.8, 10.0)  # of w
END = 20.0  # of the last piece
DEGREE = 11
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
    with mp.workdps(90 if alpha < 1e-3 else 50):
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
            if k * STEP >= 2 and w * (1 + f_1 * f_1 + abs(f_2)) <= mpf(10) ** -40 * z:
                break
        slope = -first / z
        return log(2 * STEP * sqrt(b) * z), slope, (square - second) / z - slope * slope


def s(w: float) -> tuple[float, float, float]:
    """S, and what the first and the second derivative of log Z hold of it."""
    with mp.workdps(50):
        b = 2 * exp(-mpf(w))
        k = euler + 2 * log(2) - 1
        value, first, second = reference(2 - b)
        return (
            float((value - log(2 * pi) / 2 + b * (k - w) / 4) / b**2),
            float((first - (k + 1 - w) / 4) / b),
            float(second + 1 / (4 * b)),
        )


def terms(t: float, width: float) -> Floats:
    """The powers of t/width as S, and what the derivatives of log Z hold of them, row by row."""
    n = np.arange(DEGREE + 1)
    power, slope, bend = (
        factor * (t / width) ** np.maximum(n - order, 0) / width**order
        for order, factor in enumerate((n**0, n, n * (n - 1)))
    )
    return np.array([power, slope - 2 * power, 2 * power - 3 * slope + bend])


def interpolated(start: float, end: float) -> Floats:
    """The coefficients of S between two knots, in powers of the distance from the first.

    There it joins the next piece up to the second derivative; else it goes through Chebyshev nodes.
    """
    inner, width = DEGREE - 5, end - start
    nodes = width / 2 * (1 - np.cos(np.pi * (np.arange(inner) + 0.5) / inner))
    rows = [terms(0, width), terms(width, width), *(terms(t, width)[:1] for t in nodes)]
    wanted = [s(start), s(end), *(s(start + t)[:1] for t in nodes)]
    scaled: Floats = np.linalg.solve(np.vstack(rows), np.concatenate(wanted))
    return scaled / width ** np.arange(DEGREE + 1)


def main() -> None:
    """Fit, print the coefficients, and print the errors at other points."""
    print(f"KNOTS = {KNOTS}")
    print("TABLE = (")
    worst = np.zeros(3)
    for start, end in zip(KNOTS, (*KNOTS[1:], END), strict=True):
        fit, width = interpolated(start, end), end - start
        row = [f"{c:.12g}" for c in fit]
        lines = [", ".join(row[i : i + 4]) for i in range(0, DEGREE + 1, 4)]
        print("    (" + ",\n     ".join(lines) + "),")
        for t in np.linspace(0, width, 23):
            b = 2 * np.exp(-start - t)
            off = abs(terms(t, width) @ (fit * width ** np.arange(DEGREE + 1)) - s(start + t))
            worst = np.maximum(worst, off * (b * b, b, 1 / max(1, 0.25 / b)))
    print(")")
    names = ("value", "first derivative", "second derivative, relative where beyond 1")
    for name, error in zip(names, worst, strict=True):
        print(f"maximal error of the {name}: {error:.1e}")


if __name__ == "__main__":
    main()
