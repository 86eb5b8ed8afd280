"""The types of what callers pass. They are real unions, so they can be checked at run time too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import mlx.core as mx
import numpy as np

Reduction: TypeAlias = Literal["none", "mean", "sum"]
"""What a loss returns: one loss per element, their mean, or their sum."""

Array: TypeAlias = mx.array | np.ndarray[Any, np.dtype[Any]]
"""Data: an ``mx.array``, or a NumPy array, which is converted as ``mx.array`` converts it."""

Number: TypeAlias = float | int | np.floating[Any] | np.integer[Any]
"""A real number. ``int`` is listed because run-time checkers do not take it for a ``float``."""

Parameter: TypeAlias = Number | Array
"""A threshold or weights: a number, or an array that broadcasts to the data."""

Axis: TypeAlias = int | Sequence[int] | None
"""The axes that a loss is reduced over; None for all."""

Formula: TypeAlias = Callable[..., mx.array]
"""``formula(r, *thresholds)``: elementwise, in the dtype of the residual ``r``."""
