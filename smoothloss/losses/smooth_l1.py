r"""Smooth L1: quadratic within beta of zero, the absolute residual beyond.

With :math:`a = |r|`, :math:`s = \operatorname{sign} r` and the clipped residual
:math:`c = \min(a, \beta)`,

.. math:: \rho = \frac{c}{\beta}\Big(a - \frac{c}{2}\Big) = \begin{cases}
          r^2 / 2\beta & a < \beta \\ a - \beta/2 & a \ge \beta \end{cases}

Let :math:`g = c/\beta`, which is :math:`a/\beta` inside and 1 outside. Then
:math:`\psi = \partial\rho/\partial r = s g`, continuous at :math:`a = \beta`. Of beta:
inside :math:`-r^2/2\beta^2`, outside :math:`-1/2`, so :math:`\partial\rho/\partial\beta = -g^2/2`.
The weight is :math:`1/\max(a, \beta)`. The second derivatives follow from
:math:`\partial g/\partial r = s/\beta` and :math:`\partial g/\partial\beta = -g/\beta` inside,
both 0 outside.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import Loss, loss_function
from .._modules import Learnable, LossModule, legacy
from .._threshold import Threshold
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import clip, huge, inside, one_at_zero, open_clip


def rho(r: mx.array, beta: mx.array) -> mx.array:
    a, one = mx.abs(r), one_at_zero(beta)
    c = mx.minimum(beta, a)
    return (c + one) / (beta + one) * (a - 0.5 * c)


def psi(r: mx.array, beta: mx.array) -> mx.array:
    # At beta = 0, r is clipped to epsilon after a lift that brings every r but 0 beyond it.
    one = one_at_zero(beta)
    unit = beta + one * mx.finfo(r.dtype).eps
    lift = 1 + one * huge(r)
    return clip(r * lift, unit) / unit


def rho_beta(r: mx.array, beta: mx.array) -> mx.array:
    return -0.5 * mx.square(psi(r, beta))


def psi_prime(r: mx.array, beta: mx.array) -> mx.array:
    return inside(r, beta, 1 / beta)


def psi_beta(r: mx.array, beta: mx.array) -> mx.array:
    return inside(r, beta, -(r / beta) / beta)


def rho_beta_beta(r: mx.array, beta: mx.array) -> mx.array:
    return inside(r, beta, mx.square(r / beta) / beta)


def weight(r: mx.array, beta: mx.array) -> mx.array:
    return 1 / mx.maximum(beta, mx.abs(r))


def ordinary_rho(r: mx.array, beta: mx.array) -> mx.array:
    wide = mx.broadcast_to(beta, r.shape)
    a = mx.abs(r)
    c = mx.minimum(wide, a)
    return c / wide * (a - 0.5 * c)


def ordinary_psi(r: mx.array, beta: mx.array) -> mx.array:
    return clip(r, beta) / beta


def plain(r: mx.array, beta: mx.array) -> mx.array:
    near = open_clip(r, beta)
    c = mx.stop_gradient(near)
    return c / beta * (r - 0.5 * c) + mx.square(near - c) * (0.5 / beta)


def smoothness(beta: float) -> float:
    if beta == 0:
        return 0
    return 1 if beta < math.inf else math.inf


def kinks(beta: float) -> tuple[float, ...]:
    if beta == 0:
        return (0.0,)
    return (-beta, beta) if beta < math.inf else ()


LOSS = Loss(
    "smooth_l1_loss",
    rho,
    thresholds=[Threshold("beta", default=1.0)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "beta": rho_beta,
        ("r", "beta"): psi_beta,
        ("beta", "beta"): rho_beta_beta,
    },
    weight=weight,
    ordinary={"rho": ordinary_rho, "psi": ordinary_psi},
    plain=plain,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda beta: 1.0 if beta < math.inf else 0.0,
        minimum=0.0,
        smoothness=smoothness,
        kinks=kinks,
        degree=1,
    ),
)


@loss_function(LOSS)
def smooth_l1_loss(
    predictions: Array,
    targets: Array,
    beta: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Smooth L1 loss: quadratic within beta, linear with slope 1 beyond.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math::

        \rho(r) = \begin{cases} r^2 / 2\beta & |r| < \beta \\ |r| - \beta/2 & |r| \ge \beta
        \end{cases}
        \qquad
        \psi(r) = \rho'(r) = \begin{cases} r/\beta & |r| < \beta \\
        \operatorname{sign} r & |r| \ge \beta \end{cases}

    The gradient is never larger than 1, so outliers pull no harder than any other residual beyond
    beta. It equals :func:`huber_loss` with ``delta=beta``, divided by beta.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    beta : float or mx.array, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0.
        An array broadcasts to the data (per sample, channel or element) and is differentiable.
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
        If the shapes of predictions and targets differ; if beta would widen the data; if weights or
        where have other axes than the data, or weights are a single number under "mean"; if a
        number beta is negative or NaN; if reduction or axis is unknown.

    Notes
    -----
    At :math:`|r| = \beta` the gradient is exactly :math:`\pm 1` and the second derivative is 0;
    inside it is :math:`1/\beta`, also at r = 0. beta = 0 is :func:`l1_loss` bit for bit, beta = inf
    is 0 for finite residuals. For finite beta an infinite residual has loss inf and gradient
    :math:`\pm 1`; with beta = inf as well it is NaN. NaN gives NaN. A negative or NaN element of an
    array beta gives NaN there. Half types are computed in float32 and
    rounded once. Tested bounds: value 3 ulp and gradient 2 ulp in float32, 1 ulp in half types;
    means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] R. Girshick, "Fast R-CNN", ICCV 2015. https://doi.org/10.1109/ICCV.2015.169

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 0.5, 3.0])
    >>> sl.smooth_l1_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 0.125, 2.5], dtype=float32)
    >>> mx.grad(sl.smooth_l1_loss)(predictions, mx.zeros(3), beta=0.0)
    array([0, 0.333333, 0.333333], dtype=float32)
    """
    return LOSS(predictions, targets, beta, reduction, weights=weights, where=where, axis=axis)


class SmoothL1Loss(LossModule):
    """Smooth L1 loss as a module.

    See :func:`smooth_l1_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.beta = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    beta : float, mx.array or Learned, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0.
        An array broadcasts to the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.
    size_average, reduce : bool, optional
        Deprecated arguments of PyTorch. If one is given, they replace ``reduction``: "none" if
        ``reduce`` is False, else "sum" if ``size_average`` is False, else "mean".

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.SmoothL1Loss(beta=0.5)
    >>> loss
    SmoothL1Loss(beta=0.5, reduction='mean')
    >>> loss(mx.array([0.5, -2.0]), mx.zeros(2))
    array(1, dtype=float32)
    >>> loss.beta = mx.array(1.0)  # saved with the model, and followed by a compiled step
    >>> loss.parameters(), loss.trainable_parameters()
    ({'beta': array(1, dtype=float32)}, {})
    """

    loss = LOSS

    @known_keywords("SmoothL1Loss")
    def __init__(
        self,
        beta: Learnable = 1.0,
        reduction: Reduction = "mean",
        *,
        size_average: bool | None = None,
        reduce: bool | None = None,
    ) -> None:
        super().__init__(beta, legacy("SmoothL1Loss", reduction, size_average, reduce))
