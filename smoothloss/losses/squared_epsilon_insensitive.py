r"""Squared epsilon-insensitive: the square of the residual beyond epsilon, 0 within.

With the excess :math:`d = r - \operatorname{clip}(r, -\epsilon, \epsilon)`, which is 0 within
epsilon, and :math:`s = \operatorname{sign} r`,

.. math:: \rho = d^2 \quad \psi = 2d \quad \rho_\epsilon = -2|d|

with the second derivatives, beyond epsilon, :math:`\psi_r = 2`, :math:`\psi_\epsilon = -2s` and
:math:`\rho_{\epsilon\epsilon} = 2`, and 0 within. The weight is :math:`2|d|/|r|`.
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
from ._elementary import largest, one_at_zero, split
from .epsilon_insensitive import excess


def rho(r: mx.array, epsilon: mx.array) -> mx.array:
    return mx.square(excess(r, epsilon))


def psi(r: mx.array, epsilon: mx.array) -> mx.array:
    return 2 * excess(r, epsilon)


def rho_epsilon(r: mx.array, epsilon: mx.array) -> mx.array:
    return -2 * mx.abs(excess(r, epsilon))


def psi_prime(r: mx.array, epsilon: mx.array) -> mx.array:
    return split(r, epsilon, 0, 2)


def psi_epsilon(r: mx.array, epsilon: mx.array) -> mx.array:
    return split(r, epsilon, 0, -2 * mx.sign(r))


def weight(r: mx.array, epsilon: mx.array) -> mx.array:
    a = mx.minimum(largest(r), mx.abs(r))
    d = a - mx.minimum(epsilon, a)
    return 2 * ((d + one_at_zero(a + epsilon)) / (a + one_at_zero(a)))


LOSS = Loss(
    "squared_epsilon_insensitive_loss",
    rho,
    thresholds=[Threshold("epsilon", default=0.1)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "epsilon": rho_epsilon,
        ("r", "epsilon"): psi_epsilon,
        ("epsilon", "epsilon"): psi_prime,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda epsilon: math.inf if epsilon < math.inf else 0.0,
        minimum=0.0,
        smoothness=lambda epsilon: 1 if 0 < epsilon < math.inf else math.inf,
        kinks=lambda epsilon: (-epsilon, epsilon) if 0 < epsilon < math.inf else (),
        degree=2,
    ),
)


@loss_function(LOSS)
def squared_epsilon_insensitive_loss(
    predictions: Array,
    targets: Array,
    epsilon: Parameter = 0.1,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Squared epsilon-insensitive loss: the squared error beyond epsilon, 0 within.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math:: \rho(r) = \max(|r| - \epsilon, 0)^2 \qquad
              \psi(r) = \rho'(r) = \begin{cases} 0 & |r| \le \epsilon \\
              2 (|r| - \epsilon) \operatorname{sign} r & |r| > \epsilon \end{cases}

    :func:`epsilon_insensitive_loss`, squared: the gradient sets in smoothly, but grows with
    outliers. The scale is that of scikit-learn's ``SGDRegressor``. ``epsilon=0`` is
    :func:`mse_loss`.

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
        shape ("none"), 0-d, or the data's shape without ``axis``. The units are those of the
        residual, squared.

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
    At :math:`|r| = \epsilon` the gradient is 0 and the second derivative is 2, as beyond; within it
    is 0. epsilon = inf is 0 for finite residuals. For finite epsilon an infinite residual has loss
    inf and gradient :math:`\pm\infty`; with epsilon = inf as well it is NaN. NaN gives NaN. A
    negative or NaN element of an array epsilon gives NaN there. Half types are computed in float32
    and rounded once. Tested bounds: value 2 ulp and gradient correctly rounded from the rounded
    residual in float32, whose own error is amplified near epsilon, 1 ulp in half types; means and
    sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] C.-H. Ho, C.-J. Lin, "Large-scale Linear Support Vector Regression", Journal of Machine
       Learning Research 13, 2012. https://jmlr.org/papers/v13/ho12a.html

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.25, 0.5, -3.0])
    >>> sl.squared_epsilon_insensitive_loss(predictions, mx.zeros(3), 0.5, "none")
    array([0, 0, 6.25], dtype=float32)
    >>> f = lambda x: sl.squared_epsilon_insensitive_loss(x, mx.zeros(3), 0.5, "sum")
    >>> mx.grad(f)(predictions)
    array([0, 0, -5], dtype=float32)
    """
    return LOSS(predictions, targets, epsilon, reduction, weights=weights, where=where, axis=axis)


class SquaredEpsilonInsensitiveLoss(LossModule):
    """Squared epsilon-insensitive loss as a module.

    See :func:`squared_epsilon_insensitive_loss` for the formula, the limits and the error bounds.

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
    >>> loss = sl.SquaredEpsilonInsensitiveLoss(epsilon=0.5)
    >>> loss
    SquaredEpsilonInsensitiveLoss(epsilon=0.5, reduction='mean')
    >>> loss(mx.array([0.5, -2.5]), mx.zeros(2))
    array(2, dtype=float32)
    """

    loss = LOSS

    @known_keywords("SquaredEpsilonInsensitiveLoss")
    def __init__(self, epsilon: Learnable = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__(epsilon, reduction)
