r"""Elementwise terms with hand-derived derivatives.

A *term* is a kernel of the residual, scaled by factors and restricted by a mask:

.. math:: T_k(x, y, \theta; f) = \Big(\prod_j f_j\Big)\, k(x - y, \theta),
          \quad \text{0 outside the mask,}

or the same of the residual itself, where that is known already. In the backward pass it costs less
to compute the residual again than to keep it.

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
from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx

from .._threshold import NumberKind, Threshold
from .kernel import Kernel
from .kind import Kind, Row, compute_dtype
from .rules import Rule, with_rules
from .shapes import apart, batch_first, data_shape, renewed, spread, widened
from .sums import Axes, Elementwise, on_cpu, summed, summed_in_float64
from .validation import as_elementwise


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
        dtypes = (kind.x,) if kind.y is None else (kind.x, kind.y)
        self.data, self.compute = len(dtypes), compute_dtype(*dtypes)
        self.casts = any(dtype != self.compute for dtype in dtypes)
        self.first_factor = self.data + len(kind.checks)
        self.end = self.first_factor + kind.factors
        self.checked = [(i, t) for i, t in enumerate(kind.checks) if isinstance(t, Threshold)]
        ordinary = all(check is NumberKind.ORDINARY for check in kind.checks)
        self.formula = kernel.ordinary if kernel.ordinary and ordinary else kernel.formula
        # The factors that derivatives may be asked by: all, or the cotangents, which come first.
        self.live = order if kind.fixed else kind.factors
        # Nothing is cast, checked or masked, so little is left to do.
        self.lean = not (self.casts or self.checked or kind.masked or dtype != self.compute)
        self.elementwise = self.lean_elementwise if self.lean else self.full_elementwise
        self.reduced = (
            self.elementwise if axes is None else self.sum_of_few if kind.few else self.sum
        )
        converts = self.casts and mx.float16 in dtypes
        self.value: Elementwise = self.of_float16 if converts else self.reduced

    def function(self) -> Elementwise:
        """The term as a function that MLX differentiates by the rules below."""
        return by_rules(self.kernel, self.value, self.vjp, self.jvp, self.vmap)

    def parse(self, flat: Sequence[mx.array]) -> Row:
        """The flat row by kind."""
        n, m, end = self.data, self.first_factor, self.end
        return Row(flat[:n], flat[n:m], flat[m:end], flat[end:])

    def sum(self, *flat: mx.array) -> mx.array:
        """T, summed."""
        return summed(self.elementwise, flat, cast(Axes, self.axes))

    def sum_of_few(self, *flat: mx.array) -> mx.array:
        """T, summed over all axes, or over those that broadcasting repeats."""
        whole = self.elementwise(*flat)
        if self.kind.checks and self.formula is not self.kernel.ordinary:
            whole = apart(whole)  # in so long a kernel there is no room for a cast
        return summed_in_float64(whole, cast(Axes, self.axes))

    def of_float16(self, x: mx.array, y: mx.array, *rest: mx.array) -> mx.array:
        """T where the CPU converts float16 in software.

        That costs more than keeping the residual, which the gradient then finds.
        """
        if not on_cpu():
            return self.reduced(x, y, *rest)
        kind = self.kind._replace(x=self.compute, y=None)
        wide = term(self.kernel, kind, self.dtype, self.axes, self.order, traced=False)
        return wide(x.astype(self.compute) - y.astype(self.compute), *rest)

    def lean_elementwise(self, x: mx.array, *rest: mx.array) -> mx.array:
        """T before it is summed, of arrays that need no care."""
        if self.data == 1:
            r = x
        else:
            r = (renewed(x, self.order) if self.order else x) - rest[0]
            rest = rest[1:]
        n = len(rest) - self.kind.factors
        out = self.of_residual(r, *rest[:n])
        for factor in rest[n:]:
            out = factor.astype(self.compute) * out
        return out

    def of_residual(self, r: mx.array, *thetas: mx.array) -> mx.array:
        """The formula, of the shape of r at least."""
        out = self.formula(r, *thetas)
        if type(out) is not mx.array or out.shape != r.shape:  # it may ignore r
            return as_elementwise(self.formula, out, r)
        return out

    def full_elementwise(self, *flat: mx.array) -> mx.array:
        """T before it is summed."""
        kind = self.kind
        r = flat[0]
        if kind.y is not None:
            x, y = renewed(r, self.order), flat[1]
            if self.casts:
                x, y = x.astype(self.compute), renewed(y, self.order).astype(self.compute)
            r = x - y
        thetas: Sequence[mx.array] = flat[self.data : self.first_factor]
        if self.checked:
            thetas = [renewed(v, self.order).astype(self.compute) for v in thetas]
        if kind.masked and not self.kernel.partials:
            r = mx.where(flat[-1], r, 0)  # so that MLX, differentiating, meets no NaN
        out = self.of_residual(r, *thetas)
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
        self, kernel: Kernel, factors: int, dtype: mx.Dtype, axes: Axes | None
    ) -> Elementwise:
        """The term of a partial kernel, or of this kernel with a factor exchanged."""
        return term(kernel, self.kind._replace(factors=factors), dtype, axes, self.order + 1)

    @functools.cached_property
    def gradient(self) -> Elementwise:
        """The term of psi by which a plain term is differentiated."""
        return self.derivative(self.kernel.partials[0], 1, self.kind.x, None)

    def vjp(
        self, primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, ...]:
        """The cotangents of all arguments."""
        flat, cotangent = listed(primals), spread(cotangent, self.axes)
        if self.lean and not self.kind.factors:
            # Nobody asks for those of numbers.
            if self.data == 1:
                return (self.gradient(*flat, cotangent), *flat[1:])
            if flat[0].shape == flat[1].shape:
                by_x = self.gradient(*flat, cotangent)
                return (by_x, -by_x, *flat[2:])
        row, shape = self.parse(flat), data_shape(flat)
        scale = [cotangent, *row.factors]
        psi, *by_threshold = self.kernel.partials

        def by(primal: mx.array, kernel: Kernel, factors: Sequence[mx.array]) -> mx.array:
            function = functools.partial(self.derivative, kernel, len(factors))
            return pulled_back(primal, shape, self.compute, function, row.flat(factors))

        by_data = [by(row.data[0], psi, scale)]
        for x, y in zip(row.data, row.data[1:], strict=False):
            alike = x.dtype == y.dtype and x.shape == y.shape
            by_data.append(-by_data[0] if alike else -by(y, psi, scale))
        fixed = self.kind.fixed
        return (
            *by_data,
            *(
                v if isinstance(check, NumberKind) or fixed else by(v, k, scale)
                for check, v, k in zip(self.kind.checks, row.thresholds, by_threshold, strict=True)
            ),
            *(
                by(f, self.kernel, row.swapped(j, cotangent)) if j < self.live else f
                for j, f in enumerate(row.factors)
            ),
            *map(mx.zeros_like, row.mask),
        )

    def jvp(self, primals: Sequence[mx.array], given: Sequence[mx.array | None]) -> mx.array:
        """The tangent of T: the sum over all arguments that have one."""
        flat, tangents = listed(primals), listed(given)
        row, n = self.parse(flat), self.data
        signed = zip(tangents[:n], (1, -1), strict=False)
        dr = [(d if sign > 0 else -d).astype(self.compute) for d, sign in signed if d is not None]
        steps = [sum(dr[1:], dr[0]) if dr else None, *tangents[n : self.first_factor]]

        def pushed(kernel: Kernel, factors: Sequence[mx.array]) -> mx.array:
            function = self.derivative(kernel, len(factors), self.compute, self.axes)
            return function(*row.flat(factors))

        moved = [
            pushed(kernel, [step, *row.factors])
            for kernel, step in zip(self.kernel.partials, steps, strict=True)
            if step is not None
        ]
        moved += [
            pushed(self.kernel, row.swapped(j, step))
            for j, step in enumerate(tangents[self.first_factor : self.end])
            if step is not None
        ]
        if not moved:  # the mask alone depends on the argument
            return mx.zeros_like(self.value(*flat))
        return functools.reduce(mx.add, moved).astype(self.dtype)

    def vmap(
        self, primals: Sequence[mx.array], batch: Sequence[int | None]
    ) -> tuple[mx.array, int]:
        """T of a batch, whose axis is the first of the result."""
        axes = None if self.axes is None else tuple(a + 1 for a in self.axes)
        kind = self.kind._replace(few=False)
        batched = term(self.kernel, kind, self.dtype, axes, self.order)
        return batched(*batch_first(listed(primals), listed(batch))), 0


def by_rules(
    kernel: Kernel,
    value: Elementwise,
    vjp: Rule,
    jvp: Rule,
    vmap: Rule,
) -> Elementwise:
    """A function of a kernel with its rules, or as it is where MLX differentiates the kernel."""
    if not kernel.partials:
        return value
    return with_rules(value, vjp, jvp, vmap)


def pulled_back(
    primal: mx.array,
    shape: tuple[int, ...],
    compute: mx.Dtype,
    function: Callable[[mx.Dtype, Axes | None], Elementwise],
    arguments: Sequence[mx.array],
) -> mx.array:
    """A term of ``arguments`` that broadcast to ``shape``, summed to the shape of ``primal``.

    ``function`` makes it for a dtype and axes to sum over. It is rounded once.
    """
    if primal.shape == shape:
        return function(primal.dtype, None)(*arguments)
    part = function(compute, widened(primal.shape, shape))(*arguments)
    return part.reshape(primal.shape).astype(primal.dtype)


def listed(given: Any) -> Sequence[Any]:
    """The arguments of a rule as a sequence: MLX passes a single one as it is."""
    return given if isinstance(given, list | tuple) else [given]


def term(
    kernel: Kernel,
    kind: Kind,
    dtype: mx.Dtype,
    axes: Axes | None = None,
    order: int = 0,
    *,
    traced: bool = True,
) -> Elementwise:
    """The function of a :class:`Term`, built once for each kernel, kind of call and device.

    Where no argument is traced, it needs no rules of differentiation.
    """
    key = (kind, dtype, axes, order, traced, mx.default_device().type)
    function = kernel.terms.get(key)
    if function is None:
        made = Term(kernel, kind, dtype, axes, order)
        function = kernel.terms[key] = made.function() if traced else made.value
    return cast(Elementwise, function)
