r"""Tukey's biweight: half the square near zero, constant beyond c.

With the clipped residual :math:`m = \min(|r|, c)`, :math:`u = m/c`, :math:`v = 1 - u^2` and
:math:`s = \operatorname{sign} r`, :math:`\rho = \frac{c^2}6 (1 - v^3)`. As :math:`1 - v^3 =
u^2 (1 + v + v^2)`,

.. math:: \rho = \frac{m^2}6 (1 + v + v^2) \quad \psi = s m v^2 \quad
          \rho_c = \frac{m u^3}3 (1 + 2v)

which hold beyond c as well, where v = 0. Inside, where :math:`v_r = -2su/c` and
:math:`v_c = 2u^2/c`,

.. math:: \psi_r = v (1 - 5u^2) \quad \psi_c = 4 s u^3 v \quad
          \rho_{cc} = u^4 \Big(\frac{10}3 u^2 - 3\Big)

and beyond 0, 0 and 1/3. The weight is :math:`v^2`.
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
from ._elementary import clip, inside, largest, one_at_zero, split


def _u(r: mx.array, c: mx.array) -> mx.array:
    """The clipped residual in units of c, with its sign: 0 at c = 0 and at c = inf."""
    return clip(r, mx.minimum(largest(r), c)) / (c + one_at_zero(c))


def _v(r: mx.array, c: mx.array) -> mx.array:
    u = mx.minimum(mx.minimum(largest(r), c), mx.abs(r)) / (c + one_at_zero(c))
    return (1 - u) * (1 + u)


def rho(r: mx.array, c: mx.array) -> mx.array:
    # 1 + v + v^2, in few operations.
    m = mx.minimum(mx.minimum(largest(r), c), mx.abs(r))
    u = m / (c + one_at_zero(c))
    return m * (m / 6 * (mx.square(mx.square(u) - 1.5) + 0.75))


def psi(r: mx.array, c: mx.array) -> mx.array:
    return clip(r, c) * mx.square(_v(r, c))


def rho_c(r: mx.array, c: mx.array) -> mx.array:
    u, m = mx.abs(_u(r, c)), mx.minimum(c, mx.abs(r))
    return m * u * u * u * ((3 - 2 * u * u) / 3)  # in an order that does not underflow


def psi_prime(r: mx.array, c: mx.array) -> mx.array:
    return inside(r, c, _v(r, c) * (1 - 5 * mx.square(_u(r, c))))


def psi_c(r: mx.array, c: mx.array) -> mx.array:
    u = _u(r, c)
    return 4 * u * u * u * _v(r, c)


def rho_c_c(r: mx.array, c: mx.array) -> mx.array:
    w = mx.square(_u(r, c))
    return split(r, c, w * w * (10 * w - 9) / 3, 1 / 3)


def weight(r: mx.array, c: mx.array) -> mx.array:
    return mx.where(mx.abs(r) > c, 0, mx.square(_v(r, c)))


LOSS = Loss(
    "tukey_loss",
    rho,
    thresholds=[Threshold("c", default=4.685)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "c": rho_c,
        ("r", "c"): psi_c,
        ("c", "c"): rho_c_c,
    },
    weight=weight,
    traits=Traits(
        convex=lambda c: c in (0, math.inf),
        even=True,
        redescending=lambda c: c < math.inf,
        bound=lambda c: 16 * c / (25 * math.sqrt(5)),
        minimum=0.0,
        smoothness=lambda c: 2 if 0 < c < math.inf else math.inf,
        kinks=lambda c: (-c, c) if 0 < c < math.inf else (),
        degree=2,
    ),
)


@loss_function(LOSS)
def tukey_loss(
    predictions: Array,
    targets: Array,
    c: Parameter = 4.685,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Tukey's loss (biweight, bisquare): quadratic near zero, constant beyond c.

    With :math:`r = \text{predictions} - \text{targets}` and :math:`u = r/c`,

    .. math::

        \rho(r) = \frac{c^2}6 \begin{cases} 1 - (1 - u^2)^3 & |u| \le 1 \\ 1 & |u| > 1 \end{cases}
        \qquad
        \psi(r) = \rho'(r) = \begin{cases} r (1 - u^2)^2 & |u| \le 1 \\ 0 & |u| > 1 \end{cases}

    Residuals beyond c have no influence at all. The gradient is largest at :math:`c/\sqrt5`. Start
    near the solution, and scale c by the spread of the residuals: from elsewhere the gradient may
    be 0 everywhere.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    c : float or mx.array, default 4.685
        From where on the loss is constant, in the units of the residual; at least 0. For normal
        errors of standard deviation 1, the default is 95 % as efficient as least squares. An array
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
        If the shapes of predictions and targets differ; if c would widen the data; if weights or
        where have other axes than the data, or weights are a single number under "mean"; if a
        number c is negative or NaN; if reduction or axis is unknown.

    Notes
    -----
    The second derivative is 1 at r = 0, and it is continuous. At :math:`|r| = c` and beyond, the
    gradient and the second derivative are 0. An infinite residual has loss :math:`c^2/6` and
    gradient 0. c = 0 gives 0, c = inf gives :math:`r^2/2`. NaN gives NaN. A negative or NaN element
    of an array c gives NaN there. Half types are computed in float32 and rounded once. Tested
    bounds: value 5 ulp and gradient :math:`7 + 4/(1-|u|)` ulp in float32 (the rounding of the
    residual alone is amplified so near c), 1 ulp in half types; means and sums 1e-6 relative up to
    1e8 elements.

    References
    ----------
    .. [1] A. E. Beaton, J. W. Tukey, "The Fitting of Power Series, Meaning Polynomials, Illustrated
       on Band-Spectroscopic Data", Technometrics 16(2), 1974.
       https://doi.org/10.1080/00401706.1974.10489171

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 1.0, -100.0])
    >>> sl.tukey_loss(predictions, mx.zeros(3), c=2.0, reduction="none")
    array([0, 0.385417, 0.666667], dtype=float32)
    >>> mx.grad(lambda x: sl.tukey_loss(x, mx.zeros(3), 2.0, "sum"))(predictions)
    array([0, 0.5625, -0], dtype=float32)
    """
    return LOSS(predictions, targets, c, reduction, weights=weights, where=where, axis=axis)


class TukeyLoss(LossModule):
    """Tukey's loss (biweight, bisquare) as a module.

    See :func:`tukey_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in ``loss.c
    = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is saved with the
    model and never trained; a number is a constant of the step. Only :class:`Learned` is trained.
    See :class:`LossModule`.

    Parameters
    ----------
    c : float, mx.array or Learned, default 4.685
        From where on the loss is constant, in the units of the residual; at least 0. For normal
        errors of standard deviation 1, the default is 95 % as efficient as least squares. An array
        broadcasts to the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.TukeyLoss(c=3.0)
    >>> loss
    TukeyLoss(c=3.0, reduction='mean')
    >>> loss(mx.array([100.0, -100.0]), mx.zeros(2))
    array(1.5, dtype=float32)
    """

    loss = LOSS

    @known_keywords("TukeyLoss")
    def __init__(self, c: Learnable = 4.685, reduction: Reduction = "mean") -> None:
        super().__init__(c, reduction)
