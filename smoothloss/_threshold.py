"""A threshold of a loss: its name, default and valid interval."""

from __future__ import annotations

import enum
import keyword
import math
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias, TypeGuard

import mlx.core as mx
import numpy as np


def is_number(value: object) -> TypeGuard[Real]:
    """Whether ``value`` is a real number. True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def as_float(value: Real) -> float:
    """``value`` as a float; integers beyond the floats become infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


class NumberKind(enum.Enum):
    """What is known of a threshold that is a number, checked already."""

    ORDINARY = "above 0, normal in the dtype of the arithmetic, and finite"
    SPECIAL = "anything else"


_TINY = {dtype: float(mx.finfo(dtype).smallest_normal) for dtype in (mx.float32, mx.float64)}


def kind_of(number: float, dtype: mx.Dtype) -> NumberKind:
    """Whether a number is ordinary: formulas need no care then at the limits of thresholds."""
    return NumberKind.ORDINARY if _TINY[dtype] <= number < math.inf else NumberKind.SPECIAL


def _fix(value: object) -> str:
    """What to do about a threshold of a wrong type."""
    if isinstance(value, str) and value in ("none", "mean", "sum"):
        return f"Pass the reduction by keyword, as in reduction={value!r}."
    if isinstance(value, list | tuple):
        return "Pass several values as mx.array([...])."
    if hasattr(value, "raw"):  # Learned
        return "Pass its value, as in learned.value; only classes take it as it is."
    return "Pass a number such as 1.0, or leave it out for its default."


@dataclass(frozen=True)
class Threshold:
    """A threshold of a loss: a parameter such as ``delta`` that shapes rho.

    It is valid on the closed interval [low, high], or on (low, high] if ``open_low``.

    Parameters
    ----------
    name : str
        The argument's name.
    default : float, optional
        The value used where a caller gives none. Without one, callers must give a value.
    low, high : float, default 0.0 and inf
        The bounds of the valid interval, in the units of the threshold.
    open_low : bool, default False
        Whether ``low`` itself is invalid. Above 0, subnormal numbers are then invalid too.
    has_residual_units : bool, default True
        Whether the threshold has the units of the residual, as a scale has. A shape or a quantile
        is a plain number.
    learnable : bool, default False
        Whether the loss has a minimum in the threshold, so that :class:`Learned` finds it along
        with the model; a class warns where it has none. If it has residual units as well, it is
        kept above a hundredth of its initial value unless a lower bound is given.

    Raises
    ------
    ValueError
        If ``name`` is no valid argument name, low is above high, or the default is not valid.

    Notes
    -----
    A number outside the interval raises ValueError when the loss is called. The elements of an
    array are not inspected: where one is outside the interval, the loss and its gradients are NaN.

    Examples
    --------
    >>> import smoothloss as sl
    >>> sl.Threshold("quantile", default=0.5, high=1.0, has_residual_units=False).interval
    '[0, 1]'
    """

    name: str
    default: float | None = None
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    has_residual_units: bool = True
    learnable: bool = False

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and self.name.isidentifier()
        if not named or keyword.iskeyword(self.name):
            raise ValueError(
                f"Threshold: `name` is {self.name!r}; expected a valid name of an argument. "
                f"Use letters, digits and underscores, as in 'delta'."
            )
        if not self.low <= self.high:
            raise ValueError(
                f"Threshold: `low` is {self.low} and `high` is {self.high}; expected low <= high. "
                f"Swap them, or leave them out for [0, inf]."
            )
        if self.default is not None:
            try:
                self.checked("Threshold", self.default, mx.float32)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{error} It is the default of the threshold.") from None

    @property
    def interval(self) -> str:
        """The valid values as text, such as [0, inf]."""
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"

    def checked(self, function: str, value: object, dtype: mx.Dtype) -> float:
        """Return ``value`` as a float, or raise if it is no number of the interval in ``dtype``."""
        if type(value) is float:
            number = value
        elif is_number(value):
            number = as_float(value)
        else:
            raise TypeError(
                f"{function}: `{self.name}` is of type {type(value).__name__}; expected a real "
                f"number or an array. {_fix(value)}"
            )
        if not self.low <= number <= self.high or (self.open_low and number == self.low):
            raise ValueError(
                f"{function}: `{self.name}` is {value}; expected a number in {self.interval}. "
                f"Correct it before the call."
            )
        if self.open_low and self.low == 0 and number < _TINY[dtype]:
            raise ValueError(
                f"{function}: `{self.name}` is {value}; expected a number that {dtype} holds. "
                f"Rescale the data."
            )
        return number + 0.0  # -0.0 is 0.0

    def validity(self, value: mx.array) -> mx.array:
        """1 inside the interval and NaN outside: a factor that marks invalid elements."""
        if self.open_low and self.low == 0:
            valid = value >= mx.finfo(value.dtype).smallest_normal
        else:
            low = mx.array(self.low, value.dtype)
            valid = value > low if self.open_low else value >= low
        if self.high < math.inf:
            valid = valid & (value <= self.high)
        return mx.where(valid, 1.0, mx.nan)


Check: TypeAlias = Threshold | NumberKind | None
"""What is to be checked of the elements of an array, if anything, or is known of a number."""
