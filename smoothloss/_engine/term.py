r"""Elementwise terms with hand-derived derivatives.

A *term* is a kernel of the residual, scaled by factors and restricted by a mask:

.. math:: T_k(x, y, \theta; f) = \Big(\prod_j f_j\Big)\, k(x - y, \theta),
          \quad \text{0 outside the mask.}

Terms are closed under differentiation. With a cotangent or tangent :math:`c`,

- :math:`c\,\partial T_k/\partial x` is the term of :math:`\partial k/\partial r` with the further
  factor :math:`c`, and likewise for each threshold;
- :math:`c\,\partial T_k/\partial f_j` is the term of :math:`k` with :math:`c` in place of
  :math:`f_j`.

So one class with three rules, vjp, jvp and vmap, serves every loss at every order. A loss is the
term of its rho whose factors are the weights. A term may be summed over axes: the derivatives of
the sum are terms with the cotangent broadcast.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from .._threshold import Check, NumberKind, Threshold
from .kernel import Kernel
from .shapes import batch_first, data_shape, renewed, spread, widened
from .sums import Axes, Elementwise, on_cpu, summed
from .validation import as_elementwise


def compute_dtype(x: mx.array, y: mx.array) -> mx.Dtype:
    """float64 where an input is float64, else float32: half types and integers are widened."""
    return mx.float64 if mx.float64 in (x.dtype, y.dtype) else mx.float32


class Kind(NamedTuple):
    """What the arguments of a term are, beside their shapes.

    ``checks`` has one entry for each threshold: what is to be checked of an array, or, of a number,
    which is checked already and has no derivative, whether it is ordinary. With ``fixed``, nobody
    can ask for derivatives by arrays of thresholds and by weights.
    """

    x: mx.Dtype
    y: mx.Dtype
    checks: tuple[Check, ...] = ()
    factors: int = 0
    masked: bool = False
    fixed: bool = False


class Row(NamedTuple):
    """The arguments of a term by kind. A custom function takes them as a flat row of arrays."""

    x: mx.array
    y: mx.array
    thresholds: Sequence[mx.array]
    factors: Sequence[mx.array]
    mask: Sequence[mx.array]

    def flat(self, factors: Sequence[mx.array]) -> list[mx.array]:
        """The flat row, with these factors."""
        return [self.x, self.y, *self.thresholds, *factors, *self.mask]

    def swapped(self, j: int, other: mx.array) -> list[mx.array]:
        """The factors with ``other`` in place of the j-th."""
        return [other, *self.factors[:j], *self.factors[j + 1 :]]


class Term:
    """The function ``(x, y, *thresholds, *factors, *mask) -> T`` and its derivatives.

    Arguments are arrays only, passed by position, of shapes that broadcast together. The
    arithmetic is done in float32 (float64 where x or y is) and rounded once to ``dtype``. With
    ``axes`` (ascending, non-negative) T is summed over them, and they are dropped. ``order`` counts
    the derivatives taken to get here.

    What depends on the kinds of the arguments alone is decided here, once; a call only computes.
    """

    def __init__(
        self, kernel: Kernel, kind: Kind, dtype: mx.Dtype, axes: Axes | None, order: int
    ) -> None:
        self.kernel, self.kind, self.dtype, self.axes, self.order = kernel, kind, dtype, axes, order
        self.compute = mx.float64 if mx.float64 in (kind.x, kind.y) else mx.float32
        self.casts = kind.x != self.compute or kind.y != self.compute
        self.first_factor = 2 + len(kind.checks)
        self.end = self.first_factor + kind.factors
        self.checked = [(i, t) for i, t in enumerate(kind.checks) if isinstance(t, Threshold)]
        ordinary = all(check is NumberKind.ORDINARY for check in kind.checks)
        self.formula = kernel.ordinary if kernel.ordinary and ordinary else kernel.formula
        # The factors that derivatives may be asked by: all, or the cotangents, which come first.
        self.live = order if kind.fixed else kind.factors
        # Nothing is cast, checked or masked, so little is left to do.
        self.lean = not (self.casts or self.checked or kind.masked)
        self.elementwise = self.lean_elementwise if self.lean else self.full_elementwise

    def function(self) -> Elementwise:
        """The term as a function that MLX differentiates by the rules below."""
        if not self.kernel.partials:
            return self.value
        custom = mx.custom_function(self.value)
        custom.vjp(self.vjp)
        custom.jvp(self.jvp)
        custom.vmap(self.vmap)
        return cast(Elementwise, custom)

    def parse(self, flat: Sequence[mx.array]) -> Row:
        """The flat row by kind."""
        factors, mask = flat[self.first_factor : self.end], flat[self.end :]
        return Row(flat[0], flat[1], flat[2 : self.first_factor], factors, mask)

    def value(self, *flat: mx.array) -> mx.array:
        """T itself."""
        if self.casts and mx.float16 in self.kind[:2] and on_cpu():
            # Converting float16 in software costs more than keeping the residual for the gradient.
            x, y, *rest = flat
            r, zero = x.astype(self.compute) - y.astype(self.compute), mx.array(0.0, self.compute)
            kind = self.kind._replace(x=self.compute, y=self.compute)
            wide = term(self.kernel, kind, self.dtype, self.axes, self.order, traced=False)
            return wide(r, zero, *rest)
        if self.axes is None:
            return self.elementwise(*flat)
        return summed(self.elementwise, flat, self.axes)

    def lean_elementwise(self, x: mx.array, y: mx.array, *rest: mx.array) -> mx.array:
        """T before it is summed, of arrays that need no care."""
        r = (renewed(x, self.order) if self.order else x) - y
        n = self.first_factor - 2
        out = self.formula(r, *rest[:n])
        if type(out) is not mx.array or out.shape != r.shape:  # a formula may ignore r
            out = as_elementwise(self.formula, out, r)
        for factor in rest[n:]:
            out = factor.astype(self.compute) * out
        return out if self.dtype == self.compute else out.astype(self.dtype)

    def full_elementwise(self, *flat: mx.array) -> mx.array:
        """T before it is summed."""
        x, y, kind = renewed(flat[0], self.order), flat[1], self.kind
        if self.casts:
            x, y = x.astype(self.compute), renewed(y, self.order).astype(self.compute)
        r = x - y
        thetas: Sequence[mx.array] = flat[2 : self.first_factor]
        if self.checked:
            thetas = [renewed(v, self.order).astype(self.compute) for v in thetas]
        if kind.masked and not self.kernel.partials:
            r = mx.where(flat[-1], r, 0)  # so that MLX, differentiating, meets no NaN
        out = self.formula(r, *thetas)
        if type(out) is not mx.array or out.shape != r.shape:
            out = as_elementwise(self.formula, out, r)
        if self.checked or kind.factors:
            out = self.scale(thetas, flat[self.first_factor : self.end]) * out
        if kind.masked:
            out = mx.where(flat[-1], out, 0)
        return out if self.dtype == self.compute else out.astype(self.dtype)

    def scale(self, thetas: Sequence[mx.array], factors: Sequence[mx.array]) -> mx.array:
        """The product of the factors, NaN where a threshold is not valid.

        Scalars are multiplied first: that leaves one operation on the data.
        """
        scales = [threshold.validity(thetas[i]) for i, threshold in self.checked]
        scales += [
            f if f.dtype == self.compute else renewed(f, self.order).astype(self.compute)
            for f in factors
        ]
        return functools.reduce(mx.multiply, scales)

    def derivative(
        self, kernel: Kernel, dtype: mx.Dtype, axes: Axes | None, factors: int
    ) -> Elementwise:
        """The term of a partial kernel, or of this kernel with a factor exchanged."""
        return term(kernel, self.kind._replace(factors=factors), dtype, axes, self.order + 1)

    @functools.cached_property
    def gradient(self) -> Elementwise:
        """The term of psi by which a plain term is differentiated."""
        return self.derivative(self.kernel.partials[0], self.kind.x, None, 1)

    def vjp(
        self, flat: Sequence[mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, ...]:
        """The cotangents of all arguments."""
        cotangent = spread(cotangent, self.axes)
        if self.lean and not self.kind.factors and flat[0].shape == flat[1].shape:
            by_x = self.gradient(*flat, cotangent)
            return (by_x, -by_x, *flat[2:])  # nobody asks for those of numbers
        row, shape = self.parse(flat), data_shape(flat)
        x, y = row.x, row.y
        scale = [cotangent, *row.factors]
        psi, *by_threshold = self.kernel.partials

        def pulled_back(primal: mx.array, kernel: Kernel, factors: Sequence[mx.array]) -> mx.array:
            arguments, n = row.flat(factors), len(factors)
            if primal.shape == shape:
                return self.derivative(kernel, primal.dtype, None, n)(*arguments)
            axes = widened(primal.shape, shape)
            part = self.derivative(kernel, self.compute, axes, n)(*arguments)
            return part.reshape(primal.shape).astype(primal.dtype)

        by_x = pulled_back(x, psi, scale)
        alike = x.dtype == y.dtype and x.shape == y.shape
        fixed = self.kind.fixed
        return (
            by_x,
            -by_x if alike else -pulled_back(y, psi, scale),
            *(
                pulled_back(v, k, scale) if isinstance(check, Threshold) and not fixed else v
                for check, v, k in zip(self.kind.checks, row.thresholds, by_threshold, strict=True)
            ),
            *(
                pulled_back(f, self.kernel, row.swapped(j, cotangent)) if j < self.live else f
                for j, f in enumerate(row.factors)
            ),
            *map(mx.zeros_like, row.mask),
        )

    def jvp(self, flat: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        """The tangent of T: the sum over all arguments that have one."""
        row = self.parse(flat)
        dx, dy, *rest = tangents
        dr = [d.astype(self.compute) for d in (dx, None if dy is None else -dy) if d is not None]
        steps = [sum(dr[1:], dr[0]) if dr else None, *rest[: len(row.thresholds)]]

        def pushed(kernel: Kernel, factors: Sequence[mx.array]) -> mx.array:
            function = self.derivative(kernel, self.compute, self.axes, len(factors))
            return function(*row.flat(factors))

        moved = [
            pushed(kernel, [step, *row.factors])
            for kernel, step in zip(self.kernel.partials, steps, strict=True)
            if step is not None
        ]
        by_factor = rest[len(row.thresholds) : len(row.thresholds) + len(row.factors)]
        moved += [
            pushed(self.kernel, row.swapped(j, step))
            for j, step in enumerate(by_factor)
            if step is not None
        ]
        if not moved:  # the mask alone depends on the argument
            return mx.zeros_like(self.value(*flat))
        return functools.reduce(mx.add, moved).astype(self.dtype)

    def vmap(self, flat: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        """T of a batch, whose axis is the first of the result."""
        axes = None if self.axes is None else tuple(a + 1 for a in self.axes)
        batched = term(self.kernel, self.kind, self.dtype, axes, self.order)
        return batched(*batch_first(flat, batch)), 0


def term(
    kernel: Kernel,
    kind: Kind,
    dtype: mx.Dtype,
    axes: Axes | None = None,
    order: int = 0,
    *,
    traced: bool = True,
) -> Elementwise:
    """The function of a :class:`Term`, built once for each kernel and kind of call.

    Where no argument is traced, it needs no rules of differentiation.
    """
    key = (kind, dtype, axes, order, traced)
    function = kernel.terms.get(key)
    if function is None:
        made = Term(kernel, kind, dtype, axes, order)
        function = kernel.terms[key] = made.function() if traced else made.value
    return cast(Elementwise, function)
