"""The way of every call: validate, promote, apply the loss elementwise, reduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import mlx.core as mx

from . import inputs
from .mean import mean
from .term import Kind, compute_dtype, term
from .tracing import traced

if TYPE_CHECKING:
    from .._loss import Loss


class Caller(NamedTuple):
    """Who calls, and how it names its data: what errors say."""

    name: str
    data: tuple[str, str] = ("predictions", "targets")


def evaluate(
    loss: Loss,
    caller: Caller,
    predictions: object,
    targets: object,
    thresholds: Sequence[object],
    reduction: str,
    weights: object,
    where: object,
    axis: object,
) -> mx.array:
    """Validate, promote, apply the loss elementwise, reduce.

    Every function, class and record calls this; ``caller`` is who the errors name.
    """
    name = caller.name
    loss, thresholds = loss.member(thresholds)
    x, y, dtype = inputs.data(name, caller.data, predictions, targets)
    axes = inputs.axes(name, reduction, axis, x.ndim)
    shape, compute = x.shape, compute_dtype(x, y)
    arrays = [v for v in (*thresholds, weights, where) if isinstance(v, mx.array)]
    live = bool(arrays) and traced(*arrays)
    rules = live or traced(x, y)
    theta, checks = inputs.thresholds(
        name, loss.thresholds, thresholds, shape, compute, traced=rules
    )
    row, w, mask = [x, y, *theta], None, None
    if weights is not None:
        w = inputs.weighting(name, weights, shape, compute, traced=rules)
        row.append(w)
    if where is not None:
        mask = inputs.selection(name, where, shape)
        row.append(mask)
    key = (x.dtype, y.dtype, checks, w is None, mask is None, reduction, axes, rules, live)
    function = loss.functions.get(key)
    if function is None:
        kind = Kind(x.dtype, y.dtype, checks, int(w is not None), mask is not None, not live)
        # Reductions take the losses as computed; half types are rounded once, at the end.
        whole = reduction == "none"
        result, over = (dtype, None) if whole else (compute, axes)
        function = loss.functions[key] = term(loss.kernel, kind, result, over, traced=rules)
    out = function(*row)
    if reduction == "mean":
        out = mean(out, shape, axes, w, mask, traced=rules, live=live)
    return out if dtype == out.dtype else out.astype(dtype)
