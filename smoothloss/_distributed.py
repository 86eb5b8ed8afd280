r"""Means over more data than one call sees: over several machines, or over micro-batches.

With the sum of losses :math:`S_k` and the total weight :math:`W_k` of part k, the mean is

.. math:: m = \frac{\sum_k S_k}{\sum_k W_k}

and not the mean of the :math:`S_k / W_k`, unless all :math:`W_k` are equal. Each machine has its
own part, and returns m, with the gradient by its part times the number of machines. The mean of
these gradients, as ``nn.average_gradients`` computes it, is the gradient of m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from ._engine import inputs
from ._engine.arguments import known_keywords
from ._engine.mean import careful_one_over, sum_of_weights
from ._engine.rules import made_once, with_rules
from ._engine.sums import Axes, Elementwise
from ._modules import LossModule
from ._robust import record_and_thresholds
from ._threshold import as_float, is_number
from ._types import Array, Axis, Parameter

Group = mx.distributed.Group


def global_mean(
    loss: Callable[..., Any],
    predictions: Array,
    targets: Array,
    *,
    weights: Array | None = None,
    where: Array | None = None,
    axis: Axis = None,
    total: Parameter | None = None,
    group: Group | None = None,
    **thresholds: Parameter,
) -> mx.array:
    r"""Mean of a loss over the data of all machines, or over all micro-batches.

    Each rank k of a group has its own data, with losses :math:`\rho_{ki}` and weights
    :math:`w_{ki}`. The result is the same on every rank, the mean of one program with all data:

    .. math:: m = \frac{\sum_k \sum_i w_{ki} \rho_{ki}}{\sum_k \sum_i w_{ki}}

    The mean of the ranks' own means differs from it where their data differ in number, weights or
    mask. The gradient is that of m by the rank's own data, times the number of ranks:
    ``nn.average_gradients``, which divides by that number, turns it into the gradient of m.

    With ``total``, a call is for one of several micro-batches, whose gradients are added.

    Parameters
    ----------
    loss : callable
        A loss: a function such as ``sl.huber_loss``, a :class:`Loss`, a class such as
        ``sl.HuberLoss``, or an instance of it with the reduction "mean", whose thresholds are then
        the defaults.
    predictions, targets : mx.array or numpy.ndarray
        The data of this rank, real arrays of one shape, which may be empty.
    weights : mx.array, optional
        Factors of the losses, with as many axes as the data, of its lengths or of length 1.
        Differentiable, but not with ``total``.
    where : mx.array of bool, optional
        Selects elements; it has as many axes as the data, of its lengths or of length 1. Those left
        out have loss 0 and gradient 0, whatever they hold, and do not count in the mean.
    axis : int or tuple of int, optional
        The axes to reduce over; all by default. The others must have the same lengths on every
        rank.
    total : float or mx.array, optional
        The total weight of all micro-batches of all ranks, as :func:`total_weight` returns it. The
        call then communicates nothing, and returns its share: the sum over the micro-batches,
        averaged over the ranks, is the mean. No derivative can be taken by it or by ``weights``.
    group : mx.distributed.Group, optional
        The machines; by default all that ``mx.distributed.init()`` finds, as in
        ``nn.average_gradients``. One alone has the loss's own mean.
    **thresholds : float, mx.array
        Thresholds of the loss by name. Arrays are differentiable.

    Returns
    -------
    mx.array
        Of the promoted dtype of predictions and targets (float32 for integers), 0-d or of the
        data's shape without ``axis``. Where the total weight of all ranks is 0, it is 0, and so is
        the gradient.

    Raises
    ------
    TypeError
        If ``loss`` is no loss of this library, or has no such threshold, or ``group`` is no group;
        if an argument is of a type that the loss does not take.
    ValueError
        If the reduction of an instance is not "mean"; if ``total`` has not the shape of the result,
        or is a number that is negative, infinite or NaN; if a derivative is taken by ``total``, or
        by weights beside it; if the loss raises.

    Notes
    -----
    Sums of half types are formed and communicated in float32, and rounded once. Neither sum may
    exceed the floats. Without ``total``,
    every rank must call the function equally often: its one ``all_sum`` waits for the others. It
    takes place when the value or the gradient is evaluated, so all ranks have to evaluate one of
    them. Forward-mode derivatives are those of m, not times the number of ranks. Second derivatives
    by learned weights need ``mx.jvp`` of the gradient, in which all ranks take the same tangent.

    Clip gradients by their norm after they are averaged.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import mlx.nn as nn
    >>> import smoothloss as sl
    >>> model = nn.Linear(2, 1)
    >>> def loss(x, y, mask):
    ...     return sl.global_mean(sl.huber_loss, model(x), y, where=mask, delta=1.0)
    >>> x, y = mx.random.normal((5, 2)), mx.random.normal((5, 1))
    >>> value, grads = nn.value_and_grad(model, loss)(x, y, mx.abs(y) < 3)
    >>> grads = nn.average_gradients(grads)

    Micro-batches of three and two rows, on one machine or on several:

    >>> total = sl.total_weight(y)
    >>> parts = [
    ...     sl.global_mean(sl.huber_loss, model(x[i : i + 3]), y[i : i + 3], total=total)
    ...     for i in (0, 3)
    ... ]
    >>> mx.allclose(sum(parts), sl.global_mean(sl.huber_loss, model(x), y))
    array(True, dtype=bool)
    """
    name = "global_mean"
    others = ("weights", "where", "axis", "total", "group")
    record, theta = record_and_thresholds(name, loss, thresholds, others)
    if isinstance(loss, LossModule) and loss.reduction != "mean":
        raise ValueError(
            f"{name}: `loss` has reduction={loss.reduction!r}; expected 'mean', which is what is "
            f"returned. Make it {type(loss).__name__}(...) without a reduction."
        )
    group = _group(name, group)
    size = group.size()
    x, y, dtype, compute = inputs.data(name, record.data_names, predictions, targets)
    if size == 1 and total is None:
        return record(x, y, *theta.values(), "mean", weights=weights, where=where, axis=axis)

    share = _total(name, x.shape, compute, weights, where, axis) if total is None else None
    if weights is not None:
        weights = _weights(name, weights, x.shape, compute)
        weights = weights if total is None else _constant("weights")(weights)
    y = y if dtype == compute else y.astype(compute)  # so that the sum is not rounded yet
    own = record(x, y, *theta.values(), "sum", weights=weights, where=where, axis=axis)
    if share is None:
        whole = _constant("total")(_divisor(name, total, own))
        out = own * (size * careful_one_over(whole))
    else:
        # In one message: who evaluates the gradient has then communicated the value, too.
        both = mx.distributed.all_sum(mx.stack([own, share]), group=group)
        summed, whole = (v.squeeze(0) for v in mx.split(both, 2))
        out = _for_average(size)(summed * careful_one_over(whole))
    return out.astype(dtype)


@known_keywords("total_weight")
def total_weight(
    targets: Array,
    *,
    weights: Array | None = None,
    where: Array | None = None,
    axis: Axis = None,
    group: Group | None = None,
) -> mx.array:
    r"""Total weight of the data of all machines: what their mean is divided by.

    That is :math:`\sum_k \sum_i w_{ki}` over the ranks k of a group and over the elements that are
    selected, or their number without weights. A weight that is shared along an axis counts as
    often. :func:`global_mean` needs it to accumulate gradients over micro-batches.

    Parameters
    ----------
    targets : mx.array or numpy.ndarray
        All data of this rank, of which only the shape and the dtype matter.
    weights : mx.array, optional
        The weights of the losses, with as many axes as the data, of its lengths or of length 1.
    where : mx.array of bool, optional
        Selects elements; it has as many axes as the data, of its lengths or of length 1.
    axis : int or tuple of int, optional
        The axes to reduce over; all by default. The others must have the same lengths on every
        rank.
    group : mx.distributed.Group, optional
        The machines; by default all that ``mx.distributed.init()`` finds.

    Returns
    -------
    mx.array
        Of float32 (float64 if the targets are), 0-d or of the data's shape without ``axis``.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If weights or where have other axes than the data, or weights are a single number; if axis
        is out of range.

    Notes
    -----
    It communicates when it is evaluated, and waits for the other ranks. Evaluate it on every rank
    before the micro-batches, also where a rank has none.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> y = mx.zeros((3, 4))
    >>> sl.total_weight(y)
    array(12, dtype=float32)
    >>> sl.total_weight(y, weights=mx.array([[1.0], [2.0], [0.5]]))
    array(14, dtype=float32)
    >>> sl.total_weight(y, where=mx.array([[True, True, False, False]]), axis=0)
    array([3, 3, 0, 0], dtype=float32)
    """
    name = "total_weight"
    data, _, _, compute = inputs.data(name, ("targets", "targets"), targets, targets)
    share = _total(name, data.shape, compute, weights, where, axis)
    return mx.distributed.all_sum(share, group=_group(name, group))


def _group(function: str, group: object) -> Group:
    if group is None:
        return mx.distributed.init()
    if not isinstance(group, Group):
        raise TypeError(
            f"{function}: `group` is of type {type(group).__name__}; expected a group of "
            f"mx.distributed. Pass mx.distributed.init()."
        )
    return group


def _weights(function: str, value: Any, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
    # As those of a mean, which are no number.
    return cast(mx.array, inputs.weighting(function, value, shape, dtype, "mean"))


def _total(
    function: str, shape: tuple[int, ...], dtype: mx.Dtype, weights: Any, where: Any, axis: Axis
) -> mx.array:
    """The total weight of one rank, of the shape of the result."""
    axes: Axes = inputs.axes(function, "mean", axis, len(shape))
    factors = mx.array(1.0) if weights is None else _weights(function, weights, shape, dtype)
    mask = None if where is None else inputs.selection(function, where, shape)
    out = sum_of_weights(factors.astype(dtype), mask, shape, axes)
    return mx.broadcast_to(out, [n for a, n in enumerate(shape) if a not in axes])


def _divisor(function: str, value: Any, own: mx.array) -> mx.array:
    """The total that was given, in the dtype of the sum."""
    wide = own.dtype == mx.float64
    if is_number(value) and not 0 <= as_float(value) < mx.inf:
        raise ValueError(
            f"{function}: `total` is {value}; expected a finite number of at least 0. Pass the "
            f"result of total_weight(...)."
        )
    array = (
        mx.array(float(value), own.dtype)
        if is_number(value)
        else inputs.as_array(function, "total", value, wide=wide).astype(own.dtype)
    )
    if array.ndim and array.shape != own.shape:
        raise ValueError(
            f"{function}: `total` has shape {array.shape} and the mean {own.shape}; expected the "
            f"same. Pass the result of total_weight(...) with the same axis."
        )
    return array


@made_once
def _for_average(size: int) -> Elementwise:
    """The identity, whose gradient is ``size`` times as large."""
    return _identity(lambda cotangent: cotangent * size, lambda tangent: tangent)


@made_once
def _constant(name: str) -> Elementwise:
    """The identity, which raises where a derivative is taken."""

    def refuse(_: mx.array) -> mx.array:
        raise ValueError(
            f"global_mean: a derivative is taken by `{name}`, but with `total` the divisor is a "
            f"constant; expected none. Leave `total` out and pass the whole batch, or pass "
            f"mx.stop_gradient({name})."
        )

    return _identity(refuse, refuse)


def _identity(pull: Elementwise, push: Elementwise) -> Elementwise:
    """The identity with a rule of its own for cotangents, and one for tangents."""
    identity: Elementwise = with_rules(
        lambda v: v,
        vjp=lambda v, cotangent, out: pull(cotangent),
        jvp=lambda v, tangent: push(tangent),
        vmap=lambda v, axis: (identity(v), axis),
    )
    return identity
