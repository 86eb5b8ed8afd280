"""A formula with its partial derivatives, by hand or by MLX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from .._types import Formula


@dataclass(frozen=True, eq=False)
class Kernel:
    """An elementwise formula and its partial derivatives in ``(r, *thresholds)``.

    A kernel without partials is differentiated by MLX. ``ordinary`` is the same formula, to the
    bit, in fewer operations, for thresholds that are ordinary numbers. ``plain`` is the same in a
    form of which MLX's first and second derivatives are right. ``terms`` holds the
    functions built from the kernel (see ``term.py``), so that they live as long as it does.
    """

    formula: Formula
    partials: tuple[Kernel, ...] = ()
    ordinary: Formula | None = None
    plain: Formula | None = None
    terms: dict[Any, Any] = field(default_factory=dict, repr=False)

    def partial(self, argnum: int) -> Kernel:
        """The partial derivative by one argument, by hand or by MLX."""
        if self.partials:
            return self.partials[argnum]
        return Kernel(derived(self.formula, argnum))


def tree(
    rho: Formula,
    names: Sequence[str],
    derivatives: Mapping[tuple[str, ...], Formula],
    ordinary: Mapping[tuple[str, ...], Formula],
    plain: Formula | None,
) -> Kernel:
    """The kernel of rho with the partials of ``derivatives``, to second order.

    ``names`` are those of the arguments; ``derivatives`` has its keys sorted in their order;
    ``ordinary`` has the formulas for ordinary thresholds, () being the key of rho; ``plain`` is
    that of rho alone. A kernel of which no partial is given has none; if only some are, MLX derives
    the others.
    """

    def kernel(by: tuple[str, ...], formula: Formula) -> Kernel:
        further = [tuple(sorted((*by, name), key=names.index)) for name in names]
        given = [derivatives.get(key) for key in further]
        fast = ordinary.get(by)
        if not any(given):
            return Kernel(formula, ordinary=fast)
        partials = (
            kernel(key, f) if f else Kernel(derived(formula, i))
            for i, (key, f) in enumerate(zip(further, given, strict=True))
        )
        return Kernel(formula, tuple(partials), fast, None if by else plain)

    return kernel((), rho)


def weight_of(rho: Kernel) -> Kernel:
    """The weight function psi(r)/r of a kernel of rho, with its limit at r = 0."""
    psi = rho.partial(0)
    slope = psi.partial(0)

    def weight(r: mx.array, *thresholds: mx.array) -> mx.array:
        at_0 = r == 0
        quotient = psi.formula(r, *thresholds) / mx.where(at_0, 1, r)
        return mx.where(at_0, slope.formula(r, *thresholds), quotient)

    return Kernel(weight)


def derived(formula: Formula, argnum: int) -> Formula:
    """MLX's derivative of an elementwise formula by one of its arguments."""

    def partial(*row: mx.array) -> mx.array:
        row = tuple(mx.broadcast_arrays(*row))

        def along(v: mx.array) -> mx.array:
            # A formula may ignore an argument, and with it the shape.
            out: mx.array | float = formula(*row[:argnum], v, *row[argnum + 1 :])
            return mx.broadcast_arrays(out if isinstance(out, mx.array) else mx.array(out), v)[0]

        return mx.vjp(along, [row[argnum]], [mx.ones_like(row[0])])[1][0]

    return partial
