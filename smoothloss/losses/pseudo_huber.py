r"""Pseudo-Huber: Huber's loss without a kink.

With :math:`m = r/\delta` and :math:`S = \sqrt{1 + m^2}`, :math:`\rho = \delta^2 (S - 1)`. As
:math:`S - 1 = m^2/(1+S)`,

.. math:: \rho = \frac{r^2}{1+S} \quad \psi = \frac{r}{S} \quad
          \rho_\delta = \delta\,\frac{(S-1)^2}{S} = r\,\frac mS\Big(\frac{m}{1+S}\Big)^2

without cancellation. Their derivatives follow from :math:`S_r = m/\delta S` and
:math:`S_\delta = -m^2/\delta S`:

.. math:: \psi_r = S^{-3} \quad \psi_\delta = \Big(\frac mS\Big)^3 \quad
          \rho_{\delta\delta} = -\frac{(S-1)^2 (2S+1)}{S^3}

The weight is 1/S.
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
from ._elementary import clip, largest, one_at_zero, root, wide


def _parts(r: mx.array, delta: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The clipped residual c, m = c/delta and S = sqrt(1 + m^2).

    At delta = 0, c and m are 0 and S is infinite.
    """
    c = clip(r, _reach(r, delta))
    m = c / (delta + one_at_zero(delta))
    return c, m, root(m) + mx.where(delta == 0, mx.inf, 0.0)


def _reach(r: mx.array, delta: mx.array) -> mx.array:
    """From where on the loss is linear to all digits: clipped there, nothing overflows."""
    return mx.minimum(largest(r), wide(r) * delta)


def rho(r: mx.array, delta: mx.array) -> mx.array:
    a = mx.abs(r)
    c = mx.minimum(_reach(r, delta), a)
    most = mx.where(delta == 0, 0.0, mx.inf)  # keeps 0 * inf out
    return mx.minimum(most, a) * (c / (1 + root(c / (delta + one_at_zero(delta)))))


def psi(r: mx.array, delta: mx.array) -> mx.array:
    c, _, s = _parts(r, delta)
    return clip(c / s + (r - c), delta)  # delta beyond the reach, and at infinity


def rho_delta(r: mx.array, delta: mx.array) -> mx.array:
    a = mx.abs(r)
    c, m, s = _parts(a, delta)
    return c * (m / s) * mx.square(m / (1 + s)) + (a - c)


def psi_prime(r: mx.array, delta: mx.array) -> mx.array:
    q = 1 / _parts(r, delta)[2]
    return q * q * q


def psi_delta(r: mx.array, delta: mx.array) -> mx.array:
    _, m, s = _parts(r, delta)
    q = m / s + one_at_zero(delta) * mx.sign(r)
    return q * q * q


def rho_delta_delta(r: mx.array, delta: mx.array) -> mx.array:
    _, m, s = _parts(r, delta)
    limit = one_at_zero(delta) * mx.sign(r)
    lag = (m / s + limit) * (m / (1 + s) + limit)
    return -mx.square(lag) * (2 + 1 / s)


def weight(r: mx.array, delta: mx.array) -> mx.array:
    # Beyond the reach, S is |r|/delta. At r = 0 the weight is 1, even if delta is 0.
    s = mx.maximum(_parts(r, delta)[2], mx.abs(r) / (delta + one_at_zero(delta)))
    return mx.where(r == 0, 1, 1 / s)


LOSS = Loss(
    "pseudo_huber_loss",
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
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda delta: delta,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=2,
    ),
)


@loss_function(LOSS)
def pseudo_huber_loss(
    predictions: Array,
    targets: Array,
    delta: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Pseudo-Huber loss: Huber's loss without a kink.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math::

        \rho(r) = \delta^2\Big(\sqrt{1 + (r/\delta)^2} - 1\Big) \qquad
        \psi(r) = \rho'(r) = \frac{r}{\sqrt{1 + (r/\delta)^2}}

    As in SciPy and XGBoost. All derivatives are continuous; the gradient approaches
    :math:`\pm\delta`. It equals ``delta * (charbonnier_loss - delta)`` at ``epsilon=delta``.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    delta : float or mx.array, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual, and the largest
        gradient; at least 0. An array broadcasts to the data (per sample, channel or element) and
        is differentiable.
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
        If the shapes of predictions and targets differ; if delta would widen the data; if weights
        or where have other axes than the data, or weights are a single number under "mean"; if a
        number delta is negative or NaN; if reduction or axis is unknown.

    Notes
    -----
    At r = 0 the second derivative is 1. delta = 0 gives 0, delta = inf gives :math:`r^2/2`. For
    delta > 0 an infinite residual has loss inf and gradient :math:`\pm\delta` (inf at delta = inf);
    NaN gives NaN. A negative or NaN element of an array delta gives NaN there. Neither cancels near
    0 nor overflows on the way. Half types are computed in float32 and rounded once. Tested bounds:
    value 3.5 ulp and gradient 3 ulp in float32, 1 ulp in half types; means and sums 1e-6 relative
    up to 1e8 elements.

    References
    ----------
    .. [1] R. Hartley, A. Zisserman, "Multiple View Geometry in Computer Vision", 2nd ed., Cambridge
       University Press, 2004, appendix 6.8. https://doi.org/10.1017/CBO9780511811685

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 0.75, -1e20])
    >>> sl.pseudo_huber_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 0.25, 1e+20], dtype=float32)
    >>> mx.grad(lambda x: sl.pseudo_huber_loss(x, mx.zeros(3), 1.0, "sum"))(predictions)
    array([0, 0.6, -1], dtype=float32)
    """
    return LOSS(predictions, targets, delta, reduction, weights=weights, where=where, axis=axis)


class PseudoHuberLoss(LossModule):
    """Pseudo-Huber loss as a module.

    See :func:`pseudo_huber_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.delta = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    delta : float, mx.array or Learned, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual, and the largest
        gradient; at least 0. An array broadcasts to the data (per sample, channel or element) and
        is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.PseudoHuberLoss(delta=3.0)
    >>> loss
    PseudoHuberLoss(delta=3.0, reduction='mean')
    >>> loss(mx.array([4.0, -4.0]), mx.zeros(2))
    array(6, dtype=float32)
    """

    loss = LOSS

    @known_keywords("PseudoHuberLoss")
    def __init__(self, delta: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(delta, reduction)
