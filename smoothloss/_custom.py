r"""Elementwise terms with hand-derived derivatives.

A *term* is a kernel of the residual, scaled by factors and cut out by a mask:

.. math:: T_k(x, y, \theta; f) = \Big(\prod_j f_j\Big)\, k(x - y, \theta),
          \quad \text{0 where masked.}

Terms are closed under differentiation, which is all the machinery there is:
:math:`\partial T_k/\partial x` applied to a cotangent or tangent :math:`c` is the term of
:math:`\partial k/\partial r` with the further factor :math:`c`; likewise for each threshold; and
:math:`\partial T_k/\partial f_j` is the term of :math:`k` itself with :math:`c` in the place of
:math:`f_j`. A loss is the term of rho whose factors are the weights.

A term may also be summed over axes: the sum's derivatives are terms with the cotangent broadcast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from ._loss import Kernel, Threshold
from ._reduce import Axes, Elementwise, on_cpu, summed


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
    thresholds: tuple[Threshold | None, ...],
    masked: bool,
    dtype: mx.Dtype,
    axes: Axes | None = None,
    order: int = 0,
    sum_as: Callable[[Elementwise, Sequence[mx.array], Axes], mx.array] = summed,
) -> Elementwise:
    """The function ``(x, y, *thresholds, *factors, *mask) -> T`` with a result of type ``dtype``.

    Arguments are arrays only, passed by position, of shapes that broadcast together. A threshold
    given as None is a number, checked already and without derivatives. The arithmetic is done in
    float32 (float64 where x or y is) and rounded once to ``dtype``. With ``axes`` (ascending,
    non-negative) T is summed over them, and they are dropped, by ``sum_as``. ``order`` counts the
    derivatives taken to get here.

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

    def sibling(of: Kernel, result: mx.Dtype, over: Axes | None) -> Elementwise:
        return term(of, thresholds, masked, result, over, order + 1)

    def elementwise(*row: mx.array) -> mx.array:
        x, y, theta, factors, mask = parse(row)
        compute = compute_dtype(x, y)

        def own(v: mx.array) -> mx.array:
            return _renewed(v, order) if v is not y or v.dtype != compute else v

        r = own(x).astype(compute) - own(y).astype(compute)
        if mask and not kernel.partials:
            r = mx.where(mask[0], r, 0)  # so that MLX, deriving a last kernel, meets no NaN
        thetas = [own(v).astype(compute) for v in theta]
        out = kernel.formula(r, *thetas)
        by = [t.poison(v) for t, v in zip(thresholds, thetas, strict=True) if t is not None]
        by += [own(f).astype(compute) for f in factors]
        if by:
            out = functools.reduce(mx.multiply, by) * out
        if mask:
            out = mx.where(mask[0], out, 0)
        # A formula may ignore an argument that carries a batch axis.
        return mx.broadcast_to(out.astype(dtype), _data_shape(row))

    def value(*row: mx.array) -> mx.array:
        if on_cpu() and mx.float16 in (row[0].dtype, row[1].dtype):
            # Converting float16 in software costs more than keeping the residual for the gradient.
            compute = compute_dtype(*row[:2])
            r = row[0].astype(compute) - row[1].astype(compute)
            row = (r, mx.array(0.0, compute), *row[2:])
        return elementwise(*row) if axes is None else sum_as(elementwise, row, axes)

    if not kernel.partials:
        return value

    custom = mx.custom_function(value)

    @custom.vjp
    def vjp(row: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        x, y, theta, factors, mask = parse(row)
        shape = _data_shape(row)
        cotangent = _spread(cotangent, axes)

        def pull(primal: mx.array, of: Kernel, scale: Sequence[mx.array]) -> mx.array:
            arguments = (x, y, *theta, *scale, *mask)
            if primal.shape == shape:
                return sibling(of, primal.dtype, None)(*arguments)
            part = sibling(of, compute_dtype(x, y), _widened(primal.shape, shape))(*arguments)
            return part.reshape(primal.shape).astype(primal.dtype)

        psi, *rest = kernel.partials
        scale = (cotangent, *factors)
        gx = pull(x, psi, scale)
        alike = x.dtype == y.dtype and x.shape == y.shape
        return (
            gx,
            -gx if alike else -pull(y, psi, scale),
            *(
                mx.zeros_like(v) if t is None else pull(v, k, scale)
                for t, v, k in zip(thresholds, theta, rest, strict=True)
            ),
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
            moved.append(sibling(of, compute, axes)(x, y, *theta, *scale, *mask))

        for k, step in zip(kernel.partials, steps, strict=False):
            if step is not None:
                push(k, (step, *factors))
        for j, step in enumerate(rest[len(theta) : len(theta) + len(factors)]):
            if step is not None:
                push(kernel, _swapped(factors, j, step))
        if not moved:  # the mask alone depends on the argument
            return mx.zeros_like(value(*row))
        return functools.reduce(mx.add, moved).astype(dtype)

    @custom.vmap
    def vmap(row: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        inner = None if axes is None else tuple(a + 1 for a in axes)
        batched = term(kernel, thresholds, masked, dtype, inner, order, sum_as)
        return batched(*batch_first(row, batch)), 0

    return cast(Elementwise, custom)


def _data_shape(row: Sequence[mx.array]) -> tuple[int, ...]:
    return mx.broadcast_shapes(*(v.shape for v in row))


def _widened(shape: Sequence[int], data: Sequence[int]) -> Axes:
    """The axes along which broadcasting ``shape`` to ``data`` repeats, the added ones included."""
    added = len(data) - len(shape)
    widened = (added + i for i, n in enumerate(shape) if n == 1 and data[added + i] != 1)
    return (*range(added), *widened)


def _spread(cotangent: mx.array, axes: Axes | None) -> mx.array:
    """The cotangent of a sum with the summed axes put back, of length 1.

    A scalar stays one: a kernel that takes scalars and data alone runs without strides, which is
    up to three times as fast on the CPU.
    """
    if cotangent.ndim > 0:
        for a in axes or ():  # one axis a time, as in _renewed
            cotangent = mx.expand_dims(cotangent, a)
    return cotangent


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
