r"""Epsilon-insensitive: the absolute residual beyond epsilon, 0 within.

With the excess :math:`d = r - \operatorname{clip}(r, -\epsilon, \epsilon)`, which is 0 within
epsilon,

.. math:: \rho = |d| \qquad \psi = \operatorname{sign} d \qquad \rho_\epsilon = -|\psi|

and all second derivatives are 0. The weight is :math:`|\psi|/|r|`.
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
from ._elementary import clip, constant, sign


def excess(r: mx.array, epsilon: mx.array) -> mx.array:
    """The part of the residual beyond +-epsilon, with its sign."""
    return r - clip(r, epsilon)


def rho(r: mx.array, epsilon: mx.array) -> mx.array:
    return mx.maximum(mx.abs(r) - epsilon, 0)


def psi(r: mx.array, epsilon: mx.array) -> mx.array:
    return sign(excess(r, epsilon))


def rho_epsilon(r: mx.array, epsilon: mx.array) -> mx.array:
    return -mx.abs(psi(r, epsilon))


def second(r: mx.array, epsilon: mx.array) -> mx.array:
    return constant(r, 0)


def weight(r: mx.array, epsilon: mx.array) -> mx.array:
    a = mx.abs(r)
    return mx.where((a <= epsilon) & (epsilon > 0), 0, 1 / a)


def kinks(epsilon: float) -> tuple[float, ...]:
    if epsilon == 0:
        return (0.0,)
    return (-epsilon, epsilon) if epsilon < math.inf else ()


LOSS = Loss(
    "epsilon_insensitive_loss",
    rho,
    thresholds=[Threshold("epsilon", default=0.1)],
    psi=psi,
    psi_prime=second,
    partials={
        "epsilon": rho_epsilon,
        ("r", "epsilon"): second,
        ("epsilon", "epsilon"): second,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda epsilon: 1.0 if epsilon < math.inf else 0.0,
        minimum=0.0,
        smoothness=lambda epsilon: 0 if epsilon < math.inf else math.inf,
        kinks=kinks,
        degree=1,
    ),
)


@loss_function(LOSS)
def epsilon_insensitive_loss(
    predictions: Array,
    targets: Array,
    epsilon: Parameter = 0.1,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Epsilon-insensitive loss: the absolute error beyond epsilon, 0 within.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math:: \rho(r) = \max(|r| - \epsilon, 0) \qquad
              \psi(r) = \rho'(r) = \begin{cases} 0 & |r| \le \epsilon \\
              \operatorname{sign} r & |r| > \epsilon \end{cases}

    The loss of support-vector regression. Residuals within epsilon do not count, so the model
    depends on the others alone.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    epsilon : float or mx.array, default 0.1
        The residual up to which the loss is 0, in the units of the residual; at least 0. An array
        broadcasts to the data (per sample, channel or element) and is differentiable.
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
        If the shapes of predictions and targets differ; if epsilon would widen the data; if weights
        or where have other axes than the data, or weights are a single number under "mean"; if a
        number epsilon is negative or NaN; if reduction or axis is unknown.

    Notes
    -----
    At :math:`|r| = \epsilon` the gradient is 0, and so is the second derivative everywhere. epsilon
    = 0 is :func:`l1_loss`, epsilon = inf is 0 for finite residuals. For finite epsilon an infinite
    residual has loss inf and gradient :math:`\pm 1`; with epsilon = inf as well it is NaN. NaN
    gives NaN. A negative or NaN element of an array epsilon gives NaN there. Half types are
    computed in float32 and rounded once. Tested bounds: value and gradient correctly rounded from
    the rounded residual, whose own error is amplified near epsilon; means and sums 1e-6 relative up
    to 1e8 elements.

    References
    ----------
    .. [1] H. Drucker, C. J. C. Burges, L. Kaufman, A. Smola, V. Vapnik, "Support Vector Regression
       Machines", NIPS 1996. https://papers.nips.cc/paper/1238-support-vector-regression-machines

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.25, 0.5, -3.0])
    >>> sl.epsilon_insensitive_loss(predictions, mx.zeros(3), epsilon=0.5, reduction="none")
    array([0, 0, 2.5], dtype=float32)
    >>> mx.grad(lambda x: sl.epsilon_insensitive_loss(x, mx.zeros(3), 0.5, "sum"))(predictions)
    array([0, 0, -1], dtype=float32)
    """
    return LOSS(predictions, targets, epsilon, reduction, weights=weights, where=where, axis=axis)


class EpsilonInsensitiveLoss(LossModule):
    """Epsilon-insensitive loss as a module.

    See :func:`epsilon_insensitive_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.epsilon = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    epsilon : float, mx.array or Learned, default 0.1
        The residual up to which the loss is 0, in the units of the residual; at least 0. An array
        broadcasts to the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.EpsilonInsensitiveLoss(epsilon=0.5)
    >>> loss
    EpsilonInsensitiveLoss(epsilon=0.5, reduction='mean')
    >>> loss(mx.array([0.5, -2.0]), mx.zeros(2))
    array(0.75, dtype=float32)
    """

    loss = LOSS

    @known_keywords("EpsilonInsensitiveLoss")
    def __init__(self, epsilon: Learnable = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__(epsilon, reduction)
