r"""The derivatives of the general loss in its shape alpha.

With :math:`b = |\alpha - 2|, \sigma = \operatorname{sign}(\alpha - 2), q = \alpha/2` and
:math:`L = \log(1 + u^2/b)`, :math:`f = \frac12\int_0^{u^2} (1 + y/b)^{q-1}\,dy`. Differentiating
under the integral and substituting :math:`\ell = \log(1 + y/b)`,

.. math::

    f_\alpha &= \frac b4 I_0, \quad I_n = \int_0^L \ell^n e^{q\ell} h(\ell)\,d\ell \ge 0,
    \quad h(\ell) = \ell - 1 + e^{-\ell} \\
    f_{u\alpha} &= \tfrac12 f' h(L) \\
    f_{\alpha\alpha} &= \frac\sigma4\big(I_0 - (1 - e^{-L}) e^{qL} h(L)\big) + \frac b8 I_1

With the moments :math:`M_n(t) = \int_0^1 v^n e^{tv}\,dv`, :math:`t = qL` and :math:`s = L - t =
-\sigma bL/2`, the integrals are

.. math::

    I_0 &= L^2 M_1(t) - L M_0(t) + L M_0(-s)
         = -\frac{2\sigma}{b}\big(L^2 M_1(t) - e^t h(L)\big) \\
    I_1 &= L^3 M_2(t) - L^2 M_1(t) + L^2 M_1(-s)
         = -\frac{2\sigma}{b}\big(I_0 + L^3 M_2(t) - L e^t h(L)\big)

of which the first cancels for large \|q\| and the second for small b; both do for small L. There,
:math:`f_\alpha = \frac12 L^2 |s| D`, with the divided difference of the exponential

.. math:: D = \exp[t, t, 0, -s]
            = \sum_n \frac{1}{(n + 3)!} \sum_k (k + 1)\,t^k (-s)^{n-k}

and :math:`I_n = L^{3+n} \sum_{j,k} \frac{(-L)^j}{(j+2)!} \frac{t^k}{k!} \frac{1}{j+k+n+3}`.

At alpha = 2, where :math:`f_\alpha` grows like :math:`-\frac14 u^2 \log b` beyond bounds, it is
taken an epsilon below.
"""

from __future__ import annotations

import functools
import math

import mlx.core as mx

from .._engine.shapes import alone, apart
from ._elementary import log_hypotenuse, polynomial, scalar


def bounded(alpha: mx.array) -> mx.array:
    """Alpha, of which 2^60 stands for infinity."""
    most = scalar(2.0**60, alpha)
    return mx.maximum(-most, alone(mx.minimum(most, alpha)))


SMALL = 0.25  # up to where the series in L and t converge, and below which differences cancel


def moments(t: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """M_0, M_1 and M_2, which come from each other but near t = 0, where that cancels."""
    limit = float(mx.finfo(t.dtype).eps) ** (1 / 16)
    near = mx.abs(t) < limit
    x = mx.where(near, t, 0)
    y = mx.where(near, 1, t)
    e = mx.expm1(y)
    m0 = e / y
    m1 = (e * (1 - 1 / y) + 1) / y
    m2 = (e * (1 - 2 * (1 - 1 / y) / y) + 1 - 2 / y) / y
    return tuple(mx.where(near, _series(x, n), m) for n, m in enumerate((m0, m1, m2)))  # type: ignore[return-value]


def _series(t: mx.array, n: int) -> mx.array | float:
    """M_n near 0."""
    terms = 9 if t.dtype == mx.float32 else 15
    return polynomial([1 / (math.factorial(k) * (k + n + 1)) for k in range(terms)], t)


def _divided_difference(t: mx.array, s: mx.array) -> mx.array:
    """The series of D, of which each term is made of the one before."""
    power, h, terms = t, 2 * t - s, [(2 * t - s) / 24 + 1 / 6]
    for n in range(2, 7 if t.dtype == mx.float32 else 12):
        power = power * t
        h = (n + 1) * power - s * h
        terms.append(h / math.factorial(n + 3))
    return apart(functools.reduce(mx.add, reversed(terms)))


class Integrals:
    """What the derivatives of f(u, alpha) in alpha, of u = r/c, are made of."""

    def __init__(self, r: mx.array, alpha: mx.array, c: mx.array) -> None:
        eps = float(mx.finfo(r.dtype).eps)
        alpha = bounded(apart(apart(alpha)))  # shared neither with psi nor the derivative by scale
        alpha = apart(mx.where(mx.abs(alpha - 2) < eps, 2 - eps, alpha))
        self.b, self.sign = mx.abs(alpha - 2), mx.where(alpha < 2, -1.0, 1.0)
        self.q = 0.5 * alpha
        length = log_hypotenuse(mx.abs(r), c, alone(mx.sqrt(alone(self.b))))
        # Beyond, the loss itself overflows or has come to its limit.
        most = math.log(float(mx.finfo(r.dtype).max)) - 20
        self.length = apart(mx.minimum(most / mx.maximum(0.25, self.q), length))
        self.t = apart(self.q * self.length)
        self.s = apart(apart(1 - self.q) * self.length)  # as L - t would lose digits
        self.small = (mx.abs(self.t) < eps**0.125) & (self.length < eps**0.125)

    @functools.cached_property
    def h(self) -> mx.array:
        """h(L), which cancels for small L."""
        length, n = self.length, 6 if self.length.dtype == mx.float32 else 12
        series = polynomial([(-1) ** k / math.factorial(k + 2) for k in range(n)], length)
        direct = length + mx.expm1(-length)
        return apart(mx.where(length < SMALL, mx.square(length) * series, direct))

    @functools.cached_property
    def i0(self) -> mx.array:
        """I_0, which I_1 is made of."""
        return _f_alpha(self) * 4 / self.b

    @functools.cached_property
    def i1(self) -> mx.array:
        """I_1."""
        by_length = [
            polynomial(
                [
                    1 / (math.factorial(j + 2) * math.factorial(k) * (j + k + 4))
                    for k in range(5 - j)
                ],
                self.t,
            )
            for j in range(5)
        ]
        total = polynomial(by_length, -self.length)
        series = self.length**4 * mx.where(self.small, total, 0)
        return mx.where(self.small, series, self._closed_i1())

    def _closed_i1(self) -> mx.array:
        """I_1 for L that is not small."""
        length, t = self.length, self.t
        (_, m_1, m_2), (_, less, _) = moments(t), moments(t - length)
        near = mx.square(length) * (length * m_2 - m_1 + less)
        rest = length * (mx.square(length) * m_2 - (1 + mx.expm1(t)) * self.h) + self.i0
        return mx.where(self.b < 1, near, -2 * self.sign / self.b * rest)


def f_alpha(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    """The derivative of f in alpha."""
    return _f_alpha(Integrals(r, alpha, c))


def _f_alpha(of: Integrals) -> mx.array:
    length, t, s = of.length, of.t, of.s
    e = mx.expm1(t)
    m_1 = apart(mx.where(mx.abs(t) < 0.5, _series(t, 1), (e * (t - 1) + t) / t / t))
    far = 0.5 * mx.abs(length * length * m_1 - (e + 1) * of.h)
    m_0 = mx.where(t == 0, 1.0, e / t)
    near = 0.5 * mx.abs(s) * (length * m_1 - m_0 - mx.expm1(-s) / s)
    large = (length >= SMALL) | (mx.abs(t) >= SMALL)
    small = _divided_difference(t, s) * mx.abs(s) * (0.5 * length * length)
    return mx.where(large, mx.where(mx.abs(s) < 0.5 * length, near, far), small)


def half_h(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    """The derivative of log f' in alpha."""
    return 0.5 * Integrals(r, alpha, c).h


def f_alpha_alpha(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    """The second derivative of f in alpha."""
    of = Integrals(r, alpha, c)
    end = -mx.expm1(-of.length) * (1 + mx.expm1(of.t)) * of.h
    return 0.25 * of.sign * (of.i0 - end) + 0.125 * of.b * of.i1
