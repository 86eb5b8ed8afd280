r"""A function of the length of a vector, with its derivatives by hand.

With :math:`n = \lVert v\rVert`, the direction :math:`u = v/n`, and u = 0 at v = 0,

.. math:: f = k(n) \qquad \nabla f = k'(n)\, u \qquad
          \nabla^2 f = k''(n)\, u u^T + \frac{k'(n)}{n}\,(I - u u^T)

where the quotient is k''(0) at v = 0. The chain rule through n can't know that: n has no derivative
there, but f has two where k is even and smooth. The derivatives by thresholds are the same
functions of the derivatives of k, so one class serves every loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

from ._engine.exportable import finite, losses, step
from ._engine.kernel import Kernel
from ._engine.rules import with_rules
from ._engine.shapes import apart
from ._engine.sums import Elementwise
from ._engine.term import listed
from ._engine.validation import as_elementwise


def polar(v: mx.array) -> tuple[mx.array, mx.array]:
    """Return the length of vectors along the last axis, and their direction, which is 0 at 0.

    At infinity the direction is the limit. Nothing overflows on the way, or underflows.
    """
    limits = mx.finfo(v.dtype)
    most, least = float(limits.max), float(limits.smallest_normal)
    largest = mx.abs(v).max(-1)
    unit = mx.minimum(most, mx.maximum(least, largest))
    part = mx.minimum(most, mx.maximum(-most, v)) / unit[..., None]
    length = mx.sqrt(mx.square(part).sum(-1))
    endless = mx.maximum(0, largest - unit)  # which is infinite, or else 0
    return unit * length + endless, part / mx.maximum(least, length)[..., None]


def over(slope: mx.array, n: mx.array, limit: mx.array) -> mx.array:
    """Return k'(n)/n, with its limit at 0."""
    return mx.where(n == 0, limit, slope / mx.where(n == 0, 1, n))


def plain(kernel: Kernel, v: mx.array, thetas: Sequence[mx.array], checks: Any) -> mx.array:
    """Return f of MLX's own operations, as :func:`exportable` needs it, to second order."""
    # Apart: fused into one kernel, all this would take g++ minutes.
    v = apart(v)
    n, u = map(apart, polar(mx.stop_gradient(v)))
    psi = kernel.partial(0)
    rho, slope, bend = (losses(k, n, thetas, checks) for k in (kernel, psi, psi.partial(0)))
    slope, bend = apart(slope), apart(bend)
    d = step(v, mx.isinf(v))  # which is 0, and has a derivative
    along = (d * u).sum(-1)
    quotient = mx.where(mx.isinf(n), 0, over(slope, n, bend))
    across = finite(quotient) * (mx.square(d).sum(-1) - mx.square(along))
    return rho + along * finite(slope) + 0.5 * (finite(bend) * mx.square(along) + across)


class Radial:
    """f, or its gradient if ``order`` is 1: a function of ``(v, *thresholds)``.

    The vectors lie along the last axis of v; the thresholds have the shape of the
    others, or are single numbers.
    """

    def __init__(self, kernel: Kernel, order: int = 0) -> None:
        self.kernel, self.order = kernel, order

    def function(self) -> Elementwise:
        """Return it as a function that MLX differentiates by the rules below."""
        key = ("radial", self.order, mx.default_device().type)
        if key not in self.kernel.terms:
            self.kernel.terms[key] = with_rules(self.value, self.vjp, self.jvp, self.vmap)
        return cast(Elementwise, self.kernel.terms[key])

    def value(self, v: mx.array, *thresholds: mx.array) -> mx.array:
        """Return f, or its gradient."""
        n, u = polar(v)
        if self.order:
            return self.psi(n, thresholds)[..., None] * u
        return _at(self.kernel, n, thresholds)

    def psi(self, n: mx.array, thresholds: Sequence[mx.array]) -> mx.array:
        """Return k'(n)."""
        return _at(self.kernel.partial(0), n, thresholds)

    def along(self, v: mx.array, thresholds: Sequence[mx.array], step: mx.array) -> mx.array:
        """Return the derivative along a step; that of the gradient is symmetric."""
        if not self.order:
            return (Radial(self.kernel, 1).function()(v, *thresholds) * step).sum(-1)
        n, u = polar(v)
        slope, bend = self.psi(n, thresholds), _at(self.kernel.partial(0).partial(0), n, thresholds)
        across = over(slope, n, bend)[..., None]
        radial = (u * step).sum(-1, keepdims=True) * u
        return bend[..., None] * radial + across * (step - radial)

    def by_threshold(self, i: int, flat: Sequence[mx.array]) -> mx.array:
        """Return the derivative by the i-th threshold."""
        return Radial(self.kernel.partial(i), self.order).function()(*flat)

    def vjp(self, primals: Any, cotangent: mx.array, _: Any) -> tuple[mx.array, ...]:
        """Return the cotangents of v and of the thresholds."""
        v, *thresholds = flat = listed(primals)
        if self.order:
            by_v = self.along(v, thresholds, cotangent)
        else:
            by_v = cotangent[..., None] * Radial(self.kernel, 1).function()(*flat)
        others = [cotangent * self.by_threshold(i, flat) for i in range(1, len(flat))]
        others = [v.sum(-1) if self.order else v for v in others]
        # One number for all has the sum, of which nothing is computed unless it is asked for.
        return (by_v, *(v if t.ndim else v.sum() for t, v in zip(thresholds, others, strict=True)))

    def jvp(self, primals: Any, tangents: Any) -> mx.array:
        """Return the tangent."""
        (v, *thresholds), (dv, *steps) = flat, _ = listed(primals), listed(tangents)
        moved = self.along(v, thresholds, mx.zeros_like(v) if dv is None else dv)
        for i, dt in enumerate(steps, 1):
            if dt is not None:
                dt = dt[..., None] if self.order else dt
                moved = moved + dt * self.by_threshold(i, flat)
        return moved

    def vmap(self, primals: Any, batch: Any) -> tuple[mx.array, int]:
        """Return the function of a batch, whose axis is the first of the result."""
        flat, axes = listed(primals), listed(batch)
        size = next(v.shape[a] for v, a in zip(flat, axes, strict=True) if a is not None)
        wide = (
            mx.moveaxis(v, a, 0)
            if a is not None
            else mx.broadcast_to(v, (size, *v.shape))
            if v.ndim
            else v
            for v, a in zip(flat, axes, strict=True)
        )
        return self.function()(*wide), 0


def _at(kernel: Kernel, n: mx.array, thresholds: Sequence[mx.array]) -> mx.array:
    return as_elementwise(kernel.formula, kernel.formula(n, *thresholds), n)
