"""What a loss is: rho, its derivatives and its thresholds, written as formulas of the residual."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TypeGuard

import mlx.core as mx
import numpy as np

Formula = Callable[..., mx.array]
"""``formula(r, *thresholds)``: elementwise, in the dtype of ``r``."""


def is_number(value: object) -> TypeGuard[Real]:
    """Whether ``value`` is a real number, as True and False are not meant to be."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def as_float(value: Real) -> float:
    """``value`` as a float; integers beyond the floats become infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A formula and its partial derivatives in ``(r, *thresholds)``.

    A kernel without partials is differentiated by MLX.
    """

    formula: Formula
    partials: tuple[Kernel, ...] = ()


@dataclass(frozen=True)
class Threshold:
    """A parameter of a loss, valid on the closed interval [low, high].

    One that is ``above`` 0 must be a normal number. ``of_residual`` tells those in the units of the
    residual from plain numbers.
    """

    name: str
    low: float = 0.0
    high: float = math.inf
    above: bool = False
    of_residual: bool = True

    @property
    def interval(self) -> str:
        """The valid values, as in [0, inf]."""
        return f"{'(' if self.above else '['}{self.low:g}, {self.high:g}]"

    def checked(self, function: str, value: object, dtype: mx.Dtype) -> float:
        """``value`` as a float, or an error if it is no number of the interval in ``dtype``."""
        if not is_number(value):
            named = f"Pass the reduction by keyword, as in reduction={value!r}."
            raise TypeError(
                f"{function}: `{self.name}` is of type {type(value).__name__}; expected a real "
                f"number or an array. "
                f"{named if isinstance(value, str) else 'Pass several values as mx.array([...]).'}"
            )
        number = as_float(value)
        if not self.low <= number <= self.high or (self.above and number == self.low):
            raise ValueError(
                f"{function}: `{self.name}` is {value}; expected a number in {self.interval}. "
                f"Correct it before the call."
            )
        if self.above and number < mx.finfo(dtype).smallest_normal:
            raise ValueError(
                f"{function}: `{self.name}` is {value}; expected a number that {dtype} holds. "
                f"Rescale the data."
            )
        return number

    def poison(self, value: mx.array) -> mx.array:
        """1, but NaN outside the interval: arrays are never read, so they can't raise."""
        least = float(mx.finfo(value.dtype).smallest_normal) if self.above else self.low
        valid = value >= mx.array(least, value.dtype)
        if self.high < math.inf:
            valid = valid & (value <= self.high)
        return mx.where(valid, 1.0, mx.nan)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What is claimed of a loss. The tests hold it to that, and the documentation prints it.

    Texts are Python expressions of ``r`` and the thresholds, for thresholds inside their interval.
    ``formula`` is the textbook's rho, which the tests evaluate at many digits; ``bound`` the
    supremum of abs(psi); ``least`` the value at r = 0, the minimum; ``kinks`` the residuals at
    which the derivative after the first ``smoothness`` jumps; ``degree`` the p of
    rho(k r, k theta) = k^p rho(r, theta), for thresholds of the residual's units; ``ulps`` bounds
    the errors of rho and psi in float32 and float64, for a residual that is rounded, and
    ``absolute`` what an approximation adds to that of rho; ``by_shape`` is the bound of derivatives
    in plain numbers, of which ``by_shape_absolute`` parts of their size come from an approximation;
    ``kernels`` bounds those of a compiled value-and-grad in float32.
    """

    formula: str
    bound: str
    ulps: tuple[str, str]
    use: str
    degree: int | None
    smoothness: float = math.inf
    kinks: tuple[str, ...] = ()
    convex: str = "True"
    even: str = "True"
    redescending: str = "False"
    least: str = "0"
    absolute: str = "0"
    by_shape: float = 4
    by_shape_absolute: float = 0
    kernels: int = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Loss:
    """The record of one loss: rho(r, *thresholds) with hand-derived first and second derivatives.

    ``gradient`` holds psi = d rho/dr, then d rho/d threshold for each threshold; ``hessian`` holds
    the second derivatives in the same order, row by row. ``weight`` is psi(r)/r, with its limit at
    r = 0.
    """

    rho: Formula
    gradient: tuple[Formula, ...]
    hessian: tuple[tuple[Formula, ...], ...]
    weight: Formula
    claims: Claims
    thresholds: tuple[Threshold, ...] = ()

    @functools.cached_property
    def kernel(self) -> Kernel:
        """Rho with the tree of its partial derivatives."""
        rows = [tuple(map(Kernel, row)) for row in self.hessian]
        return Kernel(self.rho, tuple(map(Kernel, self.gradient, rows)))

    @functools.cached_property
    def weight_kernel(self) -> Kernel:
        """The weight, which has no derivative by hand: iterative reweighting takes none."""
        return Kernel(self.weight)
