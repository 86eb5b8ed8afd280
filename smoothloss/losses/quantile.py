r"""Quantile (pinball) loss: the absolute residual, tilted.

With :math:`e = -r = \text{targets} - \text{predictions}` and :math:`s = \operatorname{sign} r`,

.. math:: \rho = \max(\tau e, (\tau - 1) e) = \begin{cases} (1-\tau)\,r & r > 0 \\ -\tau r & r \le 0
          \end{cases} \qquad \psi = \begin{cases} 1-\tau & r > 0 \\ 0 & r = 0 \\ -\tau & r < 0
          \end{cases} \qquad \rho_\tau = -r \qquad \psi_\tau = -|s|

and all other second derivatives are 0, as :math:`\psi_r` is. The weight is :math:`|\psi|/|r|`.
"""

from __future__ import annotations

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import Loss, loss_function
from .._modules import Learnable, LossModule
from .._threshold import Threshold
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import clip, constant, huge, largest, sign

LEVEL = Threshold("quantile", default=0.5, high=1.0, has_residual_units=False)


def rho(r: mx.array, quantile: mx.array) -> mx.array:
    # An infinite residual on the side that costs nothing, 0 * inf, has loss 0.
    over = clip(r, mx.where(quantile == 1, largest(r), mx.inf))
    under = clip(r, mx.where(quantile == 0, largest(r), mx.inf))
    return mx.maximum(-quantile * under, (1 - quantile) * over)


def psi(r: mx.array, quantile: mx.array) -> mx.array:
    lift = huge(r)  # of every r but 0 beyond 1
    return mx.maximum(-quantile, mx.minimum(1 - quantile, r * lift * lift))


def rho_quantile(r: mx.array, quantile: mx.array) -> mx.array:
    return -r


def psi_prime(r: mx.array, quantile: mx.array) -> mx.array:
    return constant(r, 0)


def psi_quantile(r: mx.array, quantile: mx.array) -> mx.array:
    return -mx.abs(sign(r))


def weight(r: mx.array, quantile: mx.array) -> mx.array:
    side = mx.where(r == 0, 1, mx.abs(psi(r, quantile)))
    return side / mx.abs(r)


LOSS = Loss(
    "quantile_loss",
    rho,
    thresholds=[LEVEL],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "quantile": rho_quantile,
        ("r", "quantile"): psi_quantile,
        ("quantile", "quantile"): psi_prime,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=lambda quantile: quantile == 0.5,
        redescending=False,
        bound=lambda quantile: max(quantile, 1 - quantile),
        minimum=0.0,
        smoothness=0,
        kinks=(0.0,),
        degree=1,
    ),
)


@loss_function(LOSS)
def quantile_loss(
    predictions: Array,
    targets: Array,
    quantile: Parameter = 0.5,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Quantile (pinball) loss: two slopes, whose minimum is a quantile.

    With :math:`e = \text{targets} - \text{predictions}`, the opposite of the residual r, and the
    quantile :math:`\tau`,

    .. math:: \rho(r) = \max(\tau e, (\tau - 1) e) \qquad
              \psi(r) = \rho'(r) = \begin{cases} 1 - \tau & r > 0 \\ -\tau & r < 0 \end{cases}

    The constant that minimises it is the quantile of the targets. At ``quantile=0.5`` it is half of
    :func:`l1_loss`.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    quantile : float or mx.array, default 0.5
        The quantile that is estimated, in [0, 1]: a plain number. An array broadcasts to the data
        (many quantiles at once) and is differentiable.
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
        If the shapes of predictions and targets differ; if quantile would widen the data; if
        weights or where have other axes than the data, or weights are a single number under "mean";
        if a number quantile is not in [0, 1]; if reduction or axis is unknown.

    Notes
    -----
    At r = 0 the gradient is 0, a subgradient for every quantile, and so is the second derivative
    everywhere. An infinite residual has loss inf (0 on the side that costs nothing) and the
    gradient of its side; NaN gives NaN. An element of an array quantile outside [0, 1] gives NaN
    there. The derivative by the quantile is :math:`-r`. Half types are computed in float32 and
    rounded once. Tested bounds: value 2 ulp and gradient 1 ulp in float32, 1 ulp in half types;
    means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] R. Koenker, G. Bassett, "Regression Quantiles", Econometrica 46(1), 1978.
       https://doi.org/10.2307/1913643

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([-2.0, 0.0, 2.0])
    >>> sl.quantile_loss(predictions, mx.zeros(3), quantile=0.75, reduction="none")
    array([1.5, 0, 0.5], dtype=float32)
    >>> mx.grad(lambda x: sl.quantile_loss(x, mx.zeros(3), 0.75, "sum"))(predictions)
    array([-0.75, 0, 0.25], dtype=float32)
    """
    return LOSS(predictions, targets, quantile, reduction, weights=weights, where=where, axis=axis)


class QuantileLoss(LossModule):
    """Quantile (pinball) loss as a module.

    See :func:`quantile_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.quantile = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    quantile : float, mx.array or Learned, default 0.5
        The quantile that is estimated, in [0, 1]: a plain number. An array broadcasts to the data
        (many quantiles at once) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import numpy as np
    >>> import smoothloss as sl
    >>> loss = sl.QuantileLoss(quantile=np.array([0.1, 0.9]), reduction="none")  # fixed
    >>> loss
    QuantileLoss(quantile=array([0.1, 0.9]), reduction='none')
    >>> loss(mx.array([[-1.0, 1.0]]), mx.zeros((1, 2)))
    array([[0.1, 0.1]], dtype=float32)
    """

    loss = LOSS

    @known_keywords("QuantileLoss")
    def __init__(self, quantile: Learnable = 0.5, reduction: Reduction = "mean") -> None:
        super().__init__(quantile, reduction)
