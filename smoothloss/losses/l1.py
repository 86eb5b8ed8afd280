r"""L1: the absolute residual.

:math:`\rho = |r|`, :math:`\psi = \operatorname{sign} r` with the subgradient 0 at 0, and
:math:`\psi' = 0`. The weight is :math:`1/|r|`.
"""

from __future__ import annotations

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import Loss, loss_function
from .._modules import LossModule, legacy
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import constant, sign

FEW = 1 << 14


def rho(r: mx.array) -> mx.array:
    return mx.abs(r)


def psi(r: mx.array) -> mx.array:
    # Few operations are best for few elements, and a form without selections for many.
    return mx.where(r == r, mx.sign(r), r) if r.size <= FEW else sign(r)


def plain(r: mx.array) -> mx.array:
    return r * mx.stop_gradient(psi(r))


def psi_prime(r: mx.array) -> mx.array:
    return constant(r, 0)


def weight(r: mx.array) -> mx.array:
    return 1 / mx.abs(r)


LOSS = Loss(
    "l1_loss",
    rho,
    psi=psi,
    psi_prime=psi_prime,
    weight=weight,
    plain=plain,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=1.0,
        minimum=0.0,
        smoothness=0,
        kinks=(0.0,),
        degree=1,
    ),
)


@loss_function(LOSS)
def l1_loss(
    predictions: Array,
    targets: Array,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""L1 loss: the absolute error, whose minimum is the median.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math:: \rho(r) = |r| \qquad \psi(r) = \rho'(r) = \operatorname{sign} r

    Every residual pulls with gradient 1, however small; the constant that minimises it is the
    median.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    reduction : {"none", "mean", "sum"}, default "mean"
        What is returned: every loss, their mean or their sum.
    weights : float or mx.array, optional
        Factors of the losses, with as many axes as the data, of its lengths or of length 1. The
        mean is :math:`\sum w\rho / \sum w`, in which a single number would cancel. Differentiable.
    where : mx.array of bool, optional
        Selects elements; it has as many axes as the data, of its lengths or of length 1. Those left
        out have loss 0 and gradient 0, whatever they hold, and do not count in a mean.
    axis : int or tuple of int, optional
        The axes to reduce over; all by default.

    Returns
    -------
    mx.array
        Of the promoted dtype of predictions and targets (float32 for integers), and of the data's
        shape ("none"), 0-d, or the data's shape without ``axis``.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if weights or where have other axes than
        the data, or weights are a single number under "mean"; if reduction or axis is unknown.

    Notes
    -----
    At r = 0 the gradient is 0 and so is the second derivative, everywhere. An infinite residual
    has loss inf and gradient :math:`\pm 1`; NaN gives NaN. Half types are computed in float32 and
    rounded once. Tested bounds: value and gradient correctly rounded from the rounded residual;
    means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] P. Bloomfield, W. L. Steiger, "Least Absolute Deviations", Birkhäuser, 1983.
       https://doi.org/10.1007/978-1-4684-8574-5

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 0.5, -3.0])
    >>> sl.l1_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 0.5, 3], dtype=float32)
    >>> mx.grad(lambda x: sl.l1_loss(x, mx.zeros(3), "sum"))(predictions)
    array([0, 1, -1], dtype=float32)
    """
    return LOSS(predictions, targets, reduction, weights=weights, where=where, axis=axis)


class L1Loss(LossModule):
    """L1 loss (absolute error) as a module.

    See :func:`l1_loss` for the formula, the limits and the error bounds.

    Parameters
    ----------
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.
    size_average, reduce : bool, optional
        Deprecated arguments of PyTorch. If one is given, they replace ``reduction``: "none" if
        ``reduce`` is False, else "sum" if ``size_average`` is False, else "mean".

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.L1Loss()
    >>> loss
    L1Loss(reduction='mean')
    >>> loss(mx.array([1.0, -2.0]), mx.zeros(2), weights=mx.array([1.0, 0.0]))
    array(1, dtype=float32)
    """

    loss = LOSS

    @known_keywords("L1Loss")
    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        size_average: bool | None = None,
        reduce: bool | None = None,
    ) -> None:
        super().__init__(legacy("L1Loss", reduction, size_average, reduce))
