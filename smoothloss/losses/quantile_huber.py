r"""Quantile-Huber: Huber's loss, tilted as the quantile loss is.

With the tilt :math:`F = |\tau - 1_{e<0}|`, which is :math:`1-\tau` for r > 0 and :math:`\tau` else,
the pinball :math:`Q(r) = F |r|` and the clipped residual :math:`c = \min(|r|, \kappa)
\operatorname{sign} r`, Huber's :math:`|c|(|r| - |c|/2)` becomes

.. math:: \rho = |c|\,Q\Big(r - \frac c2\Big) \quad \psi = F c \quad
          \rho_\tau = -|c|\Big(r - \frac c2\Big) \quad \rho_\kappa = Q(r - c)

with the second derivatives, inside and outside of kappa, :math:`\psi_r` = F and 0,
:math:`\psi_\tau = -|c|`, :math:`\psi_\kappa` = 0 and :math:`F \operatorname{sign} r`,
:math:`\rho_{\tau\kappa} = c - r` and :math:`\rho_{\kappa\kappa}` = 0 and -F. The weight is
:math:`F\min(1, \kappa/|r|)`.

At kappa = 0 the loss is by convention the quantile loss: the factor \|c\| is 1, not 0.
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
from ._elementary import clip, constant, inside, largest, lifted, one_at_zero, sign, split
from .quantile import LEVEL, rho as pinball


def _tilted(x: mx.array, quantile: mx.array) -> mx.array:
    """``(1 - quantile) * x`` of x above 0, ``quantile * x`` of x below; x is finite."""
    half = 0.5 * x
    a = mx.abs(half)
    return (1 - quantile) * (a + half) - quantile * (a - half)


def _within(r: mx.array, kappa: mx.array) -> mx.array:
    """The residual clipped to +-kappa, finite."""
    return clip(r, mx.minimum(largest(r), kappa))


def _slope(r: mx.array, kappa: mx.array) -> mx.array:
    """c, but the sign of r at kappa = 0."""
    return clip(lifted(r, kappa), mx.minimum(largest(r), kappa) + one_at_zero(kappa))


def rho(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    c = _within(r, kappa)
    slope = mx.abs(c) + one_at_zero(kappa)
    return slope * pinball(r - 0.5 * c, quantile)


def psi(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return _tilted(_slope(r, kappa), quantile)


def rho_quantile(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    c = _within(r, kappa)
    slope = mx.abs(c) + one_at_zero(kappa)
    return -slope * (r - 0.5 * c)


def rho_kappa(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return pinball(r - _within(r, kappa), quantile)


def psi_prime(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return inside(r, kappa, mx.where(r > 0, 1 - quantile, quantile))


def psi_quantile(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return -mx.abs(_slope(r, kappa))


def psi_kappa(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return split(r, kappa, 0, _tilted(sign(r), quantile))


def rho_quantile_quantile(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return constant(r, 0)


def rho_quantile_kappa(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return _within(r, kappa) - r


def rho_kappa_kappa(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    return split(r, kappa, 0, -mx.abs(_tilted(sign(r), quantile)))


def weight(r: mx.array, quantile: mx.array, kappa: mx.array) -> mx.array:
    a = mx.abs(r)
    tilt = mx.where(r > 0, 1 - quantile, quantile)
    tilt = mx.where((a == 0) & (kappa == 0), 1, tilt)  # infinite, even where the tilt is 0
    most = mx.where(kappa == 0, mx.inf, 1.0)
    return tilt * mx.minimum(most, (mx.minimum(largest(r), kappa) + one_at_zero(kappa)) / a)


def kinks(quantile: float, kappa: float) -> tuple[float, ...]:
    tilted = (0.0,) if quantile != 0.5 or kappa == 0 else ()
    return (-kappa, *tilted, kappa) if 0 < kappa < math.inf else tilted


def smoothness(quantile: float, kappa: float) -> float:
    if not kinks(quantile, kappa):
        return math.inf
    return 1 if kappa > 0 else 0


LOSS = Loss(
    "quantile_huber_loss",
    rho,
    thresholds=[LEVEL, Threshold("kappa", default=1.0)],
    psi=psi,
    psi_prime=psi_prime,
    partials={
        "quantile": rho_quantile,
        "kappa": rho_kappa,
        ("r", "quantile"): psi_quantile,
        ("r", "kappa"): psi_kappa,
        ("quantile", "quantile"): rho_quantile_quantile,
        ("quantile", "kappa"): rho_quantile_kappa,
        ("kappa", "kappa"): rho_kappa_kappa,
    },
    weight=weight,
    traits=Traits(
        convex=True,
        even=lambda quantile, kappa: quantile == 0.5,
        redescending=False,
        bound=lambda quantile, kappa: max(quantile, 1 - quantile) * (kappa if kappa > 0 else 1.0),
        minimum=0.0,
        smoothness=smoothness,
        kinks=kinks,
        degree=lambda quantile, kappa: 2 if kappa > 0 else 1,
    ),
)


@loss_function(LOSS)
def quantile_huber_loss(
    predictions: Array,
    targets: Array,
    quantile: Parameter = 0.5,
    kappa: Parameter = 1.0,
    reduction: Reduction = "mean",
    *,
    weights: Parameter | None = None,
    where: Array | None = None,
    axis: Axis = None,
) -> mx.array:
    r"""Quantile-Huber loss: the quantile loss, quadratic within kappa.

    With :math:`e = \text{targets} - \text{predictions}`, the opposite of the residual r, and the
    quantile :math:`\tau`,

    .. math:: \rho(r) = \big|\tau - 1_{e<0}\big| \begin{cases} r^2/2 & |r| \le \kappa \\
              \kappa(|r| - \kappa/2) & |r| > \kappa \end{cases} \qquad
              \psi(r) = \rho'(r) = \big|\tau - 1_{e<0}\big| \begin{cases} r & |r| \le \kappa \\
              \kappa \operatorname{sign} r & |r| > \kappa \end{cases}

    The loss of QR-DQN. It is not divided by kappa, as in rlax; Dopamine's implicit quantile agent
    divides by it, and Stable-Baselines3-contrib has kappa = 1, where both agree. As in rlax,
    ``kappa=0`` is :func:`quantile_loss`.

    Parameters
    ----------
    predictions, targets : mx.array or numpy.ndarray
        Real arrays of one shape. They are never broadcast against each other.
    quantile : float or mx.array, default 0.5
        The quantile that is estimated, in [0, 1]: a plain number. An array broadcasts to the data
        (many quantiles at once) and is differentiable.
    kappa : float or mx.array, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0.
        Keep it small beside the spread of the targets: as large, the minimum is no quantile. An
        array broadcasts to the data and is differentiable.
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
        residual, squared (as they are for kappa = 0).

    Raises
    ------
    TypeError
        If an array is complex or boolean (or ``where`` is not boolean), or no array at all.
    ValueError
        If the shapes of predictions and targets differ; if quantile or kappa would widen the data;
        if weights or where have other axes than the data, or weights are a single number under
        "mean"; if a number quantile is not in [0, 1]; if a number kappa is negative or NaN; if
        reduction or axis is unknown.

    Notes
    -----
    At r = 0 the gradient is 0 and the second derivative :math:`\tau`, that of residuals below 0; at
    :math:`|r| = \kappa` the gradient is :math:`\kappa` times the tilt and the second derivative 0.
    kappa = inf gives half the tilted square. As kappa approaches 0 the loss approaches 0, and the
    derivative by kappa at 0 is that limit's, :func:`quantile_loss`. An infinite residual has loss
    inf (0 on a side that costs nothing) and a gradient of kappa times the tilt (with kappa = inf,
    it counts as the largest float); NaN gives NaN. An element of an array quantile outside [0, 1],
    or a negative or NaN one of kappa, gives NaN there. Half types are computed in float32 and
    rounded once. Tested bounds: value 4 ulp and gradient 2 ulp in float32, 1 ulp in half types;
    means and sums 1e-6 relative up to 1e8 elements.

    References
    ----------
    .. [1] W. Dabney, M. Rowland, M. G. Bellemare, R. Munos, "Distributional Reinforcement Learning
       with Quantile Regression", AAAI 2018. https://arxiv.org/abs/1710.10044

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> predictions = mx.array([-0.5, 0.5, 3.0])
    >>> sl.quantile_huber_loss(predictions, mx.zeros(3), 0.75, reduction="none")
    array([0.09375, 0.03125, 0.625], dtype=float32)
    >>> mx.grad(lambda x: sl.quantile_huber_loss(x, mx.zeros(3), 0.75, 1.0, "sum"))(predictions)
    array([-0.375, 0.125, 0.25], dtype=float32)
    """
    return LOSS(
        predictions, targets, quantile, kappa, reduction, weights=weights, where=where, axis=axis
    )


class QuantileHuberLoss(LossModule):
    """Quantile-Huber loss as a module.

    See :func:`quantile_huber_loss` for the formula, the limits and the error bounds.

    To change a threshold between calls of a compiled step, make it an array, set it as in
    ``loss.quantile = mx.array(0.5)``, and pass the model's ``state`` to ``mx.compile``. An array is
    saved with the model and never trained; a number is a constant of the step. Only
    :class:`Learned` is trained. See :class:`LossModule`.

    Parameters
    ----------
    quantile : float, mx.array or Learned, default 0.5
        The quantile that is estimated, in [0, 1]: a plain number. An array broadcasts to the data
        (many quantiles at once) and is differentiable.
    kappa : float, mx.array or Learned, default 1.0
        Where the loss turns from quadratic to linear, in the units of the residual; at least 0.
        Keep it small beside the spread of the targets: as large, the minimum is no quantile. An
        array broadcasts to the data and is differentiable.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.QuantileHuberLoss(quantile=0.75)
    >>> loss
    QuantileHuberLoss(quantile=0.75, kappa=1.0, reduction='mean')
    >>> loss(mx.array([1.0, -1.0]), mx.zeros(2))
    array(0.25, dtype=float32)
    """

    loss = LOSS

    @known_keywords("QuantileHuberLoss")
    def __init__(
        self, quantile: Learnable = 0.5, kappa: Learnable = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(quantile, kappa, reduction)
