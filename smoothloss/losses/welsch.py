r"""Welsch (Leclerc): half the square near zero, constant in the tails.

With :math:`u = r/c` and derivatives in u,

.. math:: f = 1 - e^{-u^2/2} \quad f' = u e^{-u^2/2} \quad
          n + u\frac{f''}{f'} = n + 1 - u^2 \quad g = \frac{e^{-u^2/4}}c

See ``_scaled.py`` for the derivatives in r and c.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import loss_function
from .._modules import Learnable, LossModule
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import clip, exp, scalar
from ._scaled import Parts, scaled

FAR = 64.0  # from where on the exponential is 0


def rho(r: mx.array, c: mx.array) -> mx.array:
    return -mx.expm1(-0.5 * mx.square(r / c))


def psi(r: mx.array, c: mx.array) -> mx.array:
    # The root of the exponential twice, lest it underflow before the quotient does.
    k = clip(r / c, scalar(FAR, r))
    e = exp(-0.25 * mx.square(k))
    return k * e * (e / c)


def root_weight(r: mx.array, c: mx.array) -> mx.array:
    e = exp(-0.125 * mx.square(r / c))
    return e * (e / c)


def elasticity(n: int, r: mx.array, c: mx.array) -> Parts:
    # sqrt(n + 1) is the zero; u^2 - 1, as a whole, would lose digits around 1.
    k = clip(r / c, scalar(FAR, r))
    return (1 - k) * (1 + k) + n, 0.0


LOSS = scaled(
    "welsch_loss",
    rho,
    psi,
    root_weight,
    elasticity,
    Traits(
        convex=False,
        even=True,
        redescending=True,
        bound=lambda scale: math.exp(-0.5) / scale,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=0,
    ),
)


@loss_function(LOSS)
def welsch_loss(
    predictions: Array,
    targets: Array,
    scale: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Welsch (Leclerc) loss: quadratic near zero, constant beyond a few scales.

    With :math:`u = (\text{predictions} - \text{targets})/c`, c being the scale,

    .. math:: \rho = 1 - e^{-u^2/2} \qquad
              \psi = \frac{d\rho}{dr} = \frac{u}c\, e^{-u^2/2}

    The loss stays below 1. The gradient is largest, :math:`1/\sqrt e c`, at u = 1, and falls to 0
    like a Gaussian. It equals :func:`general_loss` at ``alpha=-inf``.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    scale : float or mx.array, default 1.0
        The size of residual at which the loss begins to give in, in the units of the residual;
        above 0. An array broadcasts to the data (per sample, channel or element) and is
        differentiable.
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
        shape ("none"), 0-d, or the data's shape without ``axis``. It has no units.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if scale would widen the data; if weights
        or where have other axes than the data, or weights are a single number under "mean"; if a
        number scale is not positive or NaN, or too small for the dtype; if reduction or axis is
        unknown.

    Notes
    -----
    At r = 0 the second derivative is :math:`1/c^2`. An infinite residual has loss 1 and gradient 0.
    scale = inf gives 0. NaN gives NaN, as does an infinite residual with an infinite scale. An
    element of an array scale that is not positive gives NaN there. Half types are computed in
    float32 and rounded once. Tested bounds, on the CPU: value 4 ulp and gradient :math:`9 + 1.5
    u^2` ulp in float32 (the rounding of u alone costs :math:`u^2/2`), 1 ulp in half types; means
    and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] J. E. Dennis, R. E. Welsch, "Techniques for Nonlinear Least Squares and Robust
       Regression", Communications in Statistics - Simulation and Computation 7(4), 1978.
       https://doi.org/10.1080/03610917808812083
    .. [2] J. T. Barron, "A General and Adaptive Robust Loss Function", CVPR 2019.
       https://arxiv.org/abs/1701.03077

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 1.0, -1e20])
    >>> sl.welsch_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 0.393469, 1], dtype=float32)
    >>> mx.grad(lambda x: sl.welsch_loss(x, mx.zeros(3), 1.0, "sum"))(predictions)
    array([0, 0.606531, -0], dtype=float32)
    """
    return LOSS(predictions, targets, scale, reduction, weights=weights, where=where, axis=axis)


class WelschLoss(LossModule):
    """Welsch (Leclerc) loss as a module.

    See :func:`welsch_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.scale = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    scale : float, mx.array or Learned, default 1.0
        The size of residual at which the loss begins to give in, in the units of the residual;
        above 0. An array broadcasts to the data (per sample, channel or element) and is
        differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.WelschLoss(scale=2.0)
    >>> loss
    WelschLoss(scale=2.0, reduction='mean')
    >>> loss(mx.array([100.0, -100.0]), mx.zeros(2))
    array(1, dtype=float32)
    """

    loss = LOSS

    @known_keywords("WelschLoss")
    def __init__(self, scale: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(scale, reduction)
