r"""Huber: half the square within delta of zero, linear with slope delta beyond.

With :math:`a = |r|`, :math:`s = \operatorname{sign} r` and the clipped residual
:math:`m = \min(a, \delta)`,

.. math:: \rho = m\Big(a - \frac{m}{2}\Big) = \begin{cases}
          r^2 / 2 & a \le \delta \\ \delta(a - \delta/2) & a > \delta \end{cases}

:math:`\psi = \partial\rho/\partial r = s m`, continuous at :math:`a = \delta`. Of delta: 0 inside
and :math:`a - \delta` outside, so :math:`\partial\rho/\partial\delta = \max(a - \delta, 0)`.
Its derivatives outside are s in r and -1 in delta. The weight is :math:`\min(1, \delta/a)`.
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
from ._elementary import clip, largest, open_clip, split


def rho(r: mx.array, delta: mx.array) -> mx.array:
    # The two limits keep inf - inf (delta = inf) and 0 * inf (delta = 0) out at infinite r.
    finite = mx.minimum(delta, largest(r))
    limit = mx.where(delta == 0, 0.0, mx.inf)
    a = mx.abs(r)
    m = mx.minimum(finite, a)
    return m * mx.minimum(limit, a - 0.5 * m)


def psi(r: mx.array, delta: mx.array) -> mx.array:
    return clip(r, delta)


def rho_delta(r: mx.array, delta: mx.array) -> mx.array:
    return mx.maximum(mx.abs(r) - delta, 0)


def psi_prime(r: mx.array, delta: mx.array) -> mx.array:
    return split(r, delta, 1, 0)


def psi_delta(r: mx.array, delta: mx.array) -> mx.array:
    return split(r, delta, 0, mx.sign(r))


def rho_delta_delta(r: mx.array, delta: mx.array) -> mx.array:
    return split(r, delta, 0, -1)


def weight(r: mx.array, delta: mx.array) -> mx.array:
    a = mx.abs(r)
    inside = a <= delta
    return mx.where(inside, 1, delta / mx.where(inside, 1, a))


def ordinary_rho(r: mx.array, delta: mx.array) -> mx.array:
    a = mx.abs(r)
    m = mx.minimum(delta, a)
    return m * (a - 0.5 * m)


def plain(r: mx.array, delta: mx.array) -> mx.array:
    near = open_clip(r, delta)
    c = mx.stop_gradient(near)
    return c * (r - 0.5 * c) + 0.5 * mx.square(near - c)


LOSS = Loss(
    "huber_loss",
    rho,
    thresholds=[Threshold("delta", default=1.0)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "delta": rho_delta,
        ("r", "delta"): psi_delta,
        ("delta", "delta"): rho_delta_delta,
    },
    weight=weight,
    ordinary={"rho": ordinary_rho},
    plain=plain,
    reduction="none",
    data_names=("inputs", "targets"),
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda delta: delta,
        minimum=0.0,
        smoothness=lambda delta: 1 if 0 < delta < math.inf else math.inf,
        kinks=lambda delta: (-delta, delta) if 0 < delta < math.inf else (),
        degree=2,
    ),
)


@loss_function(LOSS)
def huber_loss(
    inputs: Array,
    targets: Array,
    delta: Parameter = 1.0,
    reduction: Reduction = "none",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Huber loss: quadratic within delta, linear with slope delta beyond.

    With :math:`r = \text{inputs} - \text{targets}`,

    .. math::

        \rho(r) = \begin{cases} r^2 / 2 & |r| \le \delta \\ \delta (|r| - \delta/2) & |r| > \delta
        \end{cases}
        \qquad
        \psi(r) = \rho'(r) = \begin{cases} r & |r| \le \delta \\
        \delta \operatorname{sign} r & |r| > \delta \end{cases}

    The gradient is never larger than delta. It equals :func:`smooth_l1_loss` with ``beta=delta``,
    times delta.

    Parameters
    ----------
    inputs, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    delta : float or mx.array, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0.
        An array broadcasts to the data (per sample, channel or element) and is differentiable.
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
        Of the promoted dtype of inputs and targets (float32 for integers), and of the data's
        shape ("none"), 0-d, or the data's shape without ``axis``.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of inputs and targets differ; if delta would widen the data; if weights or
        where have other axes than the data, or weights are a single number under "mean"; if a
        number delta is negative or NaN; if reduction or axis is unknown.

    Notes
    -----
    At :math:`|r| = \delta` the gradient is exactly :math:`\pm\delta` and the second derivative
    is 0; inside it is 1, also at r = 0. delta = 0 gives 0, delta = inf gives :math:`r^2/2`. For
    delta > 0 an infinite residual has loss inf and gradient :math:`\pm\delta`; NaN gives NaN. A
    negative or NaN element of an array delta gives NaN there. Half types are computed in
    float32 and rounded once. Tested bounds: value 3 ulp in float32 and gradient correctly rounded
    from the rounded residual, 1 ulp in half types; means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical
       Statistics 35(1), 1964. https://doi.org/10.1214/aoms/1177703732

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> inputs = mx.array([0.0, 0.5, 3.0])
    >>> sl.huber_loss(inputs, mx.zeros(3), delta=2.0)
    array([0, 0.125, 4], dtype=float32)
    >>> mx.grad(lambda x: sl.huber_loss(x, mx.zeros(3), 2.0, "sum"))(inputs)
    array([0, 0.5, 2], dtype=float32)
    """
    return LOSS(inputs, targets, delta, reduction, weights=weights, where=where, axis=axis)


class HuberLoss(LossModule):
    """Huber loss as a module.

    See :func:`huber_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.delta = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    delta : float, mx.array or Learned, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0.
        An array broadcasts to the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.HuberLoss(delta=2.0)
    >>> loss
    HuberLoss(delta=2.0, reduction='mean')
    >>> loss(mx.array([1.0, -4.0]), mx.zeros(2))
    array(3.25, dtype=float32)
    """

    loss = LOSS

    @known_keywords("HuberLoss")
    def __init__(self, delta: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(delta, reduction)
