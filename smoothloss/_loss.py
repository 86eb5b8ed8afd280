"""What a loss is: rho, its derivatives and its thresholds, written as formulas of the residual."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import mlx.core as mx
import numpy as np

Formula = Callable[..., mx.array]
"""``formula(r, *thresholds)``: elementwise, in the dtype of ``r``."""


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
    """A parameter of a loss, valid on the closed interval [low, high]."""

    name: str
    low: float = 0.0
    high: float = math.inf

    def checked(self, function: str, value: object) -> float:
        """``value`` as a float, or an error if it is no number of the interval."""
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
            raise TypeError(
                f"{function}: `{self.name}` is of type {type(value).__name__}; expected a real "
                f"number or an mx.array. Pass several values as mx.array([...])."
            )
        number = as_float(value)
        if not self.low <= number <= self.high:
            raise ValueError(
                f"{function}: `{self.name}` is {value}; expected a number in "
                f"[{self.low:g}, {self.high:g}]. Correct it before the call."
            )
        return number

    def poison(self, value: mx.array) -> mx.array:
        """0, but NaN outside the interval: arrays are never read, so they can't raise."""
        valid = value >= self.low
        if self.high < math.inf:
            valid = valid & (value <= self.high)
        return mx.where(valid, 0.0, mx.nan)


@dataclass(frozen=True, eq=False)
class Loss:
    """The record of one loss: rho(r, *thresholds) with hand-derived first and second derivatives.

    ``gradient`` holds psi = d rho/dr, then d rho/d threshold for each threshold; ``hessian`` holds
    the second derivatives in the same order, row by row.
    """

    rho: Formula
    gradient: tuple[Formula, ...]
    hessian: tuple[tuple[Formula, ...], ...]
    thresholds: tuple[Threshold, ...] = ()

    @functools.cached_property
    def kernel(self) -> Kernel:
        """Rho with the tree of its partial derivatives."""
        rows = [tuple(map(Kernel, row)) for row in self.hessian]
        return Kernel(self.rho, tuple(map(Kernel, self.gradient, rows)))
