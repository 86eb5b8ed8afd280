"""A threshold that an optimizer may move freely, and that still stays valid."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx
from mlx.nn.layers.base import Module

from ._engine import inputs
from ._engine.shapes import alone
from ._engine.term import compute_dtype
from ._threshold import is_number
from ._types import Parameter

FAR = 80.0  # where e^t and e^-t are still normal in float32, with room for a factor
NEAR_ONE = 16.0  # where 1 / (1 + e^-t) is just below 1 in float32
LARGEST = float(mx.finfo(mx.float32).max)


@functools.cache
def between(low: float, high: float) -> Callable[[mx.array], mx.array]:
    """The function that takes any real number into an interval.

    With s = 1/(1 + e^-t), its derivative is e^t, or (high - low) s (1 - s). Both are made of single
    operations, for which no kernel is compiled.
    """
    most = FAR if high == math.inf else NEAR_ONE

    def clipped(raw: mx.array) -> mx.array:
        return alone(mx.minimum(most, alone(mx.maximum(-FAR, raw))))

    def value(raw: mx.array) -> mx.array:
        if high == math.inf:
            return low + alone(mx.exp(clipped(raw)))
        return low + alone((high - low) * alone(mx.sigmoid(clipped(raw))))

    def slope(raw: mx.array) -> mx.array:
        inside = alone(alone(raw > -FAR) & alone(raw < most))
        if high == math.inf:
            rise = mx.exp(clipped(raw))
        else:
            s = alone(mx.sigmoid(clipped(raw)))
            rise = (high - low) * alone(s * alone(1 - s))
        return alone(mx.where(inside, alone(rise), 0))

    custom = mx.custom_function(value)
    custom.vjp(lambda raw, cotangent, _: cotangent * slope(raw))
    custom.jvp(lambda raw, tangent: tangent * slope(raw))
    custom.vmap(lambda raw, axis: (custom(raw), axis))
    return cast(Callable[[mx.array], mx.array], custom)


class Learned(Module):
    r"""A threshold that is learned, inside an open interval.

    The trained parameter, ``raw``, is any real number t; the value is

    .. math:: v = \begin{cases} \text{low} + e^t & \text{high} = \infty \\
              \text{low} + (\text{high} - \text{low}) / (1 + e^{-t}) & \text{otherwise}
              \end{cases}

    so a step of an optimizer multiplies a scale, whatever its units. Near low, :math:`v -
    \text{low}` is :math:`e^t` (times the range). In the tails t is clipped, to 80 either way and,
    below a finite high, to 16: v stays finite and valid, and learns no more.

    Parameters
    ----------
    initial : float or mx.array
        Where learning starts, in the units of the threshold; strictly between low and high. Each
        element of an array is learned on its own.
    low, high : float, default 0.0 and inf
        The bounds, in the same units; low is finite.

    Attributes
    ----------
    value : mx.array
        The present value, of the shape of ``initial``, in float32 (float64 if ``initial`` is).
    raw : mx.array
        The trained parameter, of that shape and dtype.

    Raises
    ------
    TypeError
        If a bound is no number, or ``initial`` neither a number nor a real, floating array.
    ValueError
        If low is not finite or not below high, if an element of ``initial`` is not between them, or
        if it can't be read, inside ``mx.compile``.

    Notes
    -----
    ``initial - low`` comes back as ``value - low`` within 1e-5 relative, but for rounding. Unlike
    the arrays of a loss, ``initial`` is read: at a bound nothing would be learned. A loss takes
    only a range in which its threshold is valid. NaN in ``raw`` gives NaN. Weight decay pulls t to
    0, that is v to low + 1 or to the middle of the range: leave thresholds out of it.

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
        for name, bound in (("low", low), ("high", high)):
            if not is_number(bound):
                raise TypeError(
                    f"Learned: `{name}` is of type {type(bound).__name__}; expected a number. "
                    f"Pass one range for all elements."
                )
        self.low, self.high = float(low), float(high)
        width = self.high - self.low
        if not width > 0 or abs(self.low) > LARGEST or LARGEST < width < math.inf:
            raise ValueError(
                f"Learned: `low` is {low} and `high` {high}; expected a finite low below high, in "
                f"float32. For a threshold without bounds, pass an mx.array in place of Learned."
            )
        self.raw = self._inverse(initial)

    @property
    def value(self) -> mx.array:
        """The present value, between the bounds."""
        return between(self.low, self.high)(self.raw.astype(compute_dtype(self.raw)))

    def __repr__(self) -> str:
        bounds = {"low": (self.low, 0.0), "high": (self.high, math.inf)}
        words = [f"{k}={now}" for k, (now, default) in bounds.items() if now != default]
        return f"Learned({', '.join([repr(self.value), *words])})"

    def _inverse(self, initial: object) -> mx.array:
        """Return the raw parameter whose value is ``initial``."""
        if is_number(initial):
            initial = mx.array(float(initial), mx.float32)
        v = inputs.floating("Learned", "initial", initial)
        v = v.astype(compute_dtype(v))
        raw, most = mx.log(v - self.low), FAR
        if self.high < math.inf:
            raw, most = raw - mx.log(self.high - v), NEAR_ONE
        try:
            inside = mx.all((raw >= -FAR) & (raw <= most)).item()
        except ValueError:
            raise ValueError(
                "Learned: `initial` is traced; expected values that can be read. Make the module "
                "outside of mx.compile and mx.vmap, and pass it in."
            ) from None
        if not inside:
            raise ValueError(
                f"Learned: `initial` is {initial}; expected values between {self.low:g} and "
                f"{self.high:g} that float32 tells from them. Start farther inside: at a bound "
                f"nothing is learned."
            )
        return raw
