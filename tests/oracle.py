"""The textbook formula of each loss, and its derivatives by differences at 100 digits.

An independent second opinion: nothing here knows how the library computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mpmath
import numpy as np

mpmath.mp.dps = 100

TEXTBOOK: dict[str, Callable[..., Any]] = {
    "l1_loss": abs,
    "mse_loss": lambda r: r * r,
    "smooth_l1_loss": lambda r, beta: np.where(
        abs(r) < beta, r * r / (2 * beta), abs(r) - beta / 2
    ),
    "huber_loss": lambda r, delta: np.where(
        abs(r) <= delta, r * r / 2, delta * (abs(r) - delta / 2)
    ),
}

# Error bounds in ulp of float32 and float64, for rho and psi of data whose residual is rounded.
BOUNDS = {
    "l1_loss": (0.5, 0),
    "mse_loss": (3, 0.5),
    "smooth_l1_loss": (3, 2),
    "huber_loss": (3, 0.5),
}


def as_numpy(v: mx.array) -> np.ndarray:
    """In float64, which holds every dtype of the losses."""
    return np.array(v.astype(mx.float64))


to_mp = np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])


def residual(x: mx.array, y: mx.array) -> np.ndarray:
    """x - y, exactly."""
    return to_mp(as_numpy(x)) - to_mp(as_numpy(y))


def exact(name: str, order: tuple[int, ...], r: np.ndarray, *theta: np.ndarray) -> np.ndarray:
    """The derivative of rho by the arguments in ``order``, where 0 is r and 1 the threshold.

    Central differences, of steps far below the distance to a kink and far above 1e-100.
    """
    row = [r, *theta]
    if not order:
        return np.asarray(TEXTBOOK[name](*row), dtype=object)
    i, *rest = order
    tiny = mpmath.mpf(10) ** -20
    size = abs(row[i])
    if i == 0 and theta:
        size = np.where(size == 0, theta[0], size)
    step = np.where(size == 0, 1, size) * tiny
    above, below = (
        exact(name, tuple(rest), *row[:i], row[i] + s * step, *row[i + 1 :]) for s in (1, -1)
    )
    rise = above - below
    noise = abs(rise) < (abs(above) + abs(below)) * mpmath.mpf(10) ** -60
    return np.where(noise, mpmath.mpf(0), rise / (2 * step))


_LAYOUT = {mx.float32: (24, -149, 127), mx.float64: (53, -1074, 1023)}


def ulps(got: mx.array, want: np.ndarray) -> np.ndarray:
    """|got - want| in units in the last place of want; an overflow that is due counts as 0."""
    digits, least, top = _LAYOUT[got.dtype]
    largest = (2 - mpmath.mpf(2) ** -digits) * mpmath.mpf(2) ** top
    out = []
    for g, w in zip(as_numpy(got).ravel(), want.ravel(), strict=True):
        exponent = mpmath.frexp(w)[1] if w else least
        unit = mpmath.mpf(2) ** max(exponent - digits, least)
        if abs(w) >= largest:
            out.append(0.0 if g == np.sign(w) * np.inf else np.inf)
        else:
            out.append(float(abs(mpmath.mpf(float(g)) - w) / unit) if np.isfinite(g) else np.inf)
    return np.round(out, 6)


def wide_psi(name: str, r: np.ndarray, *theta: np.ndarray) -> np.ndarray:
    """Psi in extended precision by a central difference, for whole grids of half-precision r."""
    step = np.where(r == 0, np.longdouble(2) ** -200, abs(r) * np.longdouble(2) ** -24)
    rho = TEXTBOOK[name]
    return (rho(r + step, *theta) - rho(r - step, *theta)) / (2 * step)
