r"""Squared error.

:math:`\rho = r^2`, :math:`\psi = 2r` and :math:`\psi' = 2`, which is the weight as well.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import Loss, loss_function
from .._modules import LossModule, legacy
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import constant

FEW = 1 << 14


def rho(r: mx.array) -> mx.array:
    return mx.square(r)


def psi(r: mx.array) -> mx.array:
    # The sum is an operation less, and the product faster in a kernel that casts to half types.
    return r + r if r.size <= FEW else 2 * r


def psi_prime(r: mx.array) -> mx.array:
    return constant(r, 2)


LOSS = Loss(
    "mse_loss",
    rho,
    psi=psi,
    psi_prime=psi_prime,
    weight=psi_prime,
    plain=rho,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=math.inf,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=2,
    ),
)


@loss_function(LOSS)
def mse_loss(
    predictions: Array,
    targets: Array,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Squared error: the square of the residual, whose minimum is the mean.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math:: \rho(r) = r^2 \qquad \psi(r) = \rho'(r) = 2 r

    The gradient grows with the residual, so outliers dominate; the constant that minimises it is
    the mean. It is twice :func:`huber_loss` with ``delta=inf``.

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
        shape ("none"), 0-d, or the data's shape without ``axis``. The units are those of the
        residual, squared.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if weights or where have other axes than
        the data, or weights are a single number under "mean"; if reduction or axis is unknown.

    Notes
    -----
    The second derivative is 2. An infinite residual has loss inf and gradient :math:`\pm\infty`;
    NaN gives NaN. Half types are computed in float32 and rounded once, so a float16 mean is finite
    when the true mean is, though the squares need not be. Tested bounds: value 3 ulp and gradient
    correctly rounded from the rounded residual in float32, 1 ulp in half types; means and sums 1e-6
    relative up to 1e8 elements.

    References
    ----------
    .. [1] C. F. Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae", 1823.
       https://doi.org/10.1137/1.9781611971248 (translation by G. W. Stewart, SIAM, 1995)

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 0.5, -3.0])
    >>> sl.mse_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 0.25, 9], dtype=float32)
    >>> mx.grad(lambda x: sl.mse_loss(x, mx.zeros(3), "sum"))(predictions)
    array([0, 1, -6], dtype=float32)
    """
    return LOSS(predictions, targets, reduction, weights=weights, where=where, axis=axis)


class MSELoss(LossModule):
    """Squared error as a module.

    See :func:`mse_loss` for the formula, the limits and the error bounds.

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
    >>> loss = sl.MSELoss(reduction="sum")
    >>> loss
    MSELoss(reduction='sum')
    >>> loss(mx.array([1.0, -2.0]), mx.zeros(2))
    array(5, dtype=float32)
    """

    loss = LOSS

    @known_keywords("MSELoss")
    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        size_average: bool | None = None,
        reduce: bool | None = None,
    ) -> None:
        super().__init__(legacy("MSELoss", reduction, size_average, reduce))
