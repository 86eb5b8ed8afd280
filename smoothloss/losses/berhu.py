r"""BerHu, the reverse of Huber: the absolute residual within delta of zero, quadratic beyond.

With :math:`a = |r|`, :math:`s = \operatorname{sign} r` and :math:`d = \max(a - \delta, 0)`,

.. math:: \rho = a + \frac{d^2}{2\delta} = \begin{cases} a & a \le \delta \\
          (r^2 + \delta^2)/2\delta & a > \delta \end{cases} \quad
          \psi = s \max(1, a/\delta) \quad
          \rho_\delta = -\frac d\delta \Big(1 + \frac d{2\delta}\Big)

.. math:: \psi_r = \frac1\delta \quad \psi_\delta = -\frac r{\delta^2} \quad
          \rho_{\delta\delta} = \frac{r^2}{\delta^3} \quad \text{beyond delta, and 0 within.}

The weight is :math:`\max(1/a, 1/\delta)`.
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
from ._elementary import split


def _excess(r: mx.array, delta: mx.array) -> mx.array:
    return mx.maximum(mx.abs(r) - delta, 0)


def rho(r: mx.array, delta: mx.array) -> mx.array:
    d = _excess(r, delta)
    return mx.abs(r) + 0.5 * d * (d / delta)


def psi(r: mx.array, delta: mx.array) -> mx.array:
    return mx.sign(r) * mx.maximum(1, mx.abs(r) / delta)


def rho_delta(r: mx.array, delta: mx.array) -> mx.array:
    x = _excess(r, delta) / delta
    return -x * (1 + 0.5 * x)


def psi_prime(r: mx.array, delta: mx.array) -> mx.array:
    return split(r, delta, 0, 1 / delta)


def psi_delta(r: mx.array, delta: mx.array) -> mx.array:
    return split(r, delta, 0, -(r / delta) / delta)


def rho_delta_delta(r: mx.array, delta: mx.array) -> mx.array:
    x = r / delta
    return split(r, delta, 0, x * (x / delta))


def weight(r: mx.array, delta: mx.array) -> mx.array:
    return mx.maximum(1 / mx.abs(r), 1 / delta)


LOSS = Loss(
    "berhu_loss",
    rho,
    thresholds=[Threshold("delta", default=1.0, open_low=True)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "delta": rho_delta,
        ("r", "delta"): psi_delta,
        ("delta", "delta"): rho_delta_delta,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda delta: math.inf if delta < math.inf else 1.0,
        minimum=0.0,
        smoothness=0,
        kinks=lambda delta: (-delta, 0.0, delta) if delta < math.inf else (0.0,),
        degree=1,
    ),
)


@loss_function(LOSS)
def berhu_loss(
    predictions: Array,
    targets: Array,
    delta: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""BerHu loss (reverse Huber): the absolute error within delta, quadratic beyond.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math::

        \rho(r) = \begin{cases} |r| & |r| \le \delta \\ (r^2 + \delta^2)/2\delta & |r| > \delta
        \end{cases}
        \qquad
        \psi(r) = \rho'(r) = \begin{cases} \operatorname{sign} r & |r| \le \delta \\
        r/\delta & |r| > \delta \end{cases}

    Small residuals pull as hard as with :func:`l1_loss`, large ones harder. In depth estimation,
    delta is a fifth of the largest residual of the batch: ``delta = mx.stop_gradient(0.2 *
    mx.abs(predictions - targets).max())``. Where all residuals are 0, that delta is not valid: add
    a little to it.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    delta : float or mx.array, default 1.0
        Where the loss turns from linear to quadratic, in the units of the residual; above 0. An
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
        If the shapes of predictions and targets differ; if delta would widen the data; if weights
        or where have other axes than the data, or weights are a single number under "mean"; if a
        number delta is not positive or NaN, or too small for the dtype; if reduction or axis is
        unknown.

    Notes
    -----
    At r = 0 the gradient is 0. At :math:`|r| = \delta` it is :math:`\pm 1` and the second
    derivative is :math:`1/\delta`, as beyond; within it is 0. delta = inf is :func:`l1_loss` for
    finite residuals. For finite delta an infinite residual has loss inf and gradient
    :math:`\pm\infty`; with delta = inf as well the loss is NaN. NaN gives NaN. An element of an
    array delta that is not positive gives NaN there. Half types are computed in float32 and rounded
    once. Tested bounds: value 3.5 ulp and gradient 1.5 ulp in float32, 1 ulp in half types; means
    and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] A. B. Owen, "A Robust Hybrid of Lasso and Ridge Regression", Contemporary Mathematics
       443, 2007. https://doi.org/10.1090/conm/443/08555
    .. [2] I. Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks",
       3DV 2016. https://arxiv.org/abs/1606.00373

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 0.5, -3.0])
    >>> sl.berhu_loss(predictions, mx.zeros(3), delta=1.0, reduction="none")
    array([0, 0.5, 5], dtype=float32)
    >>> mx.grad(lambda x: sl.berhu_loss(x, mx.zeros(3), 1.0, "sum"))(predictions)
    array([0, 1, -3], dtype=float32)
    """
    return LOSS(predictions, targets, delta, reduction, weights=weights, where=where, axis=axis)


class BerhuLoss(LossModule):
    """BerHu loss (reverse Huber) as a module.

    See :func:`berhu_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.delta = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    delta : float, mx.array or Learned, default 1.0
        Where the loss turns from linear to quadratic, in the units of the residual; above 0. An
        array broadcasts to the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.BerhuLoss(delta=0.5)
    >>> loss
    BerhuLoss(delta=0.5, reduction='mean')
    >>> loss(mx.array([0.5, -1.0]), mx.zeros(2))
    array(0.875, dtype=float32)
    """

    loss = LOSS

    @known_keywords("BerhuLoss")
    def __init__(self, delta: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(delta, reduction)
