r"""Losses of the residual in units of a scale: :math:`\rho(r) = f(u)` of :math:`u = r/c`.

With primes for derivatives in u, the relative slope :math:`w = f'/u` and the elasticity of f',
:math:`\kappa = u f''/f'`, the chain rule gives

.. math::

    \psi = \frac{f'}{c} \quad \rho_c = -\frac{u f'}{c} \quad \psi_r = \frac{w\kappa}{c^2} \quad
    \psi_c = -\frac{u w (1 + \kappa)}{c^2} \quad \rho_{cc} = \frac{u^2 w (2 + \kappa)}{c^2}

where :math:`n + \kappa` is given as a whole, since the sum may cancel.
"""

from __future__ import annotations

import mlx.core as mx

from .._loss import Claims, Formula, Loss, Threshold
from ._elementary import clip, wide

SCALE = Threshold("scale", above=True)


def chain(
    f: Formula, pull: Formula, relative: Formula, elasticity: Formula, reach: Formula = wide
) -> list[Formula]:
    """Rho, psi, rho_c, psi_r, psi_c, rho_cc and the weight, formulas of ``(r, *shape, scale)``.

    ``f`` and ``relative``, which is w, are formulas of ``(u, *shape)``; ``pull``, which is f'/c, is
    one of ``(u, *shape, c)`` and ``elasticity``, which is n + kappa, of ``(n, u, *shape)``. All but
    rho, psi and the weight take u up to ``reach(u)`` only, where products like u f' have come to
    their limits.
    """

    def within(r: mx.array, c: mx.array) -> mx.array:
        return clip(r / c, reach(r))

    def rho(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return f(r / c, *shape)

    def psi(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return pull(r / c, *shape, c)

    def rho_c(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        u = within(r, c)
        return -u * pull(u, *shape, c)

    def psi_r(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        u = within(r, c)
        return elasticity(0, u, *shape) * relative(u, *shape) / c / c

    def psi_c(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        u = within(r, c)
        return -elasticity(1, u, *shape) * (u * relative(u, *shape)) / c / c

    def rho_cc(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        u = within(r, c)
        return elasticity(2, u, *shape) * (u * pull(u, *shape, c)) / c

    def weight(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, c = theta
        return relative(r / c, *shape) / c / c

    return [rho, psi, rho_c, psi_r, psi_c, rho_cc, weight]


def scaled(
    f: Formula, pull: Formula, relative: Formula, elasticity: Formula, claims: Claims
) -> Loss:
    """The record of a loss of the residual and its scale alone."""
    rho, psi, rho_c, psi_r, psi_c, rho_cc, weight = chain(f, pull, relative, elasticity)
    return Loss(
        rho=rho,
        gradient=(psi, rho_c),
        hessian=((psi_r, psi_c), (psi_c, rho_cc)),
        weight=weight,
        thresholds=(SCALE,),
        claims=claims,
    )
