"""Shapes: what broadcasting repeats, axes that come and go, and nodes of their own."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from .sums import Axes

FEW_THRESHOLDS = 1024


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
    if axes and cotangent.ndim > 0:
        for a in axes:  # one at a time: MLX 0.32.4 maps an expand_dims of several axes wrongly
            cotangent = mx.expand_dims(cotangent, a)
    return cotangent


def apart(v: mx.array) -> mx.array:
    """The same, but as a node that MLX neither fuses nor shares: it ends one kernel.

    Of a formula too large for one kernel, with values used in several places, MLX makes dozens.
    """
    return mx.transpose(v, range(v.ndim))


def alone(v: mx.array) -> mx.array:
    """The same, but an operation on it and the next are not fused if its elements are few.

    What depends on thresholds alone needs no kernel, which g++ takes half a second to compile.
    """
    return apart(v) if v.size <= FEW_THRESHOLDS else v


def renewed(v: mx.array, order: int) -> mx.array:
    """``v`` as a node of the graph of its own for each order of derivative, at no cost.

    This keeps ``mx.compile`` from sharing x - y, say, between the forward and the backward pass. A
    shared value is written to memory, which costs more than computing it twice.
    """
    for _ in range(order):
        v = apart(v)
    return v


def largest_rank(flat: Sequence[mx.array], axes: Sequence[int | None]) -> int:
    """The rank of the largest, its batch axis not counted."""
    return max(v.ndim - (a is not None) for v, a in zip(flat, axes, strict=True))


def batch_first(
    flat: Sequence[mx.array], axes: Sequence[int | None], rank: int | None = None
) -> list[mx.array]:
    """The arrays with their batch axis moved to the front, of equal rank where they have one.

    That is the rank of the largest, if none is given, and the batch axis.
    """
    if rank is None:
        rank = largest_rank(flat, axes)
    moved = []
    for v, a in zip(flat, axes, strict=True):
        if a is not None:
            v = mx.moveaxis(v, a, 0)
            v = v.reshape(v.shape[0], *[1] * (rank - v.ndim + 1), *v.shape[1:])
        moved.append(v)
    return moved
