"""The way of every call: validate, promote, apply the loss elementwise, reduce."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import mlx.core as mx

from .._exportable import active
from .exportable import ExportablePlan
from .plan import Plan, prepare

if TYPE_CHECKING:
    from .._loss import Loss

MOST = 512  # plans that a loss keeps at a time


class Caller(NamedTuple):
    """Who calls, and how it names its data: what errors say."""

    name: str
    data: tuple[str, str] = ("predictions", "targets")


def evaluate(
    loss: Loss,
    caller: Caller,
    x: Any,
    y: Any,
    thresholds: Sequence[Any],
    reduction: Any,
    weights: Any,
    where: Any,
    axis: Any,
) -> mx.array:
    """Validate, promote, apply the loss elementwise, reduce.

    Every function, class and record calls this; ``caller`` is who the errors name. What a call
    needs is found out once for each kind of call, as that takes longer than to make a small one.
    """
    given = [*thresholds, weights, where]
    key: Hashable = None
    # A mask of NumPy, which may be hashable, is converted anew for each call.
    if type(x) is mx.array and type(y) is mx.array and (where is None or type(where) is mx.array):
        key = (
            *(x.shape, y.shape, x.dtype, y.dtype, reduction),
            *(mx.default_device().type, active(), *map(kind, thresholds)),
        )
        if not (weights is None and where is None and axis is None):
            key = (*key, kind(weights), kind(where), kind(axis))
        try:
            plan = loss.plans.get(key)
        except TypeError:  # an argument that can't be hashed
            key = plan = None
        if plan is not None:
            return plan(x, y, given)
    make = ExportablePlan if active() else Plan
    plan, x, y = prepare(loss, *caller, x, y, reduction, axis, given, make)
    if key is not None:
        if len(loss.plans) >= MOST:
            loss.plans.clear()
        loss.plans[key] = plan
    return plan(x, y, given)


def kind(value: Any) -> Hashable:
    """What of an argument matters: of an array its shape and dtype, of others all."""
    if type(value) is float:
        return value
    return (value.shape, value.dtype) if type(value) is mx.array else (type(value), value)
