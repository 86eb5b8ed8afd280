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
from dataclasses import dataclass
from typing import NamedTuple, cast

import mlx.core as mx

from .._threshold import Threshold
from .kernel import Kernel
from .sums import Axes, Elementwise, on_cpu, summed


def compute_dtype(x: mx.array, y: mx.array) -> mx.Dtype:
    """float64 where an input is float64, else float32: half types and integers are widened."""
    return mx.float64 if mx.float64 in (x.dtype, y.dtype) else mx.float32


class Row(NamedTuple):
    """The arguments of a term. A custom function takes them as a flat row of arrays."""

    x: mx.array
    y: mx.array
    thresholds: tuple[mx.array, ...]
    factors: tuple[mx.array, ...]
    mask: tuple[mx.array, ...]

    @property
    def compute(self) -> mx.Dtype:
        """The dtype of the arithmetic."""
        return compute_dtype(self.x, self.y)

    def flat(self, factors: Sequence[mx.array]) -> list[mx.array]:
        """The flat row, with these factors."""
        return [self.x, self.y, *self.thresholds, *factors, *self.mask]

    def swapped(self, j: int, other: mx.array) -> list[mx.array]:
        """The factors with ``other`` in place of the j-th."""
        return [other, *self.factors[:j], *self.factors[j + 1 :]]


@dataclass(frozen=True)
class Term:
    """The function ``(x, y, *thresholds, *factors, *mask) -> T`` and its derivatives.

    Arguments are arrays only, passed by position, of shapes that broadcast together. The
    arithmetic is done in float32 (float64 where x or y is) and rounded once to ``dtype``.

    ``checks`` has one entry for each threshold: None where the threshold was a number, which is
    checked already and has no derivative. With ``axes`` (ascending, non-negative) T is summed over
    them, and they are dropped. ``order`` counts the derivatives taken to get here.
    """

    kernel: Kernel
    checks: tuple[Threshold | None, ...]
    masked: bool
    dtype: mx.Dtype
    axes: Axes | None = None
    order: int = 0

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
        start, end = 2 + len(self.checks), len(flat) - self.masked
        x, y, *thresholds = flat[:start]
        return Row(x, y, tuple(thresholds), tuple(flat[start:end]), tuple(flat[end:]))

    def value(self, *flat: mx.array) -> mx.array:
        """T itself."""
        x, y, *rest = flat
        if on_cpu() and mx.float16 in (x.dtype, y.dtype):
            # Converting float16 in software costs more than keeping the residual for the gradient.
            compute = compute_dtype(x, y)
            flat = (x.astype(compute) - y.astype(compute), mx.array(0.0, compute), *rest)
        if self.axes is None:
            return self.elementwise(*flat)
        return summed(self.elementwise, flat, self.axes)

    def elementwise(self, *flat: mx.array) -> mx.array:
        """T before it is summed."""
        row = self.parse(flat)
        compute = row.compute

        def fresh(v: mx.array) -> mx.array:
            return renewed(v, self.order) if v is not row.y or v.dtype != compute else v

        r = fresh(row.x).astype(compute) - fresh(row.y).astype(compute)
        if row.mask and not self.kernel.partials:
            r = mx.where(row.mask[0], r, 0)  # so that MLX, differentiating, meets no NaN
        thetas = [fresh(v).astype(compute) for v in row.thresholds]
        out = self.kernel.formula(r, *thetas)
        scales = [s.validity(v) for s, v in zip(self.checks, thetas, strict=True) if s is not None]
        scales += [fresh(f).astype(compute) for f in row.factors]
        if scales:
            out = functools.reduce(mx.multiply, scales) * out
        if row.mask:
            out = mx.where(row.mask[0], out, 0)
        # A formula may ignore an argument that carries a batch axis.
        return mx.broadcast_to(out.astype(self.dtype), data_shape(flat))

    def derivative(self, kernel: Kernel, dtype: mx.Dtype, axes: Axes | None) -> Elementwise:
        """The term of a partial kernel, or of this kernel with a factor exchanged."""
        return term(kernel, self.checks, self.masked, dtype, axes, self.order + 1)

    def vjp(
        self, flat: Sequence[mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, ...]:
        """The cotangents of all arguments."""
        row, shape = self.parse(flat), data_shape(flat)
        cotangent = spread(cotangent, self.axes)
        scale = [cotangent, *row.factors]
        psi, *by_threshold = self.kernel.partials

        def pulled_back(primal: mx.array, kernel: Kernel, factors: Sequence[mx.array]) -> mx.array:
            arguments = row.flat(factors)
            if primal.shape == shape:
                return self.derivative(kernel, primal.dtype, None)(*arguments)
            axes = widened(primal.shape, shape)
            part = self.derivative(kernel, row.compute, axes)(*arguments)
            return part.reshape(primal.shape).astype(primal.dtype)

        x, y = row.x, row.y
        by_x = pulled_back(x, psi, scale)
        alike = x.dtype == y.dtype and x.shape == y.shape
        return (
            by_x,
            -by_x if alike else -pulled_back(y, psi, scale),
            *(
                mx.zeros_like(v) if check is None else pulled_back(v, k, scale)
                for check, v, k in zip(self.checks, row.thresholds, by_threshold, strict=True)
            ),
            *(
                pulled_back(f, self.kernel, row.swapped(j, cotangent))
                for j, f in enumerate(row.factors)
            ),
            *map(mx.zeros_like, row.mask),
        )

    def jvp(self, flat: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        """The tangent of T: the sum over all arguments that have one."""
        row = self.parse(flat)
        dx, dy, *rest = tangents
        dr = [d.astype(row.compute) for d in (dx, None if dy is None else -dy) if d is not None]
        steps = [sum(dr[1:], dr[0]) if dr else None, *rest[: len(row.thresholds)]]

        def pushed(kernel: Kernel, factors: Sequence[mx.array]) -> mx.array:
            return self.derivative(kernel, row.compute, self.axes)(*row.flat(factors))

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
        batched = term(self.kernel, self.checks, self.masked, self.dtype, axes, self.order)
        return batched(*batch_first(flat, batch)), 0


def term(
    kernel: Kernel,
    checks: tuple[Threshold | None, ...],
    masked: bool,
    dtype: mx.Dtype,
    axes: Axes | None = None,
    order: int = 0,
) -> Elementwise:
    """The function of a :class:`Term`, built once for each kernel and kind of call."""
    key = (checks, masked, dtype, axes, order)
    function = kernel.terms.get(key)
    if function is None:
        function = Term(kernel, checks, masked, dtype, axes, order).function()
        kernel.terms[key] = function
    return cast(Elementwise, function)


def data_shape(flat: Sequence[mx.array]) -> tuple[int, ...]:
    """The shape to which all arguments broadcast."""
    return mx.broadcast_shapes(*(v.shape for v in flat))


def widened(shape: Sequence[int], data: Sequence[int]) -> Axes:
    """The axes along which broadcasting ``shape`` to ``data`` repeats, the added ones included."""
    added = len(data) - len(shape)
    repeated = (added + i for i, n in enumerate(shape) if n == 1 and data[added + i] != 1)
    return (*range(added), *repeated)


def spread(cotangent: mx.array, axes: Axes | None) -> mx.array:
    """The cotangent of a sum with the summed axes put back, of length 1.

    A scalar stays one: a kernel that takes scalars and data alone runs without strides, which is
    up to three times as fast on the CPU.
    """
    if cotangent.ndim > 0:
        for a in axes or ():  # one axis at a time, as in renewed
            cotangent = mx.expand_dims(cotangent, a)
    return cotangent


def renewed(v: mx.array, order: int) -> mx.array:
    """``v`` as a node of the graph of its own for each order of derivative, at no cost.

    This keeps ``mx.compile`` from sharing x - y, say, between the forward and the backward pass. A
    shared value is written to memory, which costs more than computing it twice.
    """
    for _ in range(order):
        # One axis at a time: MLX 0.32.4 maps an expand_dims of several axes wrongly.
        v = mx.squeeze(mx.expand_dims(v, 0), 0)
    return v


def batch_first(flat: Sequence[mx.array], axes: Sequence[int | None]) -> list[mx.array]:
    """The arrays with their batch axis moved to the front, of equal rank where they have one."""
    rank = max(v.ndim - (a is not None) for v, a in zip(flat, axes, strict=True))
    moved = []
    for v, a in zip(flat, axes, strict=True):
        if a is not None:
            v = mx.moveaxis(v, a, 0)
            v = v.reshape(v.shape[0], *[1] * (rank - v.ndim + 1), *v.shape[1:])
        moved.append(v)
    return moved
