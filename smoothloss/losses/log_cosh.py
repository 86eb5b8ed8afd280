r"""Log-cosh: half the square near zero, the absolute residual less log 2 in the tails.

With :math:`a = |r|` and :math:`t = e^a - 1`, :math:`\cosh a - 1 = t^2/2(1+t)`, so that

.. math:: \rho = \log\cosh r = \log\Big(1 + \frac{t}{2}\,\frac{t}{1+t}\Big),

without cancellation near 0. Beyond a = 20 it is :math:`a - \log 2` to all digits, so there t stays
at 20 and the rest of a is added. :math:`\psi = \tanh r`,
:math:`\psi' = \operatorname{sech}^2 r = (2/(e^a + e^{-a}))^2`, and the weight is
:math:`\tanh(r)/r`.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._engine.shapes import apart
from .._loss import Loss, loss_function
from .._modules import LossModule
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import clip, huge, largest, log1p, scalar

FAR = 20.0


def rho(r: mx.array) -> mx.array:
    a = mx.abs(r)
    near = mx.minimum(scalar(FAR, r), a)
    t = mx.expm1(near)
    # Apart, since the kernel is so long that there is no room for a cast to float64.
    return apart(log1p(0.5 * t * (t / (1 + t))) + (a - near))


def psi(r: mx.array) -> mx.array:
    # As mx.tanh, in less time.
    t = mx.expm1(2 * mx.minimum(scalar(FAR, r), mx.abs(r)))
    return mx.sign(r) * (t / (t + 2))


def psi_prime(r: mx.array) -> mx.array:
    e = 1 + mx.expm1(mx.abs(r))
    return mx.square(2 / (e + 1 / e))


def plain(r: mx.array) -> mx.array:
    # Of r - clip(r), which is 0 or infinite, the slope makes the infinite loss of its sign.
    at = mx.stop_gradient(r)
    near = mx.where(mx.abs(at) == mx.inf, 0, r)
    slope, curve = psi(at) * (r - clip(at, largest(r))), 0.5 * psi_prime(at)
    return rho(at) + slope + curve * mx.square(near - mx.stop_gradient(near))


def weight(r: mx.array) -> mx.array:
    a = mx.maximum(1 / huge(r), mx.abs(r))
    return psi(a) / a


LOSS = Loss(
    "log_cosh_loss",
    rho,
    psi=psi,
    psi_prime=psi_prime,
    weight=weight,
    plain=plain,
    reduction="none",
    data_names=("inputs", "targets"),
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=1.0,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
    ),
)


@loss_function(LOSS)
def log_cosh_loss(
    inputs: Array,
    targets: Array,
    reduction: Reduction = "none",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Log-cosh loss: quadratic near zero, linear far out, with nothing to tune.

    With :math:`r = \text{inputs} - \text{targets}`,

    .. math:: \rho(r) = \log\cosh r \qquad \psi(r) = \rho'(r) = \tanh r

    Near zero it is :math:`r^2/2`, in the tails :math:`|r| - \log 2`. The residual has to be in
    units in which 1 is a usual one: there is no threshold.

    Parameters
    ----------
    inputs, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    reduction : {"none", "mean", "sum"}, default "none"
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
        Of the promoted dtype of inputs and targets (float32 for integers), and of the data's shape
        ("none"), 0-d, or the data's shape without ``axis``.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of inputs and targets differ; if weights or where have other axes than the
        data, or weights are a single number under "mean"; if reduction or axis is unknown.

    Notes
    -----
    The second derivative is :math:`\operatorname{sech}^2 r`, 1 at 0. An infinite residual has loss
    inf and gradient :math:`\pm 1`; NaN gives NaN. Nothing cancels for small residuals nor overflows
    for large: 1e-4 gives 5e-9 and 1e30 gives 1e30. Half types are computed in float32 and rounded
    once. Tested bounds: value 5 ulp and gradient 3 ulp in float32, 1 ulp in half types; means and
    sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] P. J. Green, "Bayesian Reconstructions from Emission Tomography Data Using a Modified EM
       Algorithm", IEEE Transactions on Medical Imaging 9(1), 1990.
       https://doi.org/10.1109/42.52985

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> inputs = mx.array([0.0, 1e-4, -30.0])
    >>> sl.log_cosh_loss(inputs, mx.zeros(3))
    array([0, 5e-09, 29.3069], dtype=float32)
    >>> mx.grad(lambda x: sl.log_cosh_loss(x, mx.zeros(3), "sum"))(inputs)
    array([0, 0.0001, -1], dtype=float32)
    """
    return LOSS(inputs, targets, reduction, weights=weights, where=where, axis=axis)


class LogCoshLoss(LossModule):
    """Log-cosh loss as a module.

    See :func:`log_cosh_loss` for the formula, the limits and the error bounds.

    Parameters
    ----------
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.LogCoshLoss(reduction="sum")
    >>> loss
    LogCoshLoss(reduction='sum')
    >>> loss(mx.array([0.0, 100.0]), mx.zeros(2))
    array(99.3069, dtype=float32)
    """

    loss = LOSS

    @known_keywords("LogCoshLoss")
    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
