r"""Charbonnier: the absolute residual with a rounded tip.

:math:`\rho = D = \sqrt{r^2 + \epsilon^2}`, and with :math:`m = r/\epsilon`,

.. math:: \psi = \frac rD = \frac{m}{\sqrt{1 + m^2}} \quad \rho_\epsilon = \frac\epsilon D \quad
          \psi_r = \frac{\epsilon^2}{D^3} \quad \psi_\epsilon = -\frac{r\epsilon}{D^3} \quad
          \rho_{\epsilon\epsilon} = \frac{r^2}{D^3}

The weight is 1/D.
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
from ._elementary import clip, largest, lifted, one_at_zero, root, wide


def rho(r: mx.array, epsilon: mx.array) -> mx.array:
    # Beyond wide * epsilon, D is |r| to all digits, and nothing overflows.
    a = mx.abs(r)
    c = mx.minimum(mx.minimum(wide(r) * epsilon, largest(r)), a)
    return epsilon * root(c / (epsilon + one_at_zero(epsilon))) + (a - c)


def psi(r: mx.array, epsilon: mx.array) -> mx.array:
    m = clip(lifted(r, epsilon) / (epsilon + one_at_zero(epsilon)), wide(r))
    return m / root(m)


def _nonzero(r: mx.array, epsilon: mx.array) -> mx.array:
    """D, finite and above 0."""
    d = mx.minimum(largest(r), rho(r, epsilon))
    return d + one_at_zero(d)


def rho_epsilon(r: mx.array, epsilon: mx.array) -> mx.array:
    k = mx.where(mx.maximum(mx.abs(r), epsilon) > 1, 0.25, 1.0)  # lest D overflow
    return k * mx.minimum(largest(r), epsilon) / _nonzero(k * r, k * epsilon)


def psi_prime(r: mx.array, epsilon: mx.array) -> mx.array:
    w = rho_epsilon(r, epsilon)
    return w * (w / _nonzero(r, epsilon))


def psi_epsilon(r: mx.array, epsilon: mx.array) -> mx.array:
    return -psi(r, epsilon) * rho_epsilon(r, epsilon) / _nonzero(r, epsilon)


def rho_epsilon_epsilon(r: mx.array, epsilon: mx.array) -> mx.array:
    p = psi(r, epsilon)
    return p * (p / _nonzero(r, epsilon))  # as the square may underflow


def weight(r: mx.array, epsilon: mx.array) -> mx.array:
    return 1 / rho(r, epsilon)


LOSS = Loss(
    "charbonnier_loss",
    rho,
    thresholds=[Threshold("epsilon", default=1e-3)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "epsilon": rho_epsilon,
        ("r", "epsilon"): psi_epsilon,
        ("epsilon", "epsilon"): rho_epsilon_epsilon,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=1.0,
        minimum=lambda epsilon: epsilon,
        smoothness=lambda epsilon: 0 if epsilon == 0 else math.inf,
        kinks=lambda epsilon: (0.0,) if epsilon == 0 else (),
        degree=1,
    ),
)


@loss_function(LOSS)
def charbonnier_loss(
    predictions: Array,
    targets: Array,
    epsilon: Parameter = 1e-3,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Charbonnier loss: the absolute error with a rounded tip.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math:: \rho(r) = \sqrt{r^2 + \epsilon^2} \qquad
              \psi(r) = \rho'(r) = \frac{r}{\sqrt{r^2 + \epsilon^2}}

    The form of image restoration, which is epsilon at 0, not 0. ``pseudo_huber_loss`` at
    ``delta=epsilon`` is epsilon times what exceeds that: ``epsilon * (charbonnier - epsilon)``.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    epsilon : float or mx.array, default 1e-3
        The loss at 0 and the width of the rounded tip, in the units of the residual; at least 0. An
        array broadcasts to the data (per sample, channel or element) and is differentiable.
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
    At r = 0 the second derivative is :math:`1/\epsilon`. epsilon = 0 is :func:`l1_loss` bit for
    bit; epsilon = inf is inf with gradient 0. For finite epsilon an infinite residual has loss inf
    and gradient :math:`\pm 1`; with epsilon = inf as well the gradient is NaN. NaN gives NaN. A
    negative or NaN element of an array epsilon gives NaN there. The squares neither overflow nor
    underflow on the way. Half types are computed in float32 and rounded once. Tested bounds: value
    and gradient 3 ulp in float32, 1 ulp in half types; means and sums 1e-6 relative up to 1e8
    elements.

    References
    ----------
    .. [1] P. Charbonnier, L. Blanc-Féraud, G. Aubert, M. Barlaud, "Two Deterministic Half-Quadratic
       Regularization Algorithms for Computed Imaging", ICIP 1994.
       https://doi.org/10.1109/ICIP.1994.413553

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 3.0, -1e20])
    >>> sl.charbonnier_loss(predictions, mx.zeros(3), epsilon=4.0, reduction="none")
    array([4, 5, 1e+20], dtype=float32)
    >>> mx.grad(lambda x: sl.charbonnier_loss(x, mx.zeros(3), 4.0, "sum"))(predictions)
    array([0, 0.6, -1], dtype=float32)
    """
    return LOSS(predictions, targets, epsilon, reduction, weights=weights, where=where, axis=axis)


class CharbonnierLoss(LossModule):
    """Charbonnier loss as a module.

    See :func:`charbonnier_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.epsilon = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    epsilon : float, mx.array or Learned, default 1e-3
        The loss at 0 and the width of the rounded tip, in the units of the residual; at least 0. An
        array broadcasts to the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.CharbonnierLoss(epsilon=3.0)
    >>> loss
    CharbonnierLoss(epsilon=3.0, reduction='mean')
    >>> loss(mx.array([4.0, -4.0]), mx.zeros(2))
    array(5, dtype=float32)
    """

    loss = LOSS

    @known_keywords("CharbonnierLoss")
    def __init__(self, epsilon: Learnable = 1e-3, reduction: Reduction = "mean") -> None:
        super().__init__(epsilon, reduction)
