r"""Losses of the residual in units of a scale: :math:`\rho(r) = f(u)` of :math:`u = r/c`.

With primes for derivatives in u, the weight :math:`w = f'/uc^2` and the elasticity of f',
:math:`\kappa = u f''/f'`, the chain rule gives

.. math::

    \psi = \frac{f'}{c} \quad \rho_c = -u\psi \quad \psi_r = w\kappa \quad
    \psi_c = -u w (1 + \kappa) \quad \rho_{cc} = \frac{u\psi}{c} (2 + \kappa)

where :math:`n + \kappa` is given as a whole, since the sum may cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from .._loss import Loss
from .._threshold import Threshold
from .._traits import Traits
from .._types import Formula
from ._elementary import clip, largest, wide

SCALE = Threshold("scale", default=1.0, open_low=True)


class Scaled(NamedTuple):
    """The formulas of ``(r, *shape, scale)``: rho, psi, their derivatives, and the weight."""

    rho: Formula
    psi: Formula
    rho_scale: Formula
    psi_prime: Formula
    psi_scale: Formula
    rho_scale_scale: Formula
    weight: Formula


def chain(
    f: Formula,
    psi_of_u: Formula,
    weight_of_u: Formula,
    elasticity: Formula,
    largest_u: Callable[[mx.array], mx.array] = wide,
) -> Scaled:
    """The formulas of r and the scale from those of u, by the chain rule.

    ``f`` takes ``(u, *shape)``; ``psi_of_u`` and ``weight_of_u`` take ``(u, *shape, c)``;
    ``elasticity`` takes ``(n, u, *shape)`` and gives n + kappa, with u clipped to ``largest_u(u)``.
    Derivatives in c take an infinite u for the largest number.
    """

    def finite(r: mx.array, c: mx.array) -> mx.array:
        return clip(r / c, largest(r))

    def n_plus_kappa(n: int, r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return elasticity(n, clip(r / c, largest_u(r)), *shape)

    def rho(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return f(r / c, *shape)

    def psi(r: mx.array, *theta: mx.array) -> mx.array:
        return psi_of_u(r / theta[-1], *theta)

    def weight(r: mx.array, *theta: mx.array) -> mx.array:
        return weight_of_u(r / theta[-1], *theta)

    def rho_c(r: mx.array, *theta: mx.array) -> mx.array:
        u = finite(r, theta[-1])
        return -u * psi_of_u(u, *theta)

    def psi_r(r: mx.array, *theta: mx.array) -> mx.array:
        return n_plus_kappa(0, r, *theta) * weight_of_u(finite(r, theta[-1]), *theta)

    def psi_c(r: mx.array, *theta: mx.array) -> mx.array:
        u = finite(r, theta[-1])
        return -n_plus_kappa(1, r, *theta) * (u * weight_of_u(u, *theta))

    def rho_cc(r: mx.array, *theta: mx.array) -> mx.array:
        u = finite(r, theta[-1])
        return n_plus_kappa(2, r, *theta) * (u * psi_of_u(u, *theta)) / theta[-1]

    return Scaled(rho, psi, rho_c, psi_r, psi_c, rho_cc, weight)


def scaled(
    name: str,
    f: Formula,
    psi_of_u: Formula,
    weight_of_u: Formula,
    elasticity: Formula,
    traits: Traits,
) -> Loss:
    """The record of a loss of the residual and its scale alone."""
    by = chain(f, psi_of_u, weight_of_u, elasticity)
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
