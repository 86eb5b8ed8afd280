"""What the arguments of a term are, and the arguments by what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from .._threshold import Check


def compute_dtype(*dtypes: mx.Dtype) -> mx.Dtype:
    """float64 where one is float64, else float32: half types and integers are widened."""
    return mx.float64 if mx.float64 in dtypes else mx.float32


class Kind(NamedTuple):
    """What the arguments of a term are, beside their shapes.

    ``checks`` has one entry for each threshold: what is to be checked of an array, if anything, or,
    of a number, which is checked already and has no derivative, whether it is ordinary. With
    ``fixed``, nobody can ask for derivatives by arrays of thresholds and by weights. Without ``y``,
    x is the residual, of the dtype of the arithmetic. ``few`` says that the elements are few,
    computed in float32, and summed over all axes on the CPU, if at all.
    """

    x: mx.Dtype
    y: mx.Dtype | None = None
    checks: tuple[Check, ...] = ()
    factors: int = 0
    masked: bool = False
    fixed: bool = False
    few: bool = False


class Row(NamedTuple):
    """The arguments of a term by kind. A custom function takes them as a flat row of arrays."""

    data: Sequence[mx.array]
    thresholds: Sequence[mx.array]
    factors: Sequence[mx.array]
    mask: Sequence[mx.array]

    def flat(self, factors: Sequence[mx.array]) -> list[mx.array]:
        """The flat row, with these factors."""
        return [*self.data, *self.thresholds, *factors, *self.mask]

    def swapped(self, j: int, other: mx.array) -> list[mx.array]:
        """The factors with ``other`` in place of the j-th."""
        return [other, *self.factors[:j], *self.factors[j + 1 :]]
