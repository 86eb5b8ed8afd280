r"""How efficient a loss is where errors are normal, and the threshold of a given efficiency.

The asymptotic variance of the M-estimator of a location, from normal errors of standard deviation
1, is :math:`E\psi^2 / (E\psi')^2`; that of the mean is 1. By Stein's identity
:math:`E\psi'(r) = E\,r\psi(r)`, which holds for a psi that jumps as well, as that of L1. So

.. math:: \text{efficiency} = \frac{(E\,r\psi)^2}{E\psi^2}

The expectations are integrals of smooth pieces: psi is split at its kinks, and at powers of two,
which follow a threshold of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import numpy as np

from ._threshold import Threshold, as_float, is_number

if TYPE_CHECKING:
    from ._robust import RobustNorm

FARTHEST = 40.0
"""Beyond it the density of the normal distribution is 0 in float64."""
PANELS = np.concatenate([[0.0], 2.0 ** np.arange(-40, 5.25, 0.25), [FARTHEST]])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
OCTAVES = range(-12, 13)
"""Of the thresholds that are searched, in standard deviations of the errors."""
ENOUGH = 1e-13
"""An error in efficiency, or in octaves, that is none."""


def efficiency(norm: RobustNorm) -> float:
    """Return the efficiency of a norm. See :meth:`RobustNorm.efficiency`."""
    kinks = cast("tuple[float, ...]", norm.traits.kinks or ())
    kinks = tuple(k for k in kinks if 0 < k < FARTHEST)
    ends = np.unique([*PANELS, *kinks])
    half = np.diff(ends)[:, None] / 2
    r = (ends[:-1, None] + half * (1 + NODES)).ravel()
    mass = (half * WEIGHTS).ravel() * np.exp(-r * r / 2)
    mass /= mass.sum()  # of the half line, like E psi^2 and E r psi of an odd psi
    with mx.stream(mx.cpu):
        right, left = (np.array(norm.psi(mx.array(x, mx.float64))) for x in (r, -r))
    if not np.allclose(right, -left, rtol=1e-6, atol=0):
        raise ValueError(
            f"RobustNorm: {norm} is not even; expected rho(-r) = rho(r), for which efficiency is "
            f"defined here. Take a symmetric loss, or a quantile of 0.5."
        )
    largest = np.abs(right).max() or 1.0
    psi = right / largest  # whose square stays in range
    square = mass @ psi**2
    return float((mass @ (r * psi)) ** 2 / square) if square > 0 else math.nan


def tuning(norm: RobustNorm, target: float, name: str | None) -> float:
    """Return the threshold of an efficiency. See :meth:`RobustNorm.tuning`."""
    if not is_number(target) or not 0 < as_float(target) < 1:
        raise ValueError(
            f"RobustNorm: `efficiency` is {target!r}; expected a number above 0 and below 1. Pass "
            f"0.95 for 95 %."
        )
    spec = _tuned(norm, name)

    def excess(octave: float) -> float:
        thresholds = {**norm.thresholds, spec.name: 2.0**octave}
        return efficiency(type(norm)(norm.loss, **thresholds)) - as_float(target)

    # From above: of several solutions, the largest threshold is that of the surest minimum.
    found: list[float] = []
    for octave in reversed(OCTAVES):
        found.append(excess(octave))
        if found[1:] and found[-1] * found[-2] <= 0:
            return float(2.0 ** _root(excess, octave, octave + 1, *found[:-3:-1]))
    low, high = (edge(found) + as_float(target) for edge in (np.nanmin, np.nanmax))
    raise ValueError(
        f"RobustNorm: `efficiency` is {target}; expected one that {norm.loss.name} reaches by "
        f"{spec.name}, above {low:.6g} and below {high:.6g}. Pass such a one, or take another loss."
    )


def _tuned(norm: RobustNorm, name: str | None) -> Threshold:
    """The threshold that is tuned."""
    scales = [spec for spec in norm.loss.thresholds if spec.has_residual_units]
    names = [spec.name for spec in scales]
    if not names:
        raise ValueError(
            f"RobustNorm: {norm.loss.name} has no threshold in units of the residual; expected one "
            f"to tune. Its efficiency is {efficiency(norm):.6g}; take another loss for another."
        )
    if name is None and len(names) > 1:
        raise ValueError(
            f"RobustNorm: {norm.loss.name} has the thresholds {', '.join(names)}; expected to be "
            f"told which to tune. Pass threshold={names[0]!r}; the others stay as they are."
        )
    if name is not None and name not in names:
        raise ValueError(
            f"RobustNorm: `threshold` is {name!r}; expected {' or '.join(names)}, in units of the "
            f"residual. Correct the name."
        )
    return scales[0 if name is None else names.index(name)]


def _root(excess: Callable[[float], float], a: float, b: float, at_a: float, at_b: float) -> float:
    """Find where a function is 0, between two values of which it has opposite signs.

    By the secant, with a value halved that stays twice (the Illinois method).
    """
    while abs(at_b) > ENOUGH and abs(b - a) > ENOUGH:
        c = b - at_b * (b - a) / (at_b - at_a)
        at_c = excess(c)
        a, at_a = (a, at_a / 2) if at_c * at_b > 0 else (b, at_b)
        b, at_b = c, at_c
    return b
