"""A threshold that an optimizer may move freely, and that still stays valid."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from . import _inputs
from ._inputs import Parameter
from ._loss import Threshold


class Learned(Module):
    r"""A threshold that is learned, inside an open interval.

    The trained parameter, ``raw``, is any real number t; the value is

    .. math:: v = \begin{cases} \text{low} + e^t & \text{high} = \infty \\
              \text{low} + (\text{high} - \text{low}) / (1 + e^{-t}) & \text{otherwise}
              \end{cases}

    so a step of an optimizer multiplies a scale, whatever its units, and never leaves the range.
    Near low :math:`v - \text{low}` is :math:`e^t` (times the range); in the tails of t, v is nearly
    low or high and learns slowly.

    Parameters
    ----------
    initial : float or mx.array
        Where learning starts, in the units of the threshold; strictly between low and high. A
        number is learned in float32, an array element by element in its floating dtype.
    low, high : float, default 0.0 and inf
        The bounds, in the same units; low is finite.

    Attributes
    ----------
    value : mx.array
        The present value, differentiable in ``raw``, of the shape and dtype of ``initial``.
    raw : mx.array
        The trained parameter.

    Raises
    ------
    TypeError
        If a bound is no number, or ``initial`` neither a number nor a real, floating array.
    ValueError
        If low is not finite or not below high, or if an element of ``initial`` is not between them.

    Notes
    -----
    ``initial`` comes back as ``value`` within 1e-6 relative (two epsilons in half types). Unlike
    the arrays of a loss it is read, for at a bound nothing would be learned. A loss takes only a
    range in which its threshold is valid. NaN in ``raw`` gives NaN.

    :func:`adaptive_loss` has a minimum in scale and alpha. The other losses have none in their
    thresholds: training takes delta of :func:`huber_loss` to 0 and beta of :func:`smooth_l1_loss`
    to infinity, so learn those against another loss, as that of validation data.

    References
    ----------
    .. [1] Stan Development Team, "Stan Reference Manual", chapter "Constraint Transforms".
       https://mc-stan.org/docs/reference-manual/transforms.html

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.AdaptiveLoss(alpha=sl.Learned(1.0, high=2.0), scale=sl.Learned(mx.ones(2)))
    >>> loss.parameters()["scale"]
    {'raw': array([0, 0], dtype=float32)}
    >>> loss.scale.value
    array([1, 1], dtype=float32)
    """

    def __init__(self, initial: Parameter, low: float = 0.0, high: float = math.inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.low, self.high = (
            Threshold(name, low=-math.inf).checked("Learned", bound, mx.float64)
            for name, bound in (("low", low), ("high", high))
        )
        if not -math.inf < self.low < self.high:
            raise ValueError(
                f"Learned: `low` is {low} and `high` {high}; expected a finite low below high. "
                f"For a threshold without bounds, pass an mx.array in place of Learned."
            )
        self.raw = self._inverse(initial)

    @property
    def value(self) -> mx.array:
        """The present value, strictly inside the bounds but for rounding."""
        if self.high == math.inf:
            return self.low + mx.exp(self.raw)
        return self.low + (self.high - self.low) * mx.sigmoid(self.raw)

    def __repr__(self) -> str:
        bounds = {"low": (self.low, 0.0), "high": (self.high, math.inf)}
        words = [f"{k}={now}" for k, (now, default) in bounds.items() if now != default]
        return f"Learned({', '.join([repr(self.value), *words])})"

    def _inverse(self, initial: object) -> mx.array:
        """Return the raw parameter of ``initial``, which is read: a start at a bound won't move."""
        spec = Threshold("initial", low=self.low, high=self.high)
        if not isinstance(initial, mx.array | np.ndarray):
            initial = mx.array(spec.checked("Learned", initial, mx.float64), mx.float32)
        array = _inputs.floating("Learned", "initial", initial)
        value = np.array(array.astype(mx.float64, stream=mx.cpu))
        if not ((self.low < value) & (value < self.high)).all():
            raise ValueError(
                f"Learned: `initial` is {initial}; expected values between {self.low:g} and "
                f"{self.high:g}. Start inside: at a bound nothing is learned."
            )
        raw = np.log(value - self.low)
        if self.high < math.inf:
            raw -= np.log(self.high - value)
        return mx.array(raw, array.dtype)
