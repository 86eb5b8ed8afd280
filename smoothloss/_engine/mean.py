"""The mean of losses: their sum over the total weight of what was selected."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from .shapes import batch_first, data_shape, spread, widened
from .sums import Axes, Elementwise, sum_over, summed_in_kernel


def weighted_mean(
    out: mx.array,
    shape: tuple[int, ...],
    axes: Axes,
    weights: mx.array | None,
    where: mx.array | None,
    *,
    live: bool = True,
) -> mx.array:
    """The mean of losses of ``shape`` from their sum ``out`` over ``axes``.

    It divides by the total weight of the selected elements; over nothing it is 0. ``live`` says
    whether a transform is under way on the weights or the mask.
    """
    given = [_ranked(v, len(shape)) for v in (weights, where) if v is not None]
    own, repeats, kept = _shares(shape, axes, *(v.shape for v in given))

    def whole(total: mx.array) -> mx.array:
        total = total.reshape(kept).astype(out.dtype)
        return total if repeats == 1 else total * repeats

    if weights is None:
        return out / mx.maximum(whole(sum_over(given[0], own)), 1)
    # Over nothing it is 0 with zero derivatives, but a NaN that was included still shows.
    if not live:
        divisor = whole(total_weight(given, own, out.dtype))
        return out / mx.where(divisor == 0, mx.inf, divisor)
    mask = given[1] if where is not None else mx.array(True)
    divisor = whole(sum_of_selected(own, out.dtype)(given[0], mask))
    some = divisor != 0
    return out * some / mx.where(some, divisor, 1)


@functools.lru_cache(maxsize=512)
def _shares(
    shape: tuple[int, ...], axes: Axes, *given: tuple[int, ...]
) -> tuple[Axes, float, list[int]]:
    """The axes to sum weights over, how often each is counted, and what shape remains.

    What is shared along an axis is summed once, and counted as often.
    """
    joint = mx.broadcast_shapes(*given)
    own = tuple(a for a in axes if joint[a] == shape[a])
    repeats = math.prod(shape[a] for a in axes if joint[a] != shape[a])
    return own, float(repeats), [n for a, n in enumerate(joint) if a not in axes]


def total_weight(given: Sequence[mx.array], axes: Axes, dtype: mx.Dtype) -> mx.array:
    """The sum of the weights, or of those selected by a mask, where nobody differentiates it."""
    if len(given) == 1:
        return sum_over(given[0].astype(dtype), axes)
    return summed_in_kernel(selected(dtype), given, axes)


def selected(dtype: mx.Dtype) -> Elementwise:
    """The function ``(weights, mask)`` that keeps the selected weights."""
    return lambda weights, mask: mx.where(mask, weights.astype(dtype), 0)


def _ranked(v: mx.array, rank: int) -> mx.array:
    return v.reshape((1,) * (rank - v.ndim) + tuple(v.shape))


@functools.cache
def sum_of_selected(axes: Axes, dtype: mx.Dtype) -> Elementwise:
    """The function ``(weights, mask)`` that sums the selected weights over ``axes``.

    It is linear in the weights, and its adjoint is a sum of the same kind: the cotangent, where it
    is selected, summed over the axes along which the weights were broadcast. MLX's own adjoint
    would sum these plainly, in float32.
    """
    custom = mx.custom_function(lambda *row: summed_in_kernel(selected(dtype), row, axes))

    @custom.vjp
    def vjp(row: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
        weights, mask = row
        shape = data_shape(row)
        cotangent = _ranked(spread(cotangent, axes), len(shape))
        adjoint = sum_of_selected(widened(weights.shape, shape), dtype)
        by_weights = adjoint(cotangent, mx.broadcast_to(mask, shape))
        return by_weights.reshape(weights.shape).astype(weights.dtype), mx.zeros_like(mask)

    @custom.jvp
    def jvp(row: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        weights, mask = row
        tangent = mx.zeros_like(weights) if tangents[0] is None else tangents[0]
        return sum_of_selected(axes, dtype)(tangent, mask)

    @custom.vmap
    def vmap(row: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        inner = tuple(a + 1 for a in axes)
        return sum_of_selected(inner, dtype)(*batch_first(row, batch)), 0

    return cast(Elementwise, custom)
