r"""Student t: the negative log-likelihood of heavy tails, without its constant.

With :math:`u = r/c`, nu the degrees of freedom, :math:`k = 1/\nu`, and derivatives in u,

.. math:: f = \frac{\nu + 1}2 \log(1 + x) \quad x = k u^2 \quad
          \psi = \frac{1 + k}{c^2/r + k r} \quad g = \frac{\sqrt{1 + k}}{\sqrt{c^2 + k r^2}}

See ``_scaled.py`` for the derivatives in r and c. With :math:`d^2 = c^2 + k r^2`,
:math:`q = 1/(1+x) = c^2/d^2`, :math:`p = xq` and :math:`e = (u^2 - 1) q`, those by nu are

.. math:: \rho_\nu = \tfrac12 \big(\log(1 + x) - p - kp\big) \quad
          \psi_\nu = k^2 \frac r{d^2} e \quad \rho_{c\nu} = -k \frac pc e \quad
          \rho_{\nu\nu} = \tfrac12 k p \big(k (1 + q) - p\big)

Up to x = 1, :math:`\log(1 + x) - p = x^2 q (1 - b)/2`, with the series b of ``_remainder.py``.
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
from ._elementary import (
    clip,
    far_quotient,
    hypotenuse,
    largest,
    log_hypotenuse,
    scalar,
    wide,
)
from ._remainder import half_bend, slope
from ._scaled import SCALE, Parts, chain, elasticity


def _legs(r: mx.array, df: mx.array, c: mx.array) -> tuple[mx.array, mx.array]:
    """|r|/sqrt(df) and c, both times min(1, sqrt(df)): at df = inf 0 and c."""
    most = mx.where(alone(df == mx.inf), largest(r), mx.inf)
    a = mx.minimum(alone(most), mx.abs(r)) / alone(mx.sqrt(alone(mx.maximum(1, df))))
    least = mx.finfo(r.dtype).smallest_normal
    return a, alone(mx.maximum(least, alone(c * alone(mx.sqrt(alone(mx.minimum(1, df)))))))


def rho(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    # The logarithm of 1 + min(1, x), which is m^2/df times a slope, and that of the rest. MLX
    # fuses this in the order in which it stands, deep terms first.
    one, bound, size = scalar(1.0, r), mx.square(wide(r)), mx.abs(r)
    root_df, least = alone(mx.sqrt(df)), mx.finfo(r.dtype).smallest_normal
    b = alone(mx.maximum(least, alone(mx.minimum(largest(r), alone(c * root_df)))))
    a = mx.minimum(alone(mx.where(alone(df == mx.inf), 0.0, mx.inf)), size)
    x = mx.square(a / b)
    far = x >= bound
    rest = mx.log(mx.where(far, far_quotient(a, b), 0.5 + 0.5 * mx.maximum(one, x)))
    rest = mx.where(far, 2, 1) * rest + mx.where(far, alone(2 * mx.log(bound) - math.log(2)), 0)
    m = mx.minimum(root_df, size / c)
    k = alone(0.5 + alone(0.5 / df))
    most = alone(0.5 + alone(0.5 * alone(mx.minimum(largest(r), df))))
    return slope(mx.minimum(one, x)) * (k * m * m) + most * rest


def psi(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    least, most = mx.minimum(1, df), mx.minimum(1, 1 / df)
    far = clip(r, mx.where(df == mx.inf, largest(r), mx.inf))
    tiny = mx.finfo(r.dtype).smallest_normal  # lest 0/0 be NaN
    return (least + most) / (mx.maximum(tiny, least * c) / (r / c) + most * far)


def root_weight(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    a, b = _legs(r, df, c)
    return mx.sqrt(mx.minimum(1, df) + mx.minimum(1, 1 / df)) / hypotenuse(b, a)


def _elasticity(n: int, r: mx.array, df: mx.array, c: mx.array) -> Parts:
    a, b = _legs(r, df, c)
    return elasticity(n, a, b, 0)


BY = chain(rho, psi, root_weight, _elasticity)


class _Parts:
    """The formulas' q, p and e, and r/d^2 over df, of a residual that is finite."""

    def __init__(self, r: mx.array, df: mx.array, c: mx.array) -> None:
        r, less = clip(r, largest(r)), mx.sqrt(mx.minimum(1, df))
        self.a, self.b = a, b = _legs(r, df, c)
        d = hypotenuse(b, a)  # the formulas' d, times ``less``
        self.q, self.p = mx.square(b / d), mx.square(a / d)
        near, far = mx.abs(r) * less, c * less
        self.e = clip((near - far) / d * (near / d + far / d), largest(r))
        self.slope = r * mx.minimum(1, 1 / df) / d / d


def rho_df(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    of = _Parts(r, df, c)
    near = mx.minimum(1, of.a / of.b)
    x = mx.square(near)
    far = log_hypotenuse(of.a, of.b, scalar(1.0, r)) - of.p
    return 0.5 * (mx.where(near < 1, x * of.p * (0.5 - half_bend(x)), far) - of.p / df)


def psi_df(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    of = _Parts(r, df, c)
    return of.slope * of.e / df


def rho_df_df(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    of = _Parts(r, df, c)
    return 0.5 * of.p / df * ((1 + of.q) / df - of.p)


def rho_df_scale(r: mx.array, df: mx.array, c: mx.array) -> mx.array:
    of = _Parts(r, df, c)
    return -of.p / df * of.e / c


LOSS = Loss(
    "student_t_loss",
    rho,
    thresholds=[Threshold("df", default=4.0, open_low=True, has_residual_units=False), SCALE],
    psi=psi,
    psi_prime=BY.psi_prime,
    partials={
        "df": rho_df,
        "scale": BY.rho_scale,
        ("r", "df"): psi_df,
        ("r", "scale"): BY.psi_scale,
        ("df", "df"): rho_df_df,
        ("df", "scale"): rho_df_scale,
        ("scale", "scale"): BY.rho_scale_scale,
    },
    weight=BY.weight,
    traits=Traits(
        convex=lambda df, scale: df == math.inf,
        even=True,
        redescending=lambda df, scale: df < math.inf,
        bound=lambda df, scale: (math.sqrt(df) + 1 / math.sqrt(df)) / (2 * scale),
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=0,
    ),
)


@loss_function(LOSS)
def student_t_loss(
    predictions: Array,
    targets: Array,
    df: Parameter = 4.0,
    scale: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Student t loss: quadratic near zero, logarithmic far out, with tails to choose.

    With :math:`u = (\text{predictions} - \text{targets})/c`, c being the scale, and :math:`\nu`
    degrees of freedom,

    .. math:: \rho = \frac{\nu + 1}2 \log\Big(1 + \frac{u^2}\nu\Big) \qquad
              \psi = \frac{d\rho}{dr} = \frac1c\,\frac{(\nu + 1)\,u}{\nu + u^2}

    The negative log-likelihood of a Student t distribution, up to a constant of :math:`\nu` and c,
    which is 0 at u = 0. The gradient is largest at :math:`|u| = \sqrt\nu` and falls to 0 like 1/u.
    With one degree of freedom it is :func:`cauchy_loss` of a scale :math:`\sqrt2` times smaller;
    ``df=inf`` is :math:`u^2/2`.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    df : float or mx.array, default 4.0
        The degrees of freedom of the distribution, above 0: a plain number. The fewer, the heavier
        the tails; inf is normal. The default is that of statsmodels. An array broadcasts to the
        data and is differentiable.
    scale : float or mx.array, default 1.0
        The scale of the distribution, in the units of the residual; above 0. An array broadcasts to
        the data (per sample, channel or element) and is differentiable.
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
        shape ("none"), 0-d, or the data's shape without ``axis``. It has no units.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if df or scale would widen the data; if
        weights or where have other axes than the data, or weights are a single number under "mean";
        if a number df or scale is not positive or NaN, or too small for the dtype; if reduction or
        axis is unknown.

    Notes
    -----
    Do not train df or scale with this loss: without the constant it falls as scale grows. At r = 0
    the second derivative is :math:`(1 + 1/\nu)/c^2`. For finite df an infinite residual has loss
    inf and gradient 0. scale = inf gives 0. NaN gives NaN, as does an infinite residual with an
    infinite scale. An element of an array df or scale that is not positive gives NaN there. Half
    types are computed in float32 and rounded once. Tested bounds: value 7 ulp and gradient 4 ulp in
    float32, 1 ulp in half types; means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust Statistical Modeling Using the t
       Distribution", Journal of the American Statistical Association 84(408), 1989.
       https://doi.org/10.1080/01621459.1989.10478852

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 2.0, -1e20])
    >>> sl.student_t_loss(predictions, mx.zeros(3), df=4.0, reduction="none")
    array([0, 1.73287, 226.793], dtype=float32)
    >>> mx.grad(lambda x: sl.student_t_loss(x, mx.zeros(3), 4.0, 1.0, "sum"))(predictions)
    array([0, 1.25, -5e-20], dtype=float32)
    """
    return LOSS(predictions, targets, df, scale, reduction, weights=weights, where=where, axis=axis)


class StudentTLoss(LossModule):
    """Student t loss as a module.

    See :func:`student_t_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in ``loss.df
    = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is saved with the
    model and never trained; a number is a constant of the step. Only :class:`Learned` is trained.
    See :class:`LossModule`.

    Parameters
    ----------
    df : float, mx.array or Learned, default 4.0
        The degrees of freedom of the distribution, above 0: a plain number. The fewer, the heavier
        the tails; inf is normal. The default is that of statsmodels. An array broadcasts to the
        data and is differentiable.
    scale : float, mx.array or Learned, default 1.0
        The scale of the distribution, in the units of the residual; above 0. An array broadcasts to
        the data (per sample, channel or element) and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.StudentTLoss(df=3.0, scale=2.0)
    >>> loss
    StudentTLoss(df=3.0, scale=2.0, reduction='mean')
    >>> loss(mx.array([1.0, -1.0]), mx.zeros(2))
    array(0.160085, dtype=float32)
    """

    loss = LOSS

    @known_keywords("StudentTLoss")
    def __init__(
        self, df: Learnable = 4.0, scale: Learnable = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(df, scale, reduction)
