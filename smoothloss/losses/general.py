r"""Barron's general loss: one family from the square to Welsch.

With :math:`u = r/c, b = |\alpha - 2|, L = \log(1 + u^2/b)` and derivatives in u,

.. math:: f = \frac b\alpha\Big(e^{\alpha L/2} - 1\Big) \quad f' = u\,e^{(\alpha/2 - 1)L} \quad
          n + u\frac{f''}{f'} = (n - 1 + \alpha)(1 - e^{-L}) + (n + 1) e^{-L}

See ``_scaled.py`` for the derivatives in r and c, ``_shape.py`` for those in alpha.

With :math:`S = \sqrt{1 + u^2/b}` and :math:`R = S^{\alpha/2} = e^{\alpha L/4}`,

.. math:: f = \frac b\alpha (R - 1)(R + 1)
            = \frac b4 L\,\frac{R - 1}{\log R}\,(R + 1)
            = \frac{u^2}2 \Big(1 + \frac{\alpha - 2}4 \frac{u^2}b + \dots\Big)

of which the second form is for R near 1, where the rounding of R cancels in the quotient, and with
it for alpha near 0; and the third for :math:`u^2/b` near 0, which may underflow. Powers of S keep
the digits that L times a number would lose; beyond an abs(alpha) of 16, where they lose more, R is
a power of e. An infinite alpha is computed as 2^60. Where the square of u overflows, R is a power
of the root of S, which is that of :math:`|u|/\sqrt b`; u itself may overflow there.

MLX fuses operations up to eleven deep, which it counts from the result to the last use of a value,
and of at most 24 inputs. So the deepest terms come first and the shallowest use of u last, what
depends on alpha alone is computed outside, and all is one kernel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._engine.shapes import alone, apart
from .._loss import Loss, loss_function
from .._modules import Learnable, LossModule
from .._threshold import Threshold
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from . import cauchy, geman_mcclure, welsch
from ._elementary import clip, hypotenuse, largest, root, root_quotient, scalar, wide
from ._scaled import SCALE, Parts, Scaled, chain, elasticity as by_family, scaled
from ._shape import bounded, f_alpha, f_alpha_alpha, half_h

MILD = 16.0  # up to where powers of S = sqrt(1 + u^2/b) are accurate


class _Parts(NamedTuple):
    alpha: mx.array
    size: mx.array
    mild: mx.array
    b: mx.array
    root_b: mx.array
    x: mx.array  # u^2/b, clipped
    s: mx.array  # where near
    near: mx.array
    far: mx.array  # the root of |u|/sqrt(b), for S where that is not near

    def times_length(self, k: mx.array) -> mx.array:
        """Return k log(1 + x): that of the rounded sum, and its rounding error over it."""
        y = 1 + self.x
        return k * mx.log(y) + (self.x - (y - 1)) * (k / y)

    def power(self, twice: mx.array, exponent: mx.array) -> mx.array:
        """S to half of ``twice`` or, where alpha is not mild, a power of e."""
        base = mx.where(self.near, self.s, self.far)
        twice = mx.where(self.near, 0.5 * twice, twice)
        return mx.power(mx.where(self.mild, base, math.e), mx.where(self.mild, twice, exponent))


def _parts(r: mx.array, alpha: mx.array, c: mx.array, a: mx.array) -> _Parts:
    """The parts; ``a`` is abs(r) as far as it counts."""
    eps = float(mx.finfo(r.dtype).eps)
    alpha = bounded(alpha)
    b = alone(mx.maximum(scalar(eps, r), alone(mx.abs(alpha - 2))))
    root_b = alone(mx.sqrt(b))
    most = largest(r)
    x = mx.minimum(most, mx.square(r / c / root_b))
    far = root_quotient(a, c, root_b)
    size = alone(mx.abs(alpha))
    return _Parts(alpha, size, alone(size < MILD), b, root_b, x, mx.sqrt(1 + x), x < most, far)


def rho(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    alpha, _, _, b, _, x, _, near, far = of = _parts(r, alpha, c, mx.abs(r))
    length = mx.where(near, of.times_length(scalar(1.0, r)), 4 * mx.log(far))
    root = of.power(alpha, of.times_length(0.25 * alpha))
    d = root - 1
    ratio = mx.where(d == 0, 1.0, d / mx.log(root))
    half = mx.where(mx.abs(d) < 0.5, (0.25 * b * ratio) * length, b / alpha * d)
    small = (1 + 0.25 * (alpha - 2) * x) * (0.5 * mx.square(r / c))
    least = alone(mx.finfo(r.dtype).eps / alone(mx.maximum(1, of.size)))
    return mx.where(x >= least, half * (root + 1), small)


class _Root(NamedTuple):
    power: mx.array
    over: mx.array
    near: mx.array
    direct: mx.array  # whether alpha is large: then the power is small


def _root(r: mx.array, alpha: mx.array, c: mx.array) -> _Root:
    """The root of f'/uc^2, S^(alpha/2 - 1)/c, as a quotient: S^(alpha/2) over Sc.

    Half of alpha - 2 would be a rounded exponent, but where that is exact.
    """
    a = mx.minimum(largest(r), mx.abs(r))
    of = _parts(r, alpha, c, a)
    less = of.alpha - 2
    exact = alone(of.alpha >= 1)
    power = of.power(mx.where(exact, less, of.alpha), of.times_length(0.25 * less))
    direct = alone(exact | alone(of.size >= MILD))
    hypotenuse = mx.where(of.near, c * of.s, a / of.root_b)
    return _Root(power, mx.where(direct, c, hypotenuse), of.near, direct)


def root_weight(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    power, over, *_ = _root(r, alpha, c)
    return power / over


def _v(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    power, over, _, direct = _root(r, alpha, c)
    # r/c may overflow, and the power over Sc underflow.
    return mx.where(direct, power, r) / over * mx.where(direct, r, power)


def v_over_c(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    return _v(r, alpha, c) / c


def psi(r: mx.array, alpha: mx.array, c: mx.array) -> mx.array:
    power, over, near, _ = _root(r, alpha, c)
    g = power / over
    finite = near | (mx.abs(r) < mx.inf)  # near is used here that it be shallow
    limit = mx.where(alpha < 1, 0.0, mx.where(alpha > 1, mx.inf, largest(r)))
    return g * (g * mx.where(finite, r, clip(r / c, limit)))


def elasticity(n: int, r: mx.array, alpha: mx.array, c: mx.array) -> Parts:
    root_b = _parts(r, alpha, c, r).root_b
    unit = mx.minimum(1, root_b)
    return by_family(n, mx.abs(r) * (unit / root_b), c * unit, bounded(alpha))


BY_SCALE: Scaled = chain(rho, psi, root_weight, elasticity, v_over_c)


def rho_scale(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    # In few kernels: a first step that learns compiles them all.
    alpha, scale = apart(alpha), apart(scale)
    v = apart(_v(mx.minimum(largest(r), mx.abs(r)), alpha, scale))
    return apart(-v * (v / scale))


def rho_alpha(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    return f_alpha(r, alpha, apart(apart(scale)))  # shared with neither of the others


def psi_alpha(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    return psi(clip(r, largest(r)), alpha, scale) * half_h(r, alpha, scale)


def rho_alpha_alpha(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    return f_alpha_alpha(r, alpha, scale)


def rho_alpha_scale(r: mx.array, alpha: mx.array, scale: mx.array) -> mx.array:
    return rho_scale(r, alpha, scale) * half_h(r, alpha, scale)


def largest_psi(alpha: float, scale: float) -> float:
    """The supremum of psi: at u^2 = (2 - alpha)/(1 - alpha) for alpha below 1."""
    if alpha >= 1:
        return 1 / scale if alpha == 1 else math.inf
    if alpha == -math.inf:
        return math.exp(-0.5) / scale
    return math.pow((2 - alpha) / (1 - alpha), (alpha - 1) / 2) / scale


def _parabola() -> Loss:
    """Alpha = 2, where f is half the square of u."""
    return scaled(
        "general_loss",
        lambda r, c: 0.5 * mx.square(r / c),
        lambda r, c: r / c / c,
        lambda r, c: 1 / c + 0 * clip(r, largest(r)),
        lambda n, r, c: (n + 1 + 0 * r, 0.0),
        Traits(),
    )


def _hyperbola() -> Loss:
    """Alpha = 1, where f = S - 1 = u^2/(1 + S) with S = sqrt(1 + u^2)."""

    def rho(r: mx.array, c: mx.array) -> mx.array:
        a = mx.abs(r / c)
        m = mx.minimum(wide(r), a)
        return a * (m / (1 + root(m)))

    def psi(r: mx.array, c: mx.array) -> mx.array:
        m = clip(r / c, wide(r))
        return m / root(m) / c

    def root_weight(r: mx.array, c: mx.array) -> mx.array:
        return 1 / (mx.sqrt(c) * mx.sqrt(hypotenuse(c, mx.abs(r))))

    return scaled(
        "general_loss",
        rho,
        psi,
        root_weight,
        lambda n, r, c: by_family(n, mx.abs(r), c, 1),
        Traits(),
    )


CLOSED_FORMS: dict[float, Loss] = {
    2.0: _parabola(),
    1.0: _hyperbola(),
    0.0: cauchy.LOSS,
    -2.0: geman_mcclure.LOSS,
    -math.inf: welsch.LOSS,
}


LOSS = Loss(
    "general_loss",
    BY_SCALE.rho,
    thresholds=[Threshold("alpha", default=1.0, low=-math.inf, has_residual_units=False), SCALE],
    psi=BY_SCALE.psi,
    psi_prime=BY_SCALE.psi_prime,
    partials={
        "alpha": rho_alpha,
        "scale": rho_scale,
        ("r", "alpha"): psi_alpha,
        ("r", "scale"): BY_SCALE.psi_scale,
        ("alpha", "alpha"): rho_alpha_alpha,
        ("alpha", "scale"): rho_alpha_scale,
        ("scale", "scale"): BY_SCALE.rho_scale_scale,
    },
    weight=BY_SCALE.weight,
    closed_forms=CLOSED_FORMS,
    traits=Traits(
        convex=lambda alpha, scale: alpha >= 1,
        even=True,
        redescending=lambda alpha, scale: alpha < 1,
        bound=largest_psi,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=0,
    ),
)


@loss_function(LOSS)
def general_loss(
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
    r"""Barron's general loss: from the squared error to Welsch's loss by one number, alpha.

    With :math:`u = (\text{predictions} - \text{targets})/c`, c being the scale,

    .. math::

        \rho = \frac{|\alpha-2|}\alpha
        \bigg(\Big(1 + \frac{u^2}{|\alpha-2|}\Big)^{\alpha/2} - 1\bigg)
        \qquad \psi = \frac{d\rho}{dr} =
        \frac{u}c\Big(1 + \frac{u^2}{|\alpha-2|}\Big)^{\alpha/2-1}

    with the limits :math:`u^2/2` at 2, :math:`\log(1 + u^2/2)` at 0, :math:`1 - e^{-u^2/2}` at
    -inf and :math:`e^{u^2/2} - 1` at inf. The tails grow like :math:`|u|^\alpha` for positive
    alpha and level off at :math:`|\alpha-2|/|\alpha|` for negative. For :math:`\alpha \le 1` the
    gradient is bounded, below 1 it falls back to 0.

    Do not train alpha or scale with this loss: it keeps falling as alpha falls or scale grows. Use
    :func:`adaptive_loss`, whose normalising terms prevent that.

    A number alpha of 2, 1, 0, -2 or -inf is computed by its closed form, at the cost of the named
    loss. Other numbers, and arrays, take as few kernels and bytes, but some six times as long.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    alpha : float or mx.array, default 1.0
        The shape, a plain number; any, infinite ones too. 2 is half the square, 1 Charbonnier, 0
        Cauchy, -2 Geman-McClure, -inf Welsch: the smaller, the less an outlier matters. An array
        broadcasts to the data and is differentiable.
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
        shape ("none"), 0-d, or the data's shape without ``axis``. It has no units.

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if alpha or scale would widen the data; if
        weights or where have other axes than the data, or weights are a single number under "mean";
        if a number alpha is NaN; if a number scale is not positive or NaN, or too small for the
        dtype; if reduction or axis is unknown.

    Notes
    -----
    At r = 0 the second derivative is :math:`1/c^2` for every alpha. An infinite residual has the
    limits above, and gradient 0, :math:`\pm 1/c` or :math:`\pm\infty` for alpha below, at or above
    1; a finite one counts as what it is, even if it overflows when divided by the scale.
    scale = inf gives 0. NaN gives NaN, as does an infinite residual with an infinite
    scale. A NaN element of an array alpha, or one of scale that is not positive, gives NaN there.
    The loss is continuous in alpha, but at alpha = 2 its derivative by alpha is infinite for r not
    0; the one returned is that of an alpha an epsilon below. At infinite alpha it is 0; where the
    loss is beyond 1e29 it no longer grows. Half types are computed in float32 and rounded once.
    Tested bounds in float32, on the CPU: value :math:`9 + 2.5|\alpha|` ulp and gradient :math:`17
    + 2.5|\alpha-2|` ulp (from an :math:`|\alpha|` of 16 on :math:`8 + u^2` and :math:`10 + 3u^2`),
    1 ulp in half types; means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] J. T. Barron, "A General and Adaptive Robust Loss Function", CVPR 2019, eq. 8.
       https://arxiv.org/abs/1701.03077

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 2.0, -1e20])
    >>> sl.general_loss(predictions, mx.zeros(3), alpha=-2.0, reduction="none")
    array([0, 1, 2], dtype=float32)
    >>> alpha = mx.array([-2.0, 1.0, 2.0])
    >>> sl.general_loss(mx.full((3,), 2.0), mx.zeros(3), alpha, reduction="none")
    array([1, 1.23607, 2], dtype=float32)
    >>> mx.grad(lambda x: sl.general_loss(x, mx.zeros(3), 1.0, 1.0, "sum"))(predictions)
    array([0, 0.894427, -1], dtype=float32)
    """
    return LOSS(
        predictions, targets, alpha, scale, reduction, weights=weights, where=where, axis=axis
    )


class GeneralLoss(LossModule):
    """Barron's general loss as a module.

    See :func:`general_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.alpha = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    alpha : float, mx.array or Learned, default 1.0
        The shape, a plain number; any, infinite ones too. 2 is half the square, 1 Charbonnier, 0
        Cauchy, -2 Geman-McClure, -inf Welsch: the smaller, the less an outlier matters. An array
        broadcasts to the data and is differentiable.
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
    >>> loss = sl.GeneralLoss(alpha=0.0, scale=2.0)
    >>> loss
    GeneralLoss(alpha=0.0, scale=2.0, reduction='mean')
    >>> loss(mx.array([1.0, -1.0]), mx.zeros(2))
    array(0.117783, dtype=float32)
    """

    loss = LOSS

    @known_keywords("GeneralLoss")
    def __init__(
        self, alpha: Learnable = 1.0, scale: Learnable = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(alpha, scale, reduction)
