r"""Expectile loss: the square of the residual, tilted.

With the tilt :math:`F = |\tau - 1_{e<0}|` of :math:`e = -r = \text{targets} - \text{predictions}`,
which is :math:`1-\tau` for r > 0 and :math:`\tau` else,

.. math:: \rho = F r^2 \quad \psi = 2 F r \quad \rho_\tau = -r |r| \quad \psi_r = 2 F \quad
          \psi_\tau = -2 |r|

and :math:`\rho_{\tau\tau} = 0`. The weight is 2F.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import Loss, loss_function
from .._modules import Learnable, LossModule
from .._threshold import Threshold
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import constant, largest

LEVEL = Threshold("expectile", default=0.5, high=1.0, has_residual_units=False)


def _sides(r: mx.array, expectile: mx.array) -> tuple[mx.array, mx.array]:
    """The parts of r above and below 0, finite on the side that costs nothing."""
    over = mx.minimum(mx.where(expectile == 1, largest(r), mx.inf), r)
    under = mx.maximum(mx.where(expectile == 0, -largest(r), -mx.inf), r)
    return mx.maximum(over, 0), mx.minimum(under, 0)


def rho(r: mx.array, expectile: mx.array) -> mx.array:
    over, under = _sides(r, expectile)
    return (1 - expectile) * over * over + expectile * under * under


def psi(r: mx.array, expectile: mx.array) -> mx.array:
    over, under = _sides(r, expectile)
    return 2 * ((1 - expectile) * over + expectile * under)


def rho_expectile(r: mx.array, expectile: mx.array) -> mx.array:
    return -r * mx.abs(r)


def psi_prime(r: mx.array, expectile: mx.array) -> mx.array:
    return 2 * mx.where(r > 0, 1 - expectile, mx.where(r <= 0, expectile, mx.nan))


def psi_expectile(r: mx.array, expectile: mx.array) -> mx.array:
    return -2 * mx.abs(r)


def rho_expectile_expectile(r: mx.array, expectile: mx.array) -> mx.array:
    return constant(r, 0)


LOSS = Loss(
    "expectile_loss",
    rho,
    thresholds=[LEVEL],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "expectile": rho_expectile,
        ("r", "expectile"): psi_expectile,
        ("expectile", "expectile"): rho_expectile_expectile,
    },
    weight=psi_prime,
    traits=Traits(
        convex=True,
        even=lambda expectile: expectile == 0.5,
        redescending=False,
        bound=math.inf,
        minimum=0.0,
        smoothness=lambda expectile: math.inf if expectile == 0.5 else 1,
        kinks=lambda expectile: () if expectile == 0.5 else (0.0,),
        degree=2,
    ),
)


@loss_function(LOSS)
def expectile_loss(
    predictions: Array,
    targets: Array,
    expectile: Parameter = 0.5,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Expectile loss: the squared error, tilted, whose minimum is an expectile.

    With :math:`e = \text{targets} - \text{predictions}`, the opposite of the residual r, and the
    expectile :math:`\tau`,

    .. math:: \rho(r) = \big|\tau - 1_{e<0}\big|\, r^2 \qquad
              \psi(r) = \rho'(r) = 2 \big|\tau - 1_{e<0}\big|\, r

    The constant that minimises it is the expectile of the targets, which is to the mean what the
    quantile is to the median. The value loss of implicit Q-learning. At ``expectile=0.5`` it is
    half of :func:`mse_loss`, and it is twice :func:`quantile_huber_loss` with ``kappa=inf``. The
    factor is that of CatBoost and of XGBoost's metric; statsmodels has half of it.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    expectile : float or mx.array, default 0.5
        The expectile that is estimated, in [0, 1]: a plain number. An array broadcasts to the data
        (many expectiles at once) and is differentiable.
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
        If the shapes of predictions and targets differ; if expectile would widen the data; if
        weights or where have other axes than the data, or weights are a single number under "mean";
        if a number expectile is not in [0, 1]; if reduction or axis is unknown.

    Notes
    -----
    At r = 0 the gradient is 0 and the second derivative that of the side of r < 0, :math:`2\tau`.
    An infinite residual has loss inf and gradient :math:`\pm\infty`, but 0 on the side that costs
    nothing; NaN gives NaN. An element of an array expectile outside [0, 1] gives NaN there. The
    derivative by the expectile is :math:`-r|r|`. Half types are computed in float32 and rounded
    once. Tested bounds: value 3 ulp and gradient 1.5 ulp in float32, 1 ulp in half types; means and
    sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] W. K. Newey, J. L. Powell, "Asymmetric Least Squares Estimation and Testing",
       Econometrica 55(4), 1987. https://doi.org/10.2307/1911031
    .. [2] I. Kostrikov, A. Nair, S. Levine, "Offline Reinforcement Learning with Implicit
       Q-Learning", ICLR 2022. https://arxiv.org/abs/2110.06169

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([-2.0, 0.0, 2.0])
    >>> sl.expectile_loss(predictions, mx.zeros(3), expectile=0.75, reduction="none")
    array([3, 0, 1], dtype=float32)
    >>> mx.grad(lambda x: sl.expectile_loss(x, mx.zeros(3), 0.75, "sum"))(predictions)
    array([-3, 0, 1], dtype=float32)
    """
    return LOSS(predictions, targets, expectile, reduction, weights=weights, where=where, axis=axis)


class ExpectileLoss(LossModule):
    """Expectile loss as a module.

    See :func:`expectile_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.expectile = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array
    is saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    expectile : float, mx.array or Learned, default 0.5
        The expectile that is estimated, in [0, 1]: a plain number. An array broadcasts to the data
        (many expectiles at once) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> import numpy as np
    >>> loss = sl.ExpectileLoss(expectile=np.array([0.1, 0.9]), reduction="none")  # fixed
    >>> loss
    ExpectileLoss(expectile=array([0.1, 0.9]), reduction='none')
    >>> loss(mx.array([[-1.0, 1.0]]), mx.zeros((1, 2)))
    array([[0.1, 0.1]], dtype=float32)
    """

    loss = LOSS

    @known_keywords("ExpectileLoss")
    def __init__(self, expectile: Learnable = 0.5, reduction: Reduction = "mean") -> None:
        super().__init__(expectile, reduction)
