r"""Arctan: half the square near zero, constant in the tails.

With :math:`u = r/c` and derivatives in u,

.. math:: f = \tfrac12 \arctan u^2 \quad f' = \frac{u}{1 + u^4} \quad
          n + u\frac{f''}{f'} = \frac{(n + 1) + (n - 3)\,u^4}{1 + u^4} \quad
          g = \frac{c}{\sqrt{c^4 + r^4}}

See ``_scaled.py`` for the derivatives in r and c. The root is taken in units of the larger one of
:math:`|r|` and c, whose fourth powers may overflow.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._engine.shapes import alone
from .._loss import loss_function
from .._modules import Learnable, LossModule
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import clip, largest
from ._scaled import Parts, scaled


class _Unit:
    """r and c in units m of the larger one, and the sum of their fourth powers."""

    def __init__(self, r: mx.array, c: mx.array) -> None:
        self.m = mx.maximum(c, mx.abs(r))
        self.r, self.c = r / self.m, c / self.m
        self.sum = mx.square(mx.square(self.r)) + mx.square(mx.square(self.c))


def rho(r: mx.array, c: mx.array) -> mx.array:
    return 0.5 * mx.arctan(mx.square(r / c))


def psi(r: mx.array, c: mx.array) -> mx.array:
    # r comes last: so MLX fuses what it is made of where that is shallow.
    most = alone(mx.where(alone(c == mx.inf), 0, largest(r)))
    of = _Unit(clip(r, most), alone(mx.minimum(largest(c), c)))
    return 1 / of.sum * (of.c / of.m) * (of.r * of.c)


def root_weight(r: mx.array, c: mx.array) -> mx.array:
    of = _Unit(r, mx.minimum(largest(c), c))
    return of.c / of.m / mx.sqrt(of.sum)


def v_over_c(r: mx.array, c: mx.array) -> mx.array:
    of = _Unit(r, c)
    return of.r / of.m / mx.sqrt(of.sum)


def elasticity(n: int, r: mx.array, c: mx.array) -> Parts:
    of = _Unit(r, c)
    root = mx.sqrt(of.sum)
    return (n - 3) * mx.square(mx.square(of.r) / root), mx.square(of.c) / root


LOSS = scaled(
    "arctan_loss",
    rho,
    psi,
    root_weight,
    elasticity,
    Traits(
        convex=False,
        even=True,
        redescending=True,
        bound=lambda scale: 0.25 * 27**0.25 / scale,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=0,
    ),
    v_over_c,
)


@loss_function(LOSS)
def arctan_loss(
    predictions: Array,
    targets: Array,
    scale: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Arctan loss: quadratic near zero, constant beyond a scale or two.

    With :math:`u = (\text{predictions} - \text{targets})/c`, c being the scale,

    .. math:: \rho = \tfrac12 \arctan u^2 \qquad
              \psi = \frac{d\rho}{dr} = \frac1c\,\frac{u}{1 + u^4}

    The gradient is largest, :math:`0.57/c`, at :math:`u = 3^{-1/4} = 0.76`, and falls to 0 like
    :math:`1/u^3`, as with :func:`geman_mcclure_loss`, but from a smaller residual on. It is
    ``loss="arctan"`` of ``scipy.optimize.least_squares``, whose cost is the sum of it times
    :math:`c^2`, c being ``f_scale``.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
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
        If the shapes of predictions and targets differ; if scale would widen the data; if weights
        or where have other axes than the data, or weights are a single number under "mean"; if a
        number scale is not positive or NaN, or too small for the dtype; if reduction or axis is
        unknown.

    Notes
    -----
    At r = 0 the second derivative is :math:`1/c^2`. An infinite residual has loss :math:`\pi/4` and
    gradient 0. scale = inf gives 0. NaN gives NaN, as does an infinite residual with an infinite
    scale. An element of an array scale that is not positive gives NaN there. Half types are
    computed in float32 and rounded once. Tested bounds: value 4 ulp and gradient 5 ulp in float32,
    1 ulp in half types; means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] P. Virtanen et al., "SciPy 1.0: Fundamental Algorithms for Scientific Computing in
       Python", Nature Methods 17, 2020. https://doi.org/10.1038/s41592-019-0686-2

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 1.0, -1e20])
    >>> sl.arctan_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 0.392699, 0.785398], dtype=float32)
    >>> mx.grad(lambda x: sl.arctan_loss(x, mx.zeros(3), 1.0, "sum"))(predictions)
    array([0, 0.5, -0], dtype=float32)
    """
    return LOSS(predictions, targets, scale, reduction, weights=weights, where=where, axis=axis)


class ArctanLoss(LossModule):
    """Arctan loss as a module.

    See :func:`arctan_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.scale = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
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
    >>> loss = sl.ArctanLoss(scale=2.0)
    >>> loss
    ArctanLoss(scale=2.0, reduction='mean')
    >>> loss(mx.array([2.0, -2.0]), mx.zeros(2))
    array(0.392699, dtype=float32)
    """

    loss = LOSS

    @known_keywords("ArctanLoss")
    def __init__(self, scale: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(scale, reduction)
