"""The one corridor from a public function to its result."""

from __future__ import annotations

import mlx.core as mx

from . import _inputs
from ._custom import compute_dtype, term
from ._inputs import Array, Axis, Parameter
from ._loss import Loss
from ._mean import mean


def evaluate(
    function: str,
    loss: Loss,
    data: dict[str, Array],
    thresholds: dict[str, Parameter],
    reduction: str,
    weights: Parameter | None,
    where: Array | None,
    axis: Axis,
) -> mx.array:
    """Validate, promote, apply ``loss`` elementwise, reduce.

    ``data`` and ``thresholds`` carry the names under which the caller's signature has them.
    """
    (x_name, x_given), (y_name, y_given) = data.items()
    x, y, dtype = _inputs.data(function, (x_name, y_name), x_given, y_given)
    axes = _inputs.axes(function, reduction, axis, x.ndim)
    compute = compute_dtype(x, y)
    theta, specs = _inputs.thresholds(function, loss.thresholds, thresholds, x.shape, compute)
    w = _inputs.weighting(function, weights, x.shape, compute)
    mask = _inputs.selection(function, where, x.shape)
    row = (x, y, *theta, *(v for v in (w, mask) if v is not None))
    masked = mask is not None
    if reduction == "none":
        return term(loss.kernel, specs, masked, dtype)(*row)
    # Reductions take the losses as computed; half types are rounded once, at the end.
    out = term(loss.kernel, specs, masked, compute, axes)(*row)
    if reduction == "mean":
        out = mean(out, x.shape, axes, w, mask)
    return out.astype(dtype)
