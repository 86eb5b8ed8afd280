r"""Geman-McClure: half the square near zero, constant in the tails.

With :math:`u = r/c` and derivatives in u,

.. math:: f = \frac{2u^2}{u^2 + 4} = \frac{2}{1 + 4/u^2} \quad f' = \frac{u}{(1 + u^2/4)^2} \quad
          \psi = \frac{1}{1/u + u/4}\,\frac{1}{c + ur/4} \quad g = \frac{c}{c^2 + r^2/4}

See ``_scaled.py`` for the derivatives in r and c; it is Barron's loss at alpha = -2.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .._engine.arguments import known_keywords
from .._loss import loss_function
from .._modules import Learnable, LossModule
from .._traits import Traits
from .._types import Array, Axis, Parameter, Reduction
from ._elementary import hypotenuse, largest
from ._scaled import elasticity, scaled


def rho(r: mx.array, c: mx.array) -> mx.array:
    return 2 / (1 + mx.square(2 * (c / r)))


def psi(r: mx.array, c: mx.array) -> mx.array:
    u = r / c
    eps = mx.array(mx.finfo(u.dtype).eps, u.dtype)  # as 1/u may overflow
    return eps / (eps / u + 0.25 * eps * u) / (c + 0.25 * u * r)


def root_weight(r: mx.array, c: mx.array) -> mx.array:
    d = hypotenuse(c, 0.5 * mx.abs(r))
    return mx.minimum(largest(c), c) / d / d


def v_over_c(r: mx.array, c: mx.array) -> mx.array:
    d = hypotenuse(c, 0.5 * mx.abs(r))
    return r / d / d


LOSS = scaled(
    "geman_mcclure_loss",
    rho,
    psi,
    root_weight,
    lambda n, r, c: elasticity(n, 0.5 * mx.abs(r), c, -2),
    Traits(
        convex=False,
        even=True,
        redescending=True,
        bound=lambda scale: 0.375 * math.sqrt(3) / scale,
        minimum=0.0,
        smoothness=math.inf,
        kinks=(),
        degree=0,
    ),
    v_over_c,
)


@loss_function(LOSS)
def geman_mcclure_loss(
    predictions: Array,
    targets: Array,
    scale: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Geman-McClure loss: quadratic near zero, constant far out.

    With :math:`u = (\text{predictions} - \text{targets})/c`, c being the scale,

    .. math:: \rho = \frac{2u^2}{u^2 + 4} \qquad
              \psi = \frac{d\rho}{dr} = \frac1c\,\frac{16u}{(u^2 + 4)^2}

    The loss stays below 2. The gradient is largest, :math:`3\sqrt3/8c`, at
    :math:`u = 2/\sqrt3`, and falls to 0 like :math:`u^{-3}`. It equals
    :func:`general_loss` at ``alpha=-2``.

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
    At r = 0 the second derivative is :math:`1/c^2`. An infinite residual has loss 2 and gradient 0.
    scale = inf gives 0. NaN gives NaN, as does an infinite residual with an infinite scale. An
    element of an array scale that is not positive gives NaN there. Half types are computed in
    float32 and rounded once. Tested bounds: value 5 ulp and gradient 6 ulp in float32, 1 ulp in
    half types; means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] S. Geman, D. E. McClure, "Bayesian Image Analysis: An Application to Single Photon
       Emission Tomography", Proceedings of the Statistical Computing Section, ASA, 1985.
    .. [2] J. T. Barron, "A General and Adaptive Robust Loss Function", CVPR 2019.
       https://arxiv.org/abs/1701.03077

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([0.0, 2.0, -1e20])
    >>> sl.geman_mcclure_loss(predictions, mx.zeros(3), reduction="none")
    array([0, 1, 2], dtype=float32)
    >>> mx.grad(lambda x: sl.geman_mcclure_loss(x, mx.zeros(3), 1.0, "sum"))(predictions)
    array([0, 0.5, -0], dtype=float32)
    """
    return LOSS(predictions, targets, scale, reduction, weights=weights, where=where, axis=axis)


class GemanMcClureLoss(LossModule):
    """Geman-McClure loss as a module.

    See :func:`geman_mcclure_loss` for the formula, the limits and the error bounds.

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
    >>> loss = sl.GemanMcClureLoss(scale=2.0)
    >>> loss
    GemanMcClureLoss(scale=2.0, reduction='mean')
    >>> loss(mx.array([4.0, -4.0]), mx.zeros(2))
    array(1, dtype=float32)
    """

    loss = LOSS

    @known_keywords("GemanMcClureLoss")
    def __init__(self, scale: Learnable = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(scale, reduction)
