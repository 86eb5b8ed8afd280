r"""The median absolute deviation, a robust estimate of the standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ._engine import inputs
from ._engine.kind import compute_dtype
from ._threshold import Threshold
from ._types import Array, Axis, Parameter

NORMAL = 0.6744897501960817
"""The median absolute deviation of the standard normal distribution, its third quartile."""

CENTER = Threshold("center", low=-float("inf"))


def mad(
    r: Array,
    axis: Axis = None,
    keepdims: bool = False,
    *,
    center: Parameter | None = None,
    weights: Array | None = None,
    where: Array | None = None,
) -> mx.array:
    r"""Median absolute deviation, scaled to estimate the standard deviation of normal data.

    .. math:: \text{mad}(r) = \frac{\operatorname{median}|r - \text{center}|}{\Phi^{-1}(3/4)}
              \qquad \Phi^{-1}(3/4) = 0.67449

    Up to half of the data may be outliers of any size. It is the scale that robust regression
    measures residuals by; there, use ``center=0``, as :func:`irls` does.

    Parameters
    ----------
    r : mx.array or numpy.ndarray
        A real array.
    axis : int or tuple of int, optional
        The axes to reduce over; all by default.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    center : float or mx.array, optional
        What deviations are measured from. An array broadcasts to r. The median by default.
    weights : mx.array, optional
        How often each element counts, at least 0, with as many axes as r, of its lengths or of
        length 1. Whole numbers give the value of the repeated data.
    where : mx.array of bool, optional
        Selects elements; it has as many axes as r, of its lengths or of length 1. Those left out
        do not count, whatever they hold.

    Returns
    -------
    mx.array
        Of the dtype of r (float32 for integers), and of its shape without ``axis``.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If center, weights or where do not fit the shape of r, or if axis is unknown.

    Notes
    -----
    The median of an even count is the mean of the middle two. It is NaN of nothing, of data with a
    NaN, where a weight is negative, and where half of the data are infinite. Half types are
    computed in float32 and rounded once.

    The gradient is that of the middle elements: one element, or the middle two by halves, pull the
    median of the deviations, and with the default center the median too. It is finite, also at
    equal elements, where it is one of several subgradients. No gradient reaches ``weights``.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> r = mx.array([1.0, 2.0, 3.0, 4.0, 1000.0])
    >>> sl.mad(r)
    array(1.4826, dtype=float32)
    >>> sl.mad(r, center=0.0)
    array(4.44781, dtype=float32)
    >>> sl.mad(mx.array([[1.0, 2.0, 6.0], [0.0, 0.0, 9.0]]), axis=1)
    array([1.4826, 0], dtype=float32)
    """
    x = inputs.as_array("mad", "r", r)
    axes = inputs.axes("mad", "mean", axis, x.ndim)
    dtype = x.dtype if mx.issubdtype(x.dtype, mx.floating) else mx.float32
    compute = compute_dtype(dtype)
    factors = counts_of("mad", weights, where, x.shape, compute)
    if where is not None:
        x = mx.where(inputs.selection("mad", where, x.shape), x, mx.zeros_like(x))
    x = x.astype(compute)
    if center is None:
        middle = _median(x, factors, axes)
    else:
        (at,), _ = inputs.thresholds("mad", [CENTER], [center], x.shape, compute)
        middle = at.astype(compute) if isinstance(at, mx.array) else mx.array(at, compute)
    found = _median(mx.abs(x - middle), factors, axes) / NORMAL
    return (found if keepdims else found.squeeze(axes)).astype(dtype)


def counts_of(
    function: str, weights: object, where: object, shape: Sequence[int], dtype: mx.Dtype
) -> mx.array | None:
    """How often each element counts, if not all count once."""
    if weights is None and where is None:
        return None
    found = mx.ones(shape, dtype)
    if weights is not None:
        found = found * inputs.weighting(function, weights, shape, dtype, None)
    if where is not None:
        found = mx.where(inputs.selection(function, where, shape), found, mx.zeros_like(found))
    return found


def _median(x: mx.array, weights: mx.array | None, axes: tuple[int, ...]) -> mx.array:
    """The median over the axes, which stay with length 1."""
    kept = [a for a in range(x.ndim) if a not in axes]
    shape, n = [1 if a in axes else x.shape[a] for a in range(x.ndim)], 1
    for a in axes:
        n *= x.shape[a]
    rows = [
        v.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), n)
        for v in (x, *([] if weights is None else [weights]))
    ]
    if n == 0:
        return mx.full(shape, mx.nan, x.dtype)
    return (_middle(rows[0]) if weights is None else _weighted_middle(*rows)).reshape(shape)


def _middle(x: mx.array) -> mx.array:
    """The median of the last axis. NaN is sorted to the end."""
    n, x = x.shape[-1], mx.sort(x, axis=-1)
    median = 0.5 * x[..., (n - 1) // 2] + 0.5 * x[..., n // 2]
    return mx.where(mx.isnan(x[..., -1]), mx.nan, median)


def _weighted_middle(x: mx.array, weights: mx.array) -> mx.array:
    """The middle of the elements, in order, that half of the total weight lies on each side of."""
    order = mx.argsort(mx.stop_gradient(x), axis=-1)
    x = mx.take_along_axis(x, order, axis=-1)
    weights = mx.stop_gradient(mx.take_along_axis(weights, order, axis=-1))
    reached = mx.cumsum(weights, axis=-1)
    half = 0.5 * reached[..., -1:]
    ends = [(reached < half).sum(-1, keepdims=True), (reached <= half).sum(-1, keepdims=True)]
    low, high = (mx.take_along_axis(x, mx.minimum(i, x.shape[-1] - 1), axis=-1) for i in ends)
    valid = (weights >= 0).all(-1) & (half[..., 0] > 0) & ~mx.isnan(x[..., -1])
    return mx.where(valid, (0.5 * low + 0.5 * high)[..., 0], mx.nan)
