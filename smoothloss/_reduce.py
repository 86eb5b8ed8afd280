"""Sums that stay accurate in float32, and the one corridor from losses to their reduction."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import mlx.core as mx

Axes = tuple[int, ...]
Sum = Callable[[mx.array], mx.array]

# A float32 sum on the CPU runs sequentially, so its error grows with the number of terms. Summing
# FAN terms at a time bounds it, if only like is added to like: a remainder that joined the partial
# sums of the rest would add small terms to large ones, the worst there is. Equal values, the worst
# of data, stay within 5.8e-7 (test_reduction.py walks all mantissas, and odd lengths). RUN
# neighbours are summed side by side, which is what vectorises.
FAN = 16
RUN = 1024


def _staged(x: mx.array) -> mx.array:
    """Sum over the middle axis of a rank 3 array."""
    before, n, after = x.shape
    if n <= FAN:
        return x.sum(1)
    run = min(RUN, n // FAN)
    blocks = n // (FAN * run)
    whole = blocks * FAN * run
    partial = x[:, :whole].reshape(before, blocks, FAN, run * after).sum(2, keepdims=True)
    out = _staged(partial.reshape(before, blocks * run, after))
    return out if whole == n else out + _staged(x[:, whole:])


def _runs(axes: Axes) -> list[tuple[int, int]]:
    """Ascending axes as half-open runs of neighbours: (0, 1, 3) -> [(0, 2), (3, 4)]."""
    runs: list[tuple[int, int]] = []
    for a in axes:
        if runs and runs[-1][1] == a:
            runs[-1] = (runs[-1][0], a + 1)
        else:
            runs.append((a, a + 1))
    return runs


@functools.cache
def _total(axes: Axes) -> Sum:
    """The accurate sum over ``axes`` (ascending, non-negative), kept as axes of length 1.

    Its derivatives are stated since MLX's own, of the staged form, would write full-size arrays.
    """

    def value(x: mx.array) -> mx.array:
        shape = list(x.shape)
        for start, stop in reversed(_runs(axes)):
            before, n = math.prod(shape[:start]), math.prod(shape[start:stop])
            x = _staged(x.reshape(before, n, math.prod(shape[stop:])))
            shape[start:stop] = [1] * (stop - start)
            x = x.reshape(shape)
        return x

    custom = mx.custom_function(value)
    again = cast(Sum, custom)

    @custom.vjp
    def vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        return mx.broadcast_to(cotangent, x.shape)

    @custom.jvp
    def jvp(_: mx.array, tangent: mx.array) -> mx.array:
        return again(tangent)

    @custom.vmap
    def vmap(x: mx.array, axis: int) -> tuple[mx.array, int]:
        return _total(tuple(a + 1 for a in axes))(mx.moveaxis(x, axis, 0)), 0

    return again


def total(x: mx.array, axes: Axes) -> mx.array:
    """Sum of ``x`` over ``axes`` (ascending, non-negative), kept as axes of length 1.

    Booleans are counted as integers, which is exact.
    """
    if x.size == 0:  # MLX 0.32.4 may hang in a sum over an empty array
        shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
        return mx.zeros(shape, mx.int32 if x.dtype == mx.bool_ else x.dtype)
    short = math.prod(x.shape[a] for a in axes) <= FAN
    if short or x.dtype == mx.bool_:
        return mx.sum(x, axis=axes, keepdims=True)
    return _total(axes)(x)


def sum_to(x: mx.array, shape: Sequence[int]) -> mx.array:
    """The transpose of broadcasting ``shape`` to ``x.shape``: a sum over the widened axes."""
    added = x.ndim - len(shape)
    widened = (added + i for i, n in enumerate(shape) if n == 1 and x.shape[added + i] != 1)
    axes = (*range(added), *widened)
    return (total(x, axes) if axes else x).reshape(shape)


def _broadcast_total(v: mx.array, shape: Sequence[int], axes: Axes, dtype: mx.Dtype) -> mx.array:
    """The sum over ``axes`` of ``v`` broadcast to ``shape``, without broadcasting it."""
    v = v.reshape((1,) * (len(shape) - v.ndim) + tuple(v.shape))
    own = tuple(a for a in axes if v.shape[a] != 1)
    repeats = float(math.prod(shape[a] for a in axes if v.shape[a] == 1))
    if v.dtype != mx.bool_:
        v = v.astype(dtype)
    summed = total(v, own).astype(dtype)
    return summed * repeats


def reduced(
    losses: mx.array,
    reduction: str,
    axes: Axes,
    weights: mx.array | None,
    where: mx.array | None,
) -> mx.array:
    """The sum or mean of ``losses``, which are weighted and masked already.

    A mean divides by the total weight of the selected elements; over nothing it is 0.
    """
    out = total(losses, axes).squeeze(axes)
    if reduction == "sum":
        return out
    shape, dtype = losses.shape, losses.dtype
    if weights is None and where is None:
        count = math.prod(shape[a] for a in axes)
        return out / mx.full((), float(count or 1), dtype)
    if weights is not None and where is not None:
        counted = mx.where(where, weights.astype(dtype), 0)
    else:
        counted = cast(mx.array, where if weights is None else weights)
    divisor = _broadcast_total(counted, shape, axes, dtype).squeeze(axes)
    nothing = divisor == 0
    # 0 * out is 0 with zero derivatives, but a NaN that was included still shows.
    return mx.where(nothing, 0 * out, out / mx.where(nothing, 1, divisor))
