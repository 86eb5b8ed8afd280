r"""Elementwise terms with hand-derived derivatives.

A *term* is a kernel of the residual, scaled by factors and cut out by a mask:

.. math:: T_k(x, y, \theta; f) = \Big(\prod_j f_j\Big)\, k(x - y, \theta),
          \quad \text{0 where masked.}

Terms are closed under differentiation, which is all the machinery there is:
:math:`\partial T_k/\partial x` applied to a cotangent or tangent :math:`c` is the term of
:math:`\partial k/\partial r` with the further factor :math:`c`; likewise for each threshold; and
:math:`\partial T_k/\partial f_j` is the term of :math:`k` itself with :math:`c` in the place of
:math:`f_j`. A loss is the term of rho whose factors are the weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from ._loss import Kernel, Threshold
from ._reduce import sum_to

Elementwise = Callable[..., mx.array]


def compute_dtype(x: mx.array, y: mx.array) -> mx.Dtype:
    """float64 where an input is float64, else float32: half types and integers are widened."""
    return mx.float64 if mx.float64 in (x.dtype, y.dtype) else mx.float32


class _Arguments(NamedTuple):
    """The arguments of a term in order: a custom function takes a flat row of arrays."""

    x: mx.array
    y: mx.array
    thresholds: tuple[mx.array, ...]
    factors: tuple[mx.array, ...]
    mask: tuple[mx.array, ...]


@functools.cache
def term(
    kernel: Kernel,
    thresholds: tuple[Threshold, ...],
    masked: bool,
    dtype: mx.Dtype,
    order: int = 0,
) -> Elementwise:
    """The function ``(x, y, *thresholds, *factors, *mask) -> T`` with a result of type ``dtype``.

    Arguments are arrays only, passed by position, of shapes that broadcast together. The
    arithmetic is done in float32 (float64 where x or y is) and rounded once to ``dtype``.
    ``order`` counts the derivatives taken to get here.

    Cached, since a custom function must be built once and outlive every graph that holds it.
    """

    def parse(row: Sequence[mx.array]) -> _Arguments:
        first_factor = 2 + len(thresholds)
        end = len(row) - masked
        return _Arguments(
            row[0],
            row[1],
            tuple(row[2:first_factor]),
            tuple(row[first_factor:end]),
            tuple(row[end:]),
        )

    def sibling(of: Kernel, result: mx.Dtype) -> Elementwise:
        return term(of, thresholds, masked, result, order + 1)

    def value(*row: mx.array) -> mx.array:
        x, y, theta, factors, mask = parse(row)
        compute = compute_dtype(x, y)
        x, y, *own = (_renewed(v, order) for v in (x, y, *theta))
        r = x.astype(compute) - y.astype(compute)
        if mask:
            r = mx.where(mask[0], r, 0)  # so that MLX, deriving a last kernel, meets no NaN
        valid = (t.poisoned(v.astype(compute)) for t, v in zip(thresholds, own, strict=True))
        out = kernel.formula(r, *valid)
        if factors:
            out = functools.reduce(mx.multiply, [f.astype(compute) for f in factors]) * out
        if mask:
            out = mx.where(mask[0], out, 0)
        # A formula may ignore an argument that carries a batch axis.
        return mx.broadcast_to(out.astype(dtype), mx.broadcast_shapes(*(v.shape for v in row)))

    if not kernel.partials:
        return value

    custom = mx.custom_function(value)

    @custom.vjp
    def vjp(row: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        x, y, theta, factors, mask = parse(row)

        def pull(primal: mx.array, of: Kernel, scale: Sequence[mx.array]) -> mx.array:
            full = primal.shape == cotangent.shape
            result = primal.dtype if full else compute_dtype(x, y)
            part = sibling(of, result)(x, y, *theta, *scale, *mask)
            return part if full else sum_to(part, primal.shape).astype(primal.dtype)

        psi, *rest = kernel.partials
        scale = (cotangent, *factors)
        gx = pull(x, psi, scale)
        alike = x.dtype == y.dtype and x.shape == y.shape
        return (
            gx,
            -gx if alike else -pull(y, psi, scale),
            *(pull(v, k, scale) for v, k in zip(theta, rest, strict=True)),
            *(pull(f, kernel, _swapped(factors, j, cotangent)) for j, f in enumerate(factors)),
            *map(mx.zeros_like, mask),
        )

    @custom.jvp
    def jvp(row: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        x, y, theta, factors, mask = parse(row)
        compute = compute_dtype(x, y)
        dx, dy, *rest = tangents
        dr = [d.astype(compute) for d in (dx, None if dy is None else -dy) if d is not None]
        steps = [sum(dr[1:], dr[0]) if dr else None, *rest]
        moved: list[mx.array] = []

        def push(of: Kernel, scale: Sequence[mx.array]) -> None:
            moved.append(sibling(of, compute)(x, y, *theta, *scale, *mask))

        for k, step in zip(kernel.partials, steps, strict=False):
            if step is not None:
                push(k, (step, *factors))
        for j, step in enumerate(rest[len(theta) : len(theta) + len(factors)]):
            if step is not None:
                push(kernel, _swapped(factors, j, step))
        if not moved:  # the mask alone depends on the argument
            return mx.zeros(mx.broadcast_shapes(*(v.shape for v in row)), dtype)
        return functools.reduce(mx.add, moved).astype(dtype)

    @custom.vmap
    def vmap(row: Sequence[mx.array], axes: Sequence[int | None]) -> tuple[mx.array, int]:
        return cast(Elementwise, custom)(*batch_first(row, axes)), 0

    return cast(Elementwise, custom)


def _renewed(v: mx.array, order: int) -> mx.array:
    """``v`` as a node of the graph of its own for each order of derivative, at no cost.

    Keeps ``mx.compile`` from sharing x - y, say, between the forward and the backward, which would
    write it to memory: that costs more than computing it twice.
    """
    for _ in range(order):  # one axis a time: MLX 0.32.4 vmaps expand_dims of several axes wrongly
        v = mx.squeeze(mx.expand_dims(v, 0), 0)
    return v


def _swapped(factors: tuple[mx.array, ...], j: int, other: mx.array) -> tuple[mx.array, ...]:
    return (other, *factors[:j], *factors[j + 1 :])


def batch_first(row: Sequence[mx.array], axes: Sequence[int | None]) -> list[mx.array]:
    """The arrays with their batch axis moved to the front, of equal rank where they have one."""
    rank = max(v.ndim - (a is not None) for v, a in zip(row, axes, strict=True))
    moved = []
    for v, a in zip(row, axes, strict=True):
        if a is not None:
            v = mx.moveaxis(v, a, 0)
            v = v.reshape(v.shape[0], *[1] * (rank - v.ndim + 1), *v.shape[1:])
        moved.append(v)
    return moved
