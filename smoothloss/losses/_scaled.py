r"""Losses of the residual in units of a scale: :math:`\rho(r) = f(u)` of :math:`u = r/c`.

With primes for derivatives in u, the weight :math:`w = f'/uc^2`, its root g, :math:`v = rg`, and
the elasticity of f', :math:`\kappa = u f''/f'`, the chain rule gives

.. math::

    \psi = r g^2 \quad \rho_c = -\frac{v^2}c \quad \psi_r = \kappa g^2 \quad
    \psi_c = -(1 + \kappa) \frac{vg}c \quad \rho_{cc} = (2 + \kappa) \Big(\frac vc\Big)^2

Neither g nor v overflows or underflows before psi does, though u may, and their products are taken
in such an order that they do not either. The sum :math:`n + \kappa` may cancel, and what is left of
it may be small. So it is given in two parts, :math:`a + (n + 1) h^2`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import mlx.core as mx

from .._loss import Loss
from .._threshold import Threshold
from .._traits import Traits
from .._types import Formula
from ._elementary import clip, hypotenuse, largest, wide

SCALE = Threshold("scale", default=1.0, open_low=True)

Parts: TypeAlias = tuple[mx.array, mx.array | float]
Elasticity: TypeAlias = Callable[..., Parts]


class Scaled(NamedTuple):
    """The formulas of ``(r, *shape, scale)``: rho, psi, their derivatives, and the weight."""

    rho: Formula
    psi: Formula
    rho_scale: Formula
    psi_prime: Formula
    psi_scale: Formula
    rho_scale_scale: Formula
    weight: Formula


def elasticity(n: int, a: mx.array, c: mx.array, alpha: mx.array | float) -> Parts:
    r"""The parts of n + kappa of Barron's family, with :math:`S = \sqrt{1 + a^2/c^2}, h = 1/S`."""
    d = hypotenuse(c, a)
    return (n - 1 + alpha) * mx.square(a / d), c / d


def chain(
    rho: Formula,
    psi: Formula,
    root_weight: Formula,
    elasticity: Elasticity,
    v_over_c: Formula | None = None,
) -> Scaled:
    """The formulas of r and the scale, by the chain rule.

    All take ``(r, *shape, c)``; ``elasticity`` takes n before them, and gives the two parts of n +
    kappa. Give ``v_over_c`` if v/c may be normal where g underflows. What is infinite counts as the
    largest number in all but rho and psi.
    """

    def finite(*row: mx.array) -> tuple[mx.array, mx.array, list[mx.array], mx.array, mx.array]:
        """The clipped r, c, and all; g and v."""
        r, *shape, c = row
        r, c = clip(r, largest(r)), mx.minimum(largest(c), c)
        row = (r, *shape, c)
        g = mx.minimum(largest(r), root_weight(*row))
        return r, c, list(row), g, r * g if v_over_c is None else c * v_over_c(*row)

    def factors(n: int, row: list[mx.array]) -> tuple[mx.array, mx.array]:
        """``k`` and ``s`` of n + kappa = k s^2, where s^2 may underflow."""
        a, h = elasticity(n, *row)
        return mx.where(a == 0, n + 1, a + (n + 1) * (h * h)), mx.where(a == 0, h, 1)

    def rho_c(*row: mx.array) -> mx.array:
        _, c, _, _, v = finite(*row)
        return -v * (v / c)

    def psi_r(*row: mx.array) -> mx.array:
        _, _, all_, g, _ = finite(*row)
        k, s = factors(0, all_)
        return k * (s * g) * (s * g)

    def psi_c(*row: mx.array) -> mx.array:
        r, c, all_, g, v = finite(*row)
        k, s = factors(1, all_)
        t = clip(s * v, largest(r))
        by_t = (mx.abs(t) < 1) == (c < 1)  # the one of which the quotient is normal
        return -k * (t / mx.where(by_t, c, 1)) * (s * g / mx.where(by_t, 1, c))

    def rho_cc(*row: mx.array) -> mx.array:
        r, c, all_, g, _ = finite(*row)
        k, s = factors(2, all_)
        if v_over_c is None:
            lift = mx.where((g < 1) & (c < 1), wide(r), 1.0)
            quotient = r * (g * lift) / (c * lift)
        else:
            quotient = v_over_c(*all_)
        t = s * clip(quotient, largest(r))
        return k * t * t

    def weight(*row: mx.array) -> mx.array:
        return mx.square(root_weight(*row))

    return Scaled(rho, psi, rho_c, psi_r, psi_c, rho_cc, weight)


def scaled(
    name: str,
    rho: Formula,
    psi: Formula,
    root_weight: Formula,
    elasticity: Elasticity,
    traits: Traits,
    v_over_c: Formula | None = None,
) -> Loss:
    """The record of a loss of the residual and its scale alone."""
    by = chain(rho, psi, root_weight, elasticity, v_over_c)
    return Loss(
        name,
        by.rho,
        thresholds=[SCALE],
        psi=by.psi,
        psi_prime=by.psi_prime,
        partials={
            "scale": by.rho_scale,
            ("r", "scale"): by.psi_scale,
            ("scale", "scale"): by.rho_scale_scale,
        },
        weight=by.weight,
        traits=traits,
    )
