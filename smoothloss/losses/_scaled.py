r"""Losses of the residual in units of a scale: :math:`\rho(r) = f(u)` of :math:`u = r/c`.

With primes for derivatives in u, the weight :math:`w = f'/uc^2` and the elasticity of f',
:math:`\kappa = u f''/f'`, the chain rule gives

.. math::

    \psi = \frac{f'}{c} \quad \rho_c = -u\psi \quad \psi_r = w\kappa \quad
    \psi_c = -u w (1 + \kappa) \quad \rho_{cc} = \frac{u\psi}{c} (2 + \kappa)

where :math:`n + \kappa` is given as a whole, since the sum may cancel.
"""

from __future__ import annotations

import mlx.core as mx

from .._loss import Claims, Formula, Loss, Threshold
from ._elementary import clip, largest, wide

SCALE = Threshold("scale", above=True)


def chain(
    f: Formula, pull: Formula, weigh: Formula, elasticity: Formula, reach: Formula = wide
) -> list[Formula]:
    """Rho, psi, rho_c, psi_r, psi_c, rho_cc and the weight, formulas of ``(r, *shape, scale)``.

    ``f`` is a formula of ``(u, *shape)``; ``pull``, which is psi, and ``weigh``, which is w, are
    some of ``(u, *shape, c)`` and ``elasticity``, which is n + kappa, of ``(n, u, *shape)``, where
    u goes up to ``reach(u)``. Derivatives in c take an infinite u for the largest number.
    """

    def finite(r: mx.array, c: mx.array) -> mx.array:
        return clip(r / c, largest(r))

    def n_plus_kappa(n: int, r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return elasticity(n, clip(r / c, reach(r)), *shape)

    def rho(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return f(r / c, *shape)

    def psi(r: mx.array, *theta: mx.array) -> mx.array:
        return pull(r / theta[-1], *theta)

    def weight(r: mx.array, *theta: mx.array) -> mx.array:
        return weigh(r / theta[-1], *theta)

    def rho_c(r: mx.array, *theta: mx.array) -> mx.array:
        u = finite(r, theta[-1])
        return -u * pull(u, *theta)

    def psi_r(r: mx.array, *theta: mx.array) -> mx.array:
        return n_plus_kappa(0, r, *theta) * weigh(finite(r, theta[-1]), *theta)

    def psi_c(r: mx.array, *theta: mx.array) -> mx.array:
        u = finite(r, theta[-1])
        return -n_plus_kappa(1, r, *theta) * (u * weigh(u, *theta))

    def rho_cc(r: mx.array, *theta: mx.array) -> mx.array:
        u = finite(r, theta[-1])
        return n_plus_kappa(2, r, *theta) * (u * pull(u, *theta)) / theta[-1]

    return [rho, psi, rho_c, psi_r, psi_c, rho_cc, weight]


def scaled(f: Formula, pull: Formula, weigh: Formula, elasticity: Formula, claims: Claims) -> Loss:
    """The record of a loss of the residual and its scale alone."""
    rho, psi, rho_c, psi_r, psi_c, rho_cc, weight = chain(f, pull, weigh, elasticity)
    return Loss(
        rho=rho,
        gradient=(psi, rho_c),
        hessian=((psi_r, psi_c), (psi_c, rho_cc)),
        weight=weight,
        thresholds=(SCALE,),
        claims=claims,
    )
