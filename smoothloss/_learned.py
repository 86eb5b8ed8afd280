"""A threshold that an optimizer may move freely, and that still stays valid."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import cast

import mlx.core as mx
import numpy as np

from ._engine import inputs
from ._engine.kind import compute_dtype
from ._engine.rules import made_once, with_rules
from ._engine.shapes import alone
from ._exportable import active
from ._frozen import PartlyFrozen
from ._threshold import as_float, is_number
from ._types import Parameter

FAR = 80.0  # where e^t and e^-t are still normal in float32, with room for a factor
NEAR_ONE = 16.0  # where 1 / (1 + e^-t) is just below 1 in float32
LARGEST = float(mx.finfo(mx.float32).max)
FLOOR = 0.01  # of the initial value


@made_once
def between(low: float, high: float, plain: bool = False) -> Callable[[mx.array], mx.array]:
    """The function that takes any real number into an interval; ``plain`` leaves MLX the slope.

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

    if plain:
        return value
    return with_rules(
        value,
        vjp=lambda raw, cotangent, _: cotangent * slope(raw),
        jvp=lambda raw, tangent: tangent * slope(raw),
        vmap=lambda raw, axis: (between(low, high)(raw), axis),
    )


class Learned(PartlyFrozen):
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
        The bounds, in the same units; low is finite. As the scale of :class:`AdaptiveLoss`, low is
        by default a hundredth of ``initial`` (of its least element).

    Attributes
    ----------
    value : mx.array
        The present value, of the shape of ``initial``, in float32 (float64 if ``initial`` is).
    raw : mx.array
        The trained parameter, of that shape and dtype.
    bounds : mx.array
        The bounds, which are saved with ``raw`` and never trained.

    Raises
    ------
    TypeError
        If a bound is no number, or ``initial`` neither a number nor a real, floating array.
    ValueError
        If low is not finite or not below high, if an element of ``initial`` is not between them, or
        if it can't be read, inside ``mx.compile``; when weights are loaded that were saved with
        other bounds.

    Notes
    -----
    ``initial - low`` comes back as ``value - low`` within 1e-5 relative, but for rounding. Unlike
    the arrays of a loss, ``initial`` is read: at a bound nothing would be learned. A loss takes
    only a range in which its threshold is valid. NaN in ``raw`` gives NaN. Weight decay pulls t to
    0, that is v to low + 1 or to the middle of the range: leave thresholds out of it.

    :func:`adaptive_loss` has a minimum in alpha and scale, unless the model fits the data exactly:
    then the scale falls to its lower bound, a hundredth of its initial value. So start near the
    size of the residuals, or give low (low=0 is no bound). As the scale c falls, the slopes of the
    model grow as :math:`1/c`, or :math:`1/c^2` near alpha = 2: Adam makes up for it, SGD needs a
    learning rate below :math:`c^2`.

    The other losses have no minimum in their thresholds: training takes delta of
    :func:`huber_loss` to 0 and beta of :func:`smooth_l1_loss` to infinity. Learn those against
    another loss, as that of validation data. A class warns of it.

    References
    ----------
    .. [1] Stan Development Team, "Stan Reference Manual", chapter "Constraint Transforms".
       https://mc-stan.org/docs/reference-manual/transforms.html

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> loss = sl.AdaptiveLoss(alpha=sl.Learned(1.0, high=2.0), scale=sl.Learned(mx.ones(2)))
    >>> loss.trainable_parameters()["alpha"]
    {'raw': array(0, dtype=float32)}
    >>> loss.scale.value
    array([1, 1], dtype=float32)
    >>> loss.scale.low
    0.01
    """

    def __init__(
        self, initial: Parameter, low: float | None = None, high: float = math.inf
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._low_is_given = low is not None
        low = 0.0 if low is None else low
        for name, bound in (("low", low), ("high", high)):
            if not is_number(bound):
                raise TypeError(
                    f"Learned: `{name}` is of type {type(bound).__name__}; expected a number. "
                    f"Pass one range for all elements."
                )
        self._set_bounds(_held("low", low), _held("high", high))
        self.raw = self._inverse(initial)

    def _set_bounds(self, low: float, high: float) -> None:
        width = high - low
        if not width > 0 or abs(low) > LARGEST or LARGEST < width < math.inf:
            raise ValueError(
                f"Learned: `low` is {low} and `high` {high}; expected a finite low below high, in "
                f"float32. For a threshold that is not learned, pass a number or an array."
            )
        self.low, self.high = low, high
        super().__setitem__("bounds", mx.array([low, high], mx.float32))

    def _lift(self) -> None:
        """Keep the value above a part of the initial one, unless low was given."""
        if not self._low_is_given:
            value = self.value
            self._low_is_given = True
            self._set_bounds(FLOOR * cast(float, mx.min(value).item()), self.high)
            self.raw = self._inverse(value)

    def _always_frozen(self) -> set[str]:
        return {"bounds"}

    def __setitem__(self, name: str, value: mx.array) -> None:
        """Set an array, as ``update`` and ``load_weights`` do; the bounds are only compared."""
        if name != "bounds" or name not in self:
            return super().__setitem__(name, value)
        own = self["bounds"]
        near = 2 * mx.finfo(value.dtype).eps  # they may have been cast, or averaged
        try:
            same = mx.allclose(value, own.astype(value.dtype), near, 0).item()
        except ValueError:  # traced by mx.compile
            return None
        if not same:
            low, high = np.array(value.astype(mx.float32))  # prints as few digits as tell it
            cure = f"low={low!s}" + (f", high={high!s}" if high < math.inf else "")
            raise ValueError(
                f"Learned: `bounds` are ({low:g}, {high:g}) in what is loaded; expected those of "
                f"this one, ({self.low:g}, {self.high:g}). Make it with Learned(..., {cure})."
            )
        return None

    @property
    def value(self) -> mx.array:
        """The present value, between the bounds."""
        return between(self.low, self.high, active())(
            self.raw.astype(compute_dtype(self.raw.dtype))
        )

    def __repr__(self) -> str:
        low = f", low={self.low}" if self._low_is_given else ""
        high = f", high={self.high}" if self.high < math.inf else ""
        return f"Learned({self.value!r}{low}{high})"

    def _inverse(self, initial: object) -> mx.array:
        """Return the raw parameter whose value is ``initial``."""
        if is_number(initial):
            initial = mx.array(_held("initial", initial), mx.float32)
        v = inputs.floating("Learned", "initial", initial)
        v = v.astype(compute_dtype(v.dtype))
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


def _held(name: str, value: object) -> float:
    """A number as a float, or raise if it is beyond the floats."""
    number = as_float(cast(Real, value))
    if math.isinf(number) and value != number:
        raise ValueError(
            f"Learned: `{name}` is beyond the floats; expected a number that float32 holds. "
            f"Rescale the data, or leave out `high` for no upper bound."
        )
    return number
