"""The mean of losses: their sum over the total weight of what was selected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from ._custom import term
from ._loss import Kernel
from ._reduce import Axes, sum_over, summed_in_kernel

# The term of the kernel r = weight - 0, under the mask: its sum is the total weight. The partial of
# its partial is stated too: a kernel without would leave its sums to MLX, in plain float32.
_ZERO = Kernel(lambda r: mx.array(0.0, r.dtype))
_ONE = Kernel(lambda r: mx.array(1.0, r.dtype), (_ZERO,))
_WEIGHT = Kernel(lambda r: r, (_ONE,))


def _total_weight(
    weights: mx.array, mask: tuple[mx.array, ...], axes: Axes, dtype: mx.Dtype
) -> mx.array:
    summed = term(_WEIGHT, (), bool(mask), dtype, axes, sum_as=summed_in_kernel)
    return summed(weights, mx.zeros((), dtype), *mask)


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
    # What is shared along an axis is summed once, and counted as often.
    given = [
        v.reshape((1,) * (len(shape) - v.ndim) + tuple(v.shape))
        for v in (weights, where)
        if v is not None
    ]
    joint = mx.broadcast_shapes(*(v.shape for v in given))
    own = tuple(a for a in axes if joint[a] != 1)
    repeats = float(math.prod(shape[a] for a in axes if joint[a] == 1))
    kept = [n for a, n in enumerate(joint) if a not in axes]
    if weights is None:
        selected = sum_over(given[0], own).reshape(kept).astype(out.dtype) * repeats
        return out / mx.maximum(selected, 1)
    divisor = _total_weight(given[0], tuple(given[1:]), own, out.dtype).reshape(kept) * repeats
    nothing = divisor == 0
    # 0 * out is 0 with zero derivatives, but a NaN that was included still shows.
    return mx.where(nothing, 0 * out, out / mx.where(nothing, 1, divisor))
