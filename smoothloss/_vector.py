"""Losses of the length of a vector, such as an end-point error."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, SupportsIndex, cast

import mlx.core as mx

from ._engine import inputs
from ._engine.plan import residual
from ._exportable import active
from ._loss import Loss
from ._radial import Radial, plain
from ._robust import record_and_thresholds
from ._types import Array, Axis, Parameter, Reduction

OTHERS = ("reduction", "vector_axis", "weights", "where", "axis")

# Of losses that are computed already: it weights, selects and reduces them.
REDUCED = Loss(
    "vector_loss",
    lambda r: r,
    psi=mx.ones_like,
    psi_prime=mx.zeros_like,
    data_names=("losses", "zeros"),
)


def vector_loss(
    loss: Callable[..., Any],
    predictions: Array,
    targets: Array,
    reduction: Reduction = "mean",
    *,
    vector_axis: int = -1,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
    **thresholds: Parameter,
) -> mx.array:
    r"""Loss of the length of the residual vector: of an end-point or a reprojection error.

    .. math:: \rho(\lVert r\rVert) \qquad r = \text{predictions} - \text{targets},\quad
              \lVert r\rVert^2 = \textstyle\sum_i r_i^2

    It treats all directions alike, and a vector as an outlier as a whole, where the sum of the
    losses of its components treats each component on its own.

    Parameters
    ----------
    loss : callable
        A loss that is even: a function such as ``sl.huber_loss``, a :class:`Loss`, a class, an
        instance of it, or a :class:`RobustNorm`.
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    reduction : {"none", "mean", "sum"}, default "mean"
        What is returned: the loss of every vector, their mean or their sum. That of ``loss`` is not
        looked at.
    vector_axis : int, default -1
        The axis along which the components of a vector lie. All that follows has the shape of the
        data without it.
    weights : float or mx.array, optional
        Factors of the losses, with as many axes as they have, of their lengths or of length 1. The
        mean is :math:`\sum w\rho / \sum w`. Differentiable.
    where : mx.array of bool, optional
        Selects vectors; it has as many axes as the losses, of their lengths or of length 1. Those
        left out have loss 0 and gradient 0, whatever they hold, and do not count in a mean.
    axis : int or tuple of int, optional
        The axes of the losses to reduce over; all by default.
    **thresholds : float or mx.array
        Thresholds by name. The default is that of the loss. An array broadcasts to the losses and
        is differentiable.

    Returns
    -------
    mx.array
        Of the promoted dtype of predictions and targets (float32 for integers).

    Raises
    ------
    TypeError
        If ``loss`` is no loss, or has no such threshold; if an array is complex or boolean (or
        ``where`` is not boolean), or no array at all; if ``vector_axis`` is no int.
    ValueError
        If the shapes of predictions and targets differ; if ``vector_axis`` is out of range or of
        length 0; if thresholds, weights or where do not fit; if a number is no valid threshold; if
        reduction or axis is unknown.

    Notes
    -----
    The gradient is :math:`\psi(\lVert r\rVert)\, r/\lVert r\rVert`, and 0 at r = 0, where that of
    ``mx.linalg.norm`` is NaN. The second derivative at r = 0 is :math:`\psi'(0) I`, as it is of a
    smooth even loss: a loss applied to a norm loses it. Both are by hand under every MLX transform.
    Lengths neither overflow nor underflow on the way; an infinite component sets the direction.
    Half types are computed in float32 and rounded once. Vectors of one component have the loss
    itself. Of a loss that is not even, the side of positive residuals counts.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> flow = mx.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    >>> sl.vector_loss(sl.huber_loss, flow, mx.zeros((3, 2)), "none", delta=1.0)
    array([4.5, 0.125, 0], dtype=float32)
    >>> mx.grad(lambda x: sl.vector_loss(sl.huber_loss, x, mx.zeros((3, 2)), "sum"))(flow)
    array([[0.6, 0.8],
           [0.3, 0.4],
           [0, 0]], dtype=float32)
    """
    record, named = record_and_thresholds("vector_loss", loss, thresholds, OTHERS)
    x, y, dtype, compute = inputs.data("vector_loss", record.data_names, predictions, targets)
    last = _axis(vector_axis, x.shape)
    shape = (*x.shape[:last], *x.shape[last + 1 :])
    v = mx.moveaxis(residual(x, y, compute), last, -1)
    if where is not None:
        selected = inputs.selection("vector_loss", where, shape)
        v = mx.where(selected[..., None], v, mx.zeros_like(v))
    member, values = record.member(list(named.values()))
    theta, checks = inputs.thresholds("vector_loss", member.thresholds, values, shape, compute)
    # A number is a 0-d array, with which kernels run without strides.
    rows = [t if isinstance(t, mx.array) else inputs.scalar(t, compute, True) for t in theta]
    if active():
        losses = plain(member.kernel, v, rows, checks)
    else:
        for i, spec in enumerate(member.thresholds):
            if isinstance(theta[i], mx.array):
                row = rows[i].astype(compute)
                rows[i] = mx.broadcast_to(row * spec.validity(row), shape)
        losses = Radial(member.kernel).function()(v, *rows)
    zeros = mx.zeros_like(losses)
    reduced = REDUCED(losses, zeros, reduction=reduction, weights=weights, where=where, axis=axis)
    return reduced.astype(dtype)


def _axis(value: object, shape: tuple[int, ...]) -> int:
    """The axis of the vectors, from the front."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"vector_loss: `vector_axis` is {value!r}; expected an int. Leave it out for the last."
        )
    i, n = operator.index(cast(SupportsIndex, value)), len(shape)
    if not -n <= i < n or not shape[i]:
        raise ValueError(
            f"vector_loss: `vector_axis` is {i} and the data have shape {shape}; expected an axis "
            f"of length 1 at least, which the components of a vector lie along. Name it."
        )
    return i % n
