r"""Fair: half the square near zero, linear with slope c far out, less a logarithm.

With :math:`a = |r|`, :math:`s = \operatorname{sign} r`, :math:`x = a/c`, :math:`q = 1/(1+x)` and
:math:`L = \log(1+x)`,

.. math:: \rho = c^2 (x - L) \quad \psi = r q \quad \rho_c = c\,(x + xq - 2L)
          \quad \psi_r = q^2 \quad \psi_c = s (xq)^2 \quad
          \rho_{cc} = xq\,(3 - q) - 2L

The weight is q. Up to x = 1, the differences are :math:`c^2 x^2 q (1+b)/2`, :math:`c x^2 q b` and
:math:`x^2 q\,(b - xq)`, with the series b of ``_remainder.py``.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._engine.shapes import alone
from .._loss import Loss, loss_function
from .._modules import Learnable, LossModule
from .._threshold import Threshold
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import clip, largest, log1p, one_at_zero, root_quotient, scalar, wide
from ._remainder import half_bend, quotient


def _reach(r: mx.array, c: mx.array) -> mx.array:
    """From where on the loss is linear to all digits: clipped there, nothing overflows."""
    return alone(mx.minimum(largest(r), alone(wide(r) * c)))


def _x(r: mx.array, c: mx.array) -> mx.array:
    return mx.minimum(_reach(r, c), mx.abs(r)) / _unit(c)


def _unit(c: mx.array) -> mx.array:
    return alone(c + alone(one_at_zero(c)))


def _parts(r: mx.array, c: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """x, at its limit where c = 0, with q and b."""
    x = _x(r, c) + one_at_zero(c) * wide(r)
    return x, 1 / (1 + x), 2 * half_bend(mx.minimum(1, x))


def rho(r: mx.array, c: mx.array) -> mx.array:
    # MLX fuses this in the order in which it stands, deep terms first.
    a, x = mx.abs(r), _x(r, c)
    y = 1 + x
    far = (1 - mx.log(y) / x) / x
    value = mx.where(x < 1, quotient(mx.minimum(scalar(1.0, r), x)), far)
    most = alone(mx.where(alone(c == 0), 0.0, mx.inf))  # keeps 0 * inf out
    return value * mx.minimum(_reach(r, c), a) * mx.minimum(most, a)


def psi(r: mx.array, c: mx.array) -> mx.array:
    m = clip(r, _reach(r, c))
    return clip(m / (1 + _x(r, c)) + (r - m), c)  # c beyond the reach, and at infinity


def rho_c(r: mx.array, c: mx.array) -> mx.array:
    a, (x, q, b) = mx.abs(r), _parts(r, c)
    return a * mx.where(x < 1, x * q * b, 2 - 2 * log1p(x) / x - x * q)


def _share(r: mx.array, c: mx.array) -> mx.array:
    """q, however small, and 0 where c = 0."""
    most = mx.where(c == mx.inf, largest(r), mx.inf)
    return mx.where(c == 0, 0.0, 1.0) / (1 + mx.minimum(most, mx.abs(r)) / _unit(c))


def psi_prime(r: mx.array, c: mx.array) -> mx.array:
    return mx.square(_share(r, c))


def psi_c(r: mx.array, c: mx.array) -> mx.array:
    x, q, _ = _parts(r, c)
    return mx.sign(r) * mx.square(x * q)


def rho_c_c(r: mx.array, c: mx.array) -> mx.array:
    x, q, b = _parts(r, c)
    a = mx.minimum(largest(r), mx.abs(r))
    one = scalar(1.0, r)
    beyond = mx.maximum(one, root_quotient(a, _unit(c), one) / mx.sqrt(wide(r)))
    far = x * q * (3 - q) - 2 * (log1p(x) + 2 * mx.log(beyond))
    return mx.where(x < 1, x * x * q * (b - x * q), far)


def weight(r: mx.array, c: mx.array) -> mx.array:
    # At r = 0 the weight is 1, even if c is 0.
    return mx.where(r == 0, 1, _share(r, c))


LOSS = Loss(
    "fair_loss",
    rho,
    thresholds=[Threshold("c", default=1.0)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "c": rho_c,
        ("r", "c"): psi_c,
        ("c", "c"): rho_c_c,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=True,
        redescending=False,
        bound=lambda c: c,
        minimum=0.0,
        smoothness=lambda c: 2 if 0 < c < math.inf else math.inf,
        kinks=lambda c: (0.0,) if 0 < c < math.inf else (),
        degree=2,
    ),
)


@loss_function(LOSS)
def fair_loss(
    predictions: Array,
    targets: Array,
    c: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Fair's loss: quadratic near zero, linear far out, in a slow turn.

    With :math:`r = \text{predictions} - \text{targets}`,

    .. math:: \rho(r) = c^2 \Big(\frac{|r|}c - \log\Big(1 + \frac{|r|}c\Big)\Big) \qquad
              \psi(r) = \rho'(r) = \frac{r}{1 + |r|/c}

    It turns from quadratic to linear more slowly than :func:`huber_loss`. The gradient is never
    larger than c, and the second derivative is positive everywhere.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    c : float or mx.array, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0. The
        default is that of LightGBM. For normal errors of standard deviation 1, 1.3998 is 95 % as
        efficient as least squares. An array broadcasts to the data (per sample, channel or element)
        and is differentiable.
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
        If the shapes of predictions and targets differ; if c would widen the data; if weights or
        where have other axes than the data, or weights are a single number under "mean"; if a
        number c is negative or NaN; if reduction or axis is unknown.

    Notes
    -----
    The second derivative is 1 at r = 0, where it has a kink. c = 0 gives 0, c = inf gives
    :math:`r^2/2`. For c > 0 an infinite residual has loss inf and gradient :math:`\pm c`. NaN gives
    NaN. A negative or NaN element of an array c gives NaN there. Half types are computed in float32
    and rounded once. Tested bounds: value 8 ulp and gradient 3 ulp in float32, 1 ulp in half types;
    means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] R. C. Fair, "On the Robust Estimation of Econometric Models", Annals of Economic and
       Social Measurement 3(4), 1974. https://www.nber.org/chapters/c10204

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 1.0, -1e20])
    >>> sl.fair_loss(predictions, mx.zeros(3), c=2.0, reduction="none")
    array([0, 0.37814, 2e+20], dtype=float32)
    >>> mx.grad(lambda x: sl.fair_loss(x, mx.zeros(3), 2.0, "sum"))(predictions)
    array([0, 0.666667, -2], dtype=float32)
    """
    return LOSS(predictions, targets, c, reduction, weights=weights, where=where, axis=axis)


class FairLoss(LossModule):
    """Fair's loss as a module.

    See :func:`fair_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in ``loss.c
    = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is saved with the
    model and never trained; a number is a constant of the step. Only :class:`Learned` is trained.
    See :class:`LossModule`.

    Parameters
    ----------
    c : float, mx.array or Learned, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0. The
        default is that of LightGBM. For normal errors of standard deviation 1, 1.3998 is 95 % as
        efficient as least squares. An array broadcasts to the data (per sample, channel or element)
        and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.FairLoss(c=2.0)
    >>> loss
    FairLoss(c=2.0, reduction='mean')
    >>> loss(mx.array([1.0, -1.0]), mx.zeros(2))
    array(0.37814, dtype=float32)
    """

    loss = LOSS

    @known_keywords("FairLoss")
    def __init__(self, c: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(c, reduction)
