r"""The normalising constant of the general loss: :math:`Z(\alpha) = \int e^{-f(u, \alpha)}\,du`.

On [0, 2], with :math:`b = 2 - \alpha,\ l = \log(b/2)` and :math:`K = \gamma + 2\log 2 - 1`,

.. math:: \log Z = \tfrac12\log 2\pi - \tfrac b4 (l + K) + b^2 S(\alpha)

where the first two terms are exact at :math:`\alpha = 2` and S is fitted, value, first and second
derivative at once, in the minimax sense (``docs/partition.py`` does it): three polynomials in
:math:`1 - \alpha`, free, times l and times :math:`l^2`, and four poles below 0 for the essential
singularity at 0. The value is off by 2e-8 at most and the derivative by 2e-7; in float32, with
its rounding, by 3e-7 and 8e-7 (``test_adaptive.py``). The derivative grows like
:math:`\frac14\log b`, so at 2 it is taken an epsilon below, as are those of the loss.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from ._elementary import polynomial

FREE = (-0.11879686826054142, 0.2794273491652209, 0.06433073521021923, 0.004714975056995911)
TIMES_L = (-0.6208985752650209, -0.29447587360718874, -0.038192722006681445)
TIMES_L2 = (0.029146707914623204, 0.02868801577211417)
RESIDUES = (1.3854717210677816e-06, 0.0001261140986260639, 0.0017238351621340457,
            0.010185120905215698)  # fmt: skip
POLES = (0.0373, 0.0773, 0.1718, 0.4598)  # at -alpha
K = 0.9635100260214235
AT_2 = 0.9189385332046727


class _Parts(NamedTuple):
    b: mx.array
    log_half_b: mx.array
    s: mx.array
    slope: mx.array  # of S in b, at constant log b
    by_l: mx.array  # of S in log b
    bend: mx.array  # of slope in b, at constant log b
    cross: mx.array  # of by_l in b, at constant log b


def _derivative(coefficients: tuple[float, ...], order: int) -> tuple[float, ...]:
    """The coefficients of that derivative of a polynomial."""
    for _ in range(order):
        coefficients = tuple(k * c for k, c in enumerate(coefficients))[1:]
    return coefficients


def _parts(alpha: mx.array) -> _Parts:
    b = mx.maximum(mx.finfo(alpha.dtype).eps, 2 - alpha)
    log_half_b, t = mx.log(0.5 * b), b - 1
    free, once, twice = (
        [polynomial(_derivative(c, order), t) for order in range(3)]
        for c in (FREE, TIMES_L, TIMES_L2)
    )
    poles = [
        sum((r * n / (alpha + p) ** (k + 1) for r, p in zip(RESIDUES, POLES, strict=True)), 0 * b)
        for k, n in enumerate((1, 1, 2))
    ]
    s, slope, bend = (
        free[k] + log_half_b * (once[k] + log_half_b * twice[k]) + poles[k] for k in range(3)
    )
    by_l, cross = (once[k] + 2 * log_half_b * twice[k] for k in range(2))
    return _Parts(b, log_half_b, s, slope, by_l, bend, cross)


def log_z(alpha: mx.array) -> mx.array:
    """The logarithm of Z."""
    of = _parts(alpha)
    b = 2 - alpha  # 0 at 2
    return AT_2 - 0.25 * b * (of.log_half_b + K) + b * b * of.s


def log_z_alpha(alpha: mx.array) -> mx.array:
    """Its derivative."""
    of = _parts(alpha)
    return 0.25 * (of.log_half_b + K + 1) - of.b * (2 * of.s + of.by_l + of.b * of.slope)


def log_z_alpha_alpha(alpha: mx.array) -> mx.array:
    """Its second derivative."""
    of = _parts(alpha)
    twice = 2 * polynomial(TIMES_L2, of.b - 1)
    return (
        -0.25 / of.b
        + 2 * of.s
        + 3 * of.by_l
        + twice
        + of.b * (4 * of.slope + 2 * of.cross + of.b * of.bend)
    )
