r"""The normalising constant of the general loss: :math:`Z(\alpha) = \int e^{-f(u, \alpha)}\,du`.

On [0, 2], with :math:`b = 2 - \alpha,\ w = -\log(b/2)` and :math:`K = \gamma + 2\log 2 - 1`,

.. math::

    \log Z &= \tfrac12\log 2\pi - \tfrac b4 (K - w) + b^2 S(w) \\
    (\log Z)' &= \tfrac14 (K + 1 - w) + b\,(S' - 2S) \\
    (\log Z)'' &= -\tfrac1{4b} + 2S - 3S' + S''

where the terms before S are exact at :math:`\alpha = 2`, since :math:`dw/d\alpha = 1/b`. S is
interpolated by a polynomial between each two knots, which joins the next one up to the second
derivative (``docs/partition.py`` does it). The value is off by 1e-9 at most, the derivatives by
2e-8 and, relative where beyond 1, 4e-7; in float32, with its rounding, by 3e-7, 5e-7 and 2e-6
(``test_adaptive.py``). The derivative grows like :math:`\frac14\log b`, so at 2 it is taken an
epsilon below, as are those of the loss.

MLX gathers and sums without compiling a kernel, so few are compiled.
"""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from .._engine.shapes import apart
from .._exportable import active
from ._elementary import polynomial

# fmt: off
KNOTS = (0.0, 0.014, 0.045, 0.11, 0.25, 0.57, 1.4, 3.8, 10.0)
TABLE = (
    (0.263529988984, -0.148265208676, 3.15884269834, -54.6766454895,
     1306.68880167, -39636.0619547, 1439631.52619, -57591773.1538,
     2205487873.98, -67746791308.8, 1.36675110849e+12, -1.29849984874e+13),
    (0.261959223725, -0.0824272688707, 1.77448643868, -19.9137950288,
     282.843348279, -4697.90934213, 86881.4129438, -1668296.68579,
     29591935.1592, -415538873.657, 3828881776.89, -16667983632),
    (0.260690897734, -0.00906362293118, 0.800881014801, -5.38751758014,
     43.8900208282, -398.363273371, 3871.89168979, -37784.7130869,
     331706.792696, -2266208.28452, 10065567.0413, -21024487.7765),
    (0.262504439496, 0.0547126924309, 0.305905168862, -1.13534725827,
     5.19834166274, -25.6198031726, 131.395283735, -656.304839713,
     2859.68108825, -9461.46651765, 20024.9281116, -19739.5752315),
    (0.274237651061, 0.10432141707, 0.107679920088, -0.178156231958,
     0.444013612015, -1.15392476446, 3.03310912667, -7.49699502311,
     15.5672745358, -23.8091142252, 22.8266570966, -10.0674637203),
    (0.315368489004, 0.146936536547, 0.0471094877327, -0.0188106324351,
     0.024314561482, -0.0321555769748, 0.0405501129409, -0.0456526725124,
     0.0409549875378, -0.0259851810808, 0.0100665789966, -0.00176537335482),
    (0.464467239962, 0.208968424196, 0.0328829193939, -0.00222066394913,
     0.000197708440484, -0.000376228189084, 0.000235986886098, -0.000102322158726,
     3.41832187775e-05, -7.99473347643e-06, 1.12409361324e-06, -7.05246612727e-08),
    (1.12202921268, 0.323820086241, 0.0144017658689, -0.00241864581093,
     0.000180300320656, 2.10820557304e-05, -7.66003469522e-06, 8.97442012204e-07,
     -2.99413940945e-08, -4.07186665404e-09, 4.83525120052e-10, -1.60361758721e-11),
    (3.35913904471, 0.373173688531, 0.000446864327952, -7.45627797998e-05,
     9.93014985046e-06, -1.17923506288e-06, 1.29908457409e-07, -1.2531160439e-08,
     9.49239609895e-10, -5.02907604858e-11, 1.61574938352e-12, -2.34206072884e-14),
)
# fmt: on
K = 0.9635100260214235
AT_2 = 0.9189385332046727
FEW = 1024  # elements, beyond which the powers would cost more than the calls of Estrin's scheme

_S = np.array(TABLE)
_N = np.arange(_S.shape[1], dtype=np.float64)
# The derivatives of the polynomials, as polynomials of as many coefficients.
_S_1 = np.roll(_S * _N, -1, axis=1)
_S_2 = np.roll(_S_1 * _N, -1, axis=1)


class _Piece:
    """Alpha in the terms above: b, w, and the distance t from the last knot before w."""

    def __init__(self, alpha: mx.array) -> None:
        eps = mx.finfo(alpha.dtype).eps
        self.b = mx.maximum(eps, 2 - alpha)
        self.w = apart(-mx.log(mx.maximum(0.5 * eps, 1 - 0.5 * apart(alpha))))
        knots, inner = mx.array(KNOTS, alpha.dtype), mx.array(KNOTS[1:], alpha.dtype)
        passed = mx.stop_gradient(mx.expand_dims(self.w, -1)) >= inner
        self.index = mx.sum(passed, axis=-1)
        self.t = self.w - mx.take(knots, self.index)

    def interpolated(self, table: NDArray[np.float64]) -> mx.array:
        """The polynomial in t of the coefficients that a table has for the piece."""
        coefficients = mx.take(mx.array(table.tolist(), self.t.dtype), self.index, axis=0)
        if self.t.size > FEW and not active():  # which has no slices
            columns = [coefficients[..., k] for k in range(_N.size)]
            return cast(mx.array, polynomial(columns, self.t))
        powers = mx.power(mx.expand_dims(self.t, -1), mx.array(_N.tolist(), self.t.dtype))
        return mx.sum(coefficients * powers, axis=-1)


def log_z(alpha: mx.array) -> mx.array:
    """The logarithm of Z."""
    of, b = _Piece(alpha), 2 - alpha  # 0 at 2
    return AT_2 - 0.25 * b * (K - of.w) + b * b * of.interpolated(_S)


def log_z_alpha(alpha: mx.array) -> mx.array:
    """Its derivative."""
    of = _Piece(alpha)
    return 0.25 * (K + 1 - of.w) + of.b * of.interpolated(_S_1 - 2 * _S)


def log_z_alpha_alpha(alpha: mx.array) -> mx.array:
    """Its second derivative."""
    of = _Piece(alpha)
    return -0.25 / of.b + of.interpolated(2 * _S - 3 * _S_1 + _S_2)
