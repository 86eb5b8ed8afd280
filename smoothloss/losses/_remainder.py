r"""The logarithm of 1 + x over x, and what its first terms leave, without cancellation.

With :math:`q = 1/(1+x)` and :math:`y = x/(2+x)`, so that :math:`\log(1+x) = 2
\operatorname{artanh} y`,

.. math:: x - \log(1+x) = \tfrac12 x^2 q\,(1 + b) \qquad
          \log(1+x) - x q = \tfrac12 x^2 q\,(1 - b) \qquad
          b = \sum_{k=0}^\infty \frac{2 y^{2k+1}}{(2k+1)(2k+3)}

since :math:`2y = x - xy`, and :math:`\log(1+x)/x = (1 - y) \sum_k y^{2k}/(2k+1)`.
"""

from __future__ import annotations

import mlx.core as mx

from ._elementary import polynomial

# Of b/y as a polynomial in y^2, halved: interpolated between Chebyshev nodes, and of the series.
COEFFICIENTS = {
    mx.float32: [0.333333319, 0.0666707201, 0.0283914147, 0.0183803034],
    mx.float64: [1 / ((2 * k + 1) * (2 * k + 3)) for k in range(15)],
}

# Of artanh(y)/y, likewise, but whole.
ARTANH = {
    mx.float32: [1.0, 0.333331608, 0.200122976, 0.139825789, 0.140788892],
    mx.float64: [1 / (2 * k + 1) for k in range(17)],
}


def slope(x: mx.array) -> mx.array:
    """The quotient of log(1 + x) and x, of x from 0 to 1."""
    y = x / (2 + x)
    return polynomial(ARTANH[x.dtype], mx.square(y)) * (1 - y)


def half_bend(x: mx.array) -> mx.array:
    """Half of b, of x from 0 to 1, to all digits of 1 + b and 1 - b."""
    return _half(x / (2 + x))


def _half(y: mx.array) -> mx.array:
    return polynomial(COEFFICIENTS[y.dtype], mx.square(y)) * y


def quotient(x: mx.array) -> mx.array:
    """The quotient of x - log(1 + x) and x^2, of x from 0 to 1."""
    y = x / (2 + x)
    # q in terms of y, and last: so MLX fuses y where it is shallow.
    return (0.5 + _half(y)) * ((1 - y) / (1 + y))
