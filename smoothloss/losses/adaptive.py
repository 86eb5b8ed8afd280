r"""The adaptive loss: the general loss as a negative log-likelihood.

With the general loss f of :math:`u = r/c`, the density :math:`e^{-f(u, \alpha)}/c\,Z(\alpha)` has

.. math:: \rho = f(u, \alpha) + \log c + \log Z(\alpha)

so :math:`\psi` and its derivatives are those of ``general.py``, and the derivatives in c and
:math:`\alpha` alone gain those of :math:`\log c` and, in ``_partition.py``, of :math:`\log Z`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import Loss, loss_function
from .._modules import Learnable, LossModule
from .._threshold import Threshold
from .._types import Array, Axis, Parameter, Reduction
from . import general
from ._partition import log_z, log_z_alpha, log_z_alpha_alpha
from ._scaled import SCALE


def rho_alpha(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    return general.rho_alpha(r, alpha, scale) + log_z_alpha(alpha)


def rho_alpha_alpha(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    return general.rho_alpha_alpha(r, alpha, scale) + log_z_alpha_alpha(alpha)


def least(alpha: float, scale: float) -> float:
    """Rho at r = 0."""
    with mx.stream(mx.cpu):  # which has float64
        return math.log(scale) + cast(float, log_z(mx.array(alpha, mx.float64)).item())


def _normalised(loss: Loss, log_z_of: Callable[..., mx.array | float]) -> Loss:
    """The adaptive loss of a general one: with log c + log Z, a function of what shapes it."""

    def rho(r: mx.array, *theta: mx.array) -> mx.array:
        *shape, scale = theta
        return loss.rho(r, *theta) + (mx.log(scale) + log_z_of(*shape))

    def rho_scale(r: mx.array, *theta: mx.array) -> mx.array:
        return loss.partials["scale"](r, *theta) + 1 / theta[-1]

    def rho_scale_scale(r: mx.array, *theta: mx.array) -> mx.array:
        return loss.partials["scale", "scale"](r, *theta) - 1 / theta[-1] / theta[-1]

    partials = {**loss.partials, "scale": rho_scale, ("scale", "scale"): rho_scale_scale}
    return dataclasses.replace(loss, name="adaptive_loss", rho=rho, partials=partials)


# log Z at alpha = 2 is that of the normal distribution, at 0 of the Cauchy, and at 1 it is
# log(2 e K_1(1)) with a modified Bessel function.
LOG_Z = {2.0: 0.5 * math.log(2 * math.pi), 1.0: 1.185495232349193, 0.0: math.log(math.pi * 2**0.5)}
CLOSED_FORMS = {
    alpha: _normalised(general.CLOSED_FORMS[alpha], functools.partial(float, value))
    for alpha, value in LOG_Z.items()
}


WHOLE = _normalised(general.LOSS, log_z)
LOSS = dataclasses.replace(
    WHOLE,
    thresholds=[
        Threshold("alpha", default=1.0, high=2.0, has_residual_units=False, learnable=True),
        dataclasses.replace(SCALE, learnable=True),
    ],
    partials={
        **WHOLE.partials,
        "alpha": rho_alpha,
        ("alpha", "alpha"): rho_alpha_alpha,
    },
    closed_forms=CLOSED_FORMS,
    traits=dataclasses.replace(general.LOSS.traits, minimum=least, degree=None),
)


@loss_function(LOSS)
def adaptive_loss(
    predictions: Array,
    targets: Array,
    alpha: Parameter = 1.0,
    scale: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Adaptive loss: a likelihood that learns how robust to be, with the model.

    The negative log-likelihood of residuals whose density falls off like :func:`general_loss`. With
    :math:`r = \text{predictions} - \text{targets}` and c the scale,

    .. math:: \rho = \rho_\text{general}(r, \alpha, c) + \log c + \log Z(\alpha) \qquad
              \psi = \frac{d\rho}{dr} = \psi_\text{general}(r, \alpha, c)

    The last two terms hold alpha and scale where they fit the data, so model, alpha and scale can
    be learned in one step: give both as arrays, of one number or one for each output dimension,
    and keep them in their range, as with ``2 * mx.sigmoid(a)`` and ``low + mx.exp(s)``, which is
    what :class:`Learned` does in the class. Without low, a model that fits the data exactly takes
    the scale to 0.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    alpha : float or mx.array, default 1.0
        The shape, a plain number in [0, 2]: 2 is normal, 0 Cauchy. An array broadcasts to the data
        (per output, say) and is differentiable.
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
        shape ("none"), 0-d, or the data's shape without ``axis``. It may be negative.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if alpha or scale would widen the data; if
        weights or where have other axes than the data, or weights are a single number under "mean";
        if a number alpha is not in [0, 2]; if a number scale is not positive or NaN, or too small
        for the dtype; if reduction or axis is unknown.

    Notes
    -----
    At alpha = 2 it is the Gaussian's, with standard deviation scale; at 0 the Cauchy
    distribution's, with scale :math:`\sqrt2 c`. The minimum, at r = 0, is :math:`\log c + \log
    Z(\alpha)`. At r = 0 the second derivative is :math:`1/c^2`. An infinite residual has loss inf,
    and gradient 0, :math:`\pm 1/c` or :math:`\pm\infty` for alpha below, at or above 1. NaN gives
    NaN. An element of an array alpha outside [0, 2], or one of scale that is not positive, gives
    NaN there. At alpha = 2 the derivative by alpha is infinite; the one returned is that of an
    alpha an epsilon below. Half types are computed in float32 and rounded once. Tested bounds: log
    Z 1e-6 in value and derivative; on the CPU, value 14 ulp beyond that and gradient 22 ulp in
    float32, 1 ulp in half types; means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] J. T. Barron, "A General and Adaptive Robust Loss Function", CVPR 2019, section 3.
       https://arxiv.org/abs/1701.03077

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 2.0, -1e20])
    >>> sl.adaptive_loss(predictions, mx.zeros(3), 2.0, 1.0, reduction="none")
    array([0.918939, 2.91894, inf], dtype=float32)
    >>> loss = lambda alpha: sl.adaptive_loss(mx.array([0.1, 9.0]), mx.zeros(2), alpha)
    >>> mx.grad(loss)(mx.array(1.0))  # the 9 asks for a smaller alpha
    array(3.96412, dtype=float32)
    """
    return LOSS(
        predictions, targets, alpha, scale, reduction, weights=weights, where=where, axis=axis
    )


class AdaptiveLoss(LossModule):
    """Adaptive loss as a module.

    See :func:`adaptive_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.alpha = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    A learned scale stays above a hundredth of its initial value, unless :class:`Learned` is given
    ``low``: a model that fits the data exactly would take it to 0, and the next residual would
    throw the model far off.

    Parameters
    ----------
    alpha : float, mx.array or Learned, default 1.0
        The shape, a plain number in [0, 2]: 2 is normal, 0 Cauchy. An array broadcasts to the data
        (per output, say) and is differentiable.
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
    >>> loss = sl.AdaptiveLoss(alpha=sl.Learned(1.0, high=2.0), scale=sl.Learned(mx.ones(3)))
    >>> loss(mx.array([[1.0, -1.0, 0.0]]), mx.zeros((1, 3)))
    array(1.46164, dtype=float32)
    >>> loss.trainable_parameters()["alpha"]  # learned, between 0 and 2
    {'raw': array(0, dtype=float32)}
    """

    loss = LOSS

    @known_keywords("AdaptiveLoss")
    def __init__(
        self, alpha: Learnable = 1.0, scale: Learnable = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(alpha, scale, reduction)
