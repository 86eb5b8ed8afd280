"""What calls of one kind need, found out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from . import inputs
from .inputs import scalar
from .kernel import Kernel
from .kind import Kind
from .mean import count, inverse, unit, weighted_mean
from .sums import FEW, Axes, Elementwise, on_cpu
from .term import term
from .tracing import traced

if TYPE_CHECKING:
    from .._loss import Loss


class Plan:
    """The steps of a call, for arguments of these shapes and dtypes, and for these numbers.

    ``slots`` are what follows x and y in the row of a term: a number or, of an array, the place at
    which a call gives it.
    """

    def __init__(
        self,
        kernel: Kernel,
        kind: Kind,
        slots: Sequence[float | int],
        shape: tuple[int, ...],
        axes: Axes,
        reduction: str,
        dtype: mx.Dtype,
        compute: mx.Dtype,
    ) -> None:
        self.kernel, self.kind, self.slots, self.shape, self.axes = kernel, kind, slots, shape, axes
        self.dtype, self.compute = dtype, compute
        self.arrays = [place for place in slots if isinstance(place, int)]
        self.mean = reduction == "mean"
        self.result = dtype if reduction == "none" else compute
        self.over = None if reduction == "none" else axes
        self.rounded = self.result != dtype
        self.weighted = self.mean and kind.factors > 0
        self.masked = self.mean and kind.masked and not self.weighted
        self.count = float(math.prod(shape[a] for a in axes) or 1)
        self.integers = kind.y is None
        self.first_weight = (1 if self.integers else 2) + len(kind.checks)
        self.functions: dict[tuple[bool, bool], Elementwise] = {}

    def __call__(self, x: mx.array, y: mx.array, given: Sequence[Any]) -> mx.array:
        """The loss of x and y, and of the other arguments in the order of :func:`prepare`."""
        live = bool(self.arrays) and traced(*[given[place] for place in self.arrays])
        rules = live or traced(x, y)
        row = [
            scalar(slot, self.compute, rules) if isinstance(slot, float) else given[slot]
            for slot in self.slots
        ]
        row = [difference(x, y, self.compute), *row] if self.integers else [x, y, *row]
        function = self.functions.get((rules, live)) or self.function(rules, live)
        if self.weighted:
            weighting = row[self.first_weight :]
            one_over = inverse(weighting, self.shape, self.axes, self.kind, self.compute, live=live)
            out = function(*row, one_over)
        else:
            out = function(*row)
        if self.masked:
            out = out / count(row[-1], self.shape, self.axes, self.compute)
        elif self.mean and not self.weighted:
            out = out / scalar(self.count, self.compute, rules)
        # Reductions take the losses as computed; half types are rounded once, here.
        return out.astype(self.dtype) if self.rounded else out

    def function(self, rules: bool, live: bool) -> Elementwise:
        """The term, where a transform is under way (``rules``), and on more than x and y."""
        kind = self.kind._replace(fixed=not live)
        function = (
            weighted_mean(self.kernel, kind, self.compute, self.axes, traced=rules)
            if self.weighted
            else term(self.kernel, kind, self.result, self.over, traced=rules)
        )
        self.functions[rules, live] = function
        return function


def are_integers(x: mx.array, y: mx.array) -> bool:
    """Whether both are integers, of which the difference is exact."""
    return all(mx.issubdtype(v.dtype, mx.integer) for v in (x, y))


def residual(x: mx.array, y: mx.array, dtype: mx.Dtype) -> mx.array:
    """``x - y`` in the dtype of the arithmetic."""
    return difference(x, y, dtype) if are_integers(x, y) else x.astype(dtype) - y.astype(dtype)


def difference(x: mx.array, y: mx.array, dtype: mx.Dtype) -> mx.array:
    """The difference of integers, rounded once: they may have more digits than ``dtype``.

    That of integers of 64 bits may wrap round, by 2^64, which their rounded difference tells.
    """
    exact = (x.astype(mx.int64) - y.astype(mx.int64)).astype(dtype)
    if max(x.dtype.size, y.dtype.size) < 8:
        return exact
    rounded = x.astype(dtype) - y.astype(dtype)
    return exact + mx.round((rounded - exact) * 2.0**-64) * 2.0**64


def prepare(
    loss: Loss,
    name: str,
    data_names: tuple[str, str],
    x: Any,
    y: Any,
    reduction: Any,
    axis: Any,
    given: list[Any],
    make: type[Plan] = Plan,
) -> tuple[Plan, mx.array, mx.array]:
    """Check the arguments, and plan the call.

    ``given`` are thresholds, weights and mask. What is an array, but not of MLX, is made one there.
    ``make`` is the class of the plan.
    """
    *thresholds, weights, where = given
    loss, chosen = loss.member(thresholds)
    x, y, dtype, compute = inputs.data(name, data_names, x, y)
    shape = x.shape
    axes = inputs.axes(name, reduction, axis, len(shape))
    few = make is Plan and 0 < x.size <= FEW and axis is None and compute == mx.float32 and on_cpu()
    theta, checks = inputs.thresholds(name, loss.thresholds, chosen, shape, compute)
    # Arrays among the thresholds come in the order in which they were given.
    places = [i for i, v in enumerate(thresholds) if inputs.is_array(v)]
    row: list[tuple[float | mx.array, int]] = [
        (value, -1 if isinstance(value, float) else places.pop(0)) for value in theta
    ]
    factors = 0
    if weights is not None:
        checked = inputs.weighting(name, weights, shape, compute, reduction)
        row.append((checked, len(given) - 2))
        factors = 1
        if reduction == "mean" and not few:
            row.append((unit(shape), -1))
            factors = 2
    if where is not None:
        row.append((inputs.selection(name, where, shape), len(given) - 1))
    slots = [value if isinstance(value, float) else place for value, place in row]
    for value, place in row:
        if not isinstance(value, float):
            given[place] = value
    integers = are_integers(x, y)
    first, second = (compute, None) if integers else (x.dtype, y.dtype)
    kind = Kind(first, second, checks, factors, where is not None, few=few)
    return make(loss.kernel, kind, slots, shape, axes, reduction, dtype, compute), x, y
