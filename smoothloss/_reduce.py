"""Sums that stay accurate in float32, and the mean and sum of losses."""

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
# The CPU maps and clears fresh memory for every array above 32 MB, which costs more than the
# losses; so they are computed and summed in blocks of this many.
BLOCK = 1 << 22


def on_cpu() -> bool:
    """Whether MLX runs on the CPU; a GPU sums in a tree, and pays for every kernel it launches."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def _staged(x: mx.array) -> mx.array:
    """Sum over the middle axis of a rank 3 array."""
    before, n, after = x.shape
    if n <= FAN or not on_cpu():
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


def _sum(x: mx.array, axes: Axes) -> mx.array:
    """The accurate sum over ``axes`` (ascending, non-negative), dropped.

    Booleans are counted as integers, which is exact.
    """
    kept = [n for a, n in enumerate(x.shape) if a not in axes]
    if x.size == 0:  # MLX 0.32.4 may hang in a sum over an empty array
        return mx.zeros(kept, mx.int32 if x.dtype == mx.bool_ else x.dtype)
    if x.dtype == mx.bool_ or math.prod(x.shape[a] for a in axes) <= FAN:
        return x.sum(axes) if axes else x
    shape = list(x.shape)
    for start, stop in reversed(_runs(axes)):
        before, n = math.prod(shape[:start]), math.prod(shape[start:stop])
        x = _staged(x.reshape(before, n, math.prod(shape[stop:])))
        del shape[start:stop]
    return x.reshape(kept)


def summed(f: Callable[..., mx.array], row: Sequence[mx.array], axes: Axes) -> mx.array:
    """``f(*row)``, an elementwise function of arrays that broadcast, summed over ``axes``."""
    shape = mx.broadcast_shapes(*(v.shape for v in row))
    blocks = math.ceil(math.prod(shape) / BLOCK)
    if not on_cpu() or blocks <= 1 or shape[0] < 2:
        return _sum(f(*row), axes)
    step = math.ceil(shape[0] / blocks)

    def part(v: mx.array, start: int) -> mx.array:
        shared = v.ndim < len(shape) or v.shape[0] == 1
        return v if shared else v[start : start + step]

    parts = [
        _sum(f(*(part(v, start) for v in row)), axes) for start in range(0, shape[0], step)
    ]
    return _sum(mx.stack(parts), (0,)) if 0 in axes else mx.concatenate(parts)


@functools.cache
def _total(axes: Axes) -> Sum:
    """:func:`_sum` with derivatives: MLX's own, of the staged form, write full-size arrays."""
    custom = mx.custom_function(lambda x: _sum(x, axes))
    again = cast(Sum, custom)

    @custom.vjp
    def vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        for a in axes:
            cotangent = mx.expand_dims(cotangent, a)
        return mx.broadcast_to(cotangent, x.shape)

    @custom.jvp
    def jvp(_: mx.array, tangent: mx.array) -> mx.array:
        return again(tangent)

    @custom.vmap
    def vmap(x: mx.array, axis: int) -> tuple[mx.array, int]:
        return _total(tuple(a + 1 for a in axes))(mx.moveaxis(x, axis, 0)), 0

    return again


def _total_weight(v: mx.array, shape: Sequence[int], axes: Axes, dtype: mx.Dtype) -> mx.array:
    """The sum over ``axes`` of ``v`` broadcast to ``shape``, without broadcasting it."""
    v = v.reshape((1,) * (len(shape) - v.ndim) + tuple(v.shape))
    own = tuple(a for a in axes if v.shape[a] != 1)
    repeats = float(math.prod(shape[a] for a in axes if v.shape[a] == 1))
    if v.dtype == mx.bool_:
        out = _sum(v, own).astype(dtype)
    else:
        out = _total(own)(v.astype(dtype)) if own else v.astype(dtype)
    return out.reshape([n for a, n in enumerate(v.shape) if a not in axes]) * repeats


def mean(
    out: mx.array,
    shape: Sequence[int],
    axes: Axes,
    weights: mx.array | None,
    where: mx.array | None,
) -> mx.array:
    """The mean of losses of ``shape`` from their sum ``out`` over ``axes``.

    It divides by the total weight of the selected elements; over nothing it is 0.
    """
    if weights is None and where is None:
        count = math.prod(shape[a] for a in axes)
        return out / mx.full((), float(count or 1), out.dtype)
    if weights is not None and where is not None:
        counted = mx.where(where, weights.astype(out.dtype), 0)
    else:
        counted = cast(mx.array, where if weights is None else weights)
    divisor = _total_weight(counted, shape, axes, out.dtype)
    nothing = divisor == 0
    # 0 * out is 0 with zero derivatives, but a NaN that was included still shows.
    return mx.where(nothing, 0 * out, out / mx.where(nothing, 1, divisor))
