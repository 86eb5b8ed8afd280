r"""The mean of losses: their sum over the total weight of what was selected.

With weights w, their total W and the mean :math:`m = \sum_i w_i \rho_i / W`,

.. math:: \frac{\partial m}{\partial \rho_i} = \frac{w_i}W \qquad
          \frac{\partial m}{\partial w_i} = \frac{\rho_i - m}W

The second is a term of the *centred* kernel :math:`\rho - m`. MLX would take it for the difference
of :math:`\rho_i / W` and :math:`\sum w\rho / W^2`, which are rounded, and summed, each by itself.

Weights are multiplied by a *unit*, a power of two that is at most one over their number, so that
neither sum overflows. Few are summed in float64 instead.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from .kernel import Kernel
from .kind import Kind
from .rules import made_once, with_rules
from .shapes import batch_first, data_shape, largest_rank, spread, widened
from .sums import Axes, Elementwise, sum_over, summed_in_kernel
from .term import Term, by_rules, pulled_back, term


def unit(shape: Sequence[int]) -> float:
    """What weights of data of this shape are multiplied by."""
    return 2.0 ** -math.ceil(math.log2(max(1, math.prod(shape))))


def count(mask: mx.array, shape: tuple[int, ...], axes: Axes, dtype: mx.Dtype) -> mx.array:
    """How many elements a mask selects along ``axes``, at least 1."""
    mask = _of_rank(mask, shape)
    own, repeats, kept = _shares(shape, axes, mask.shape)
    out = sum_over(mask, own).reshape(kept).astype(dtype)
    return mx.maximum(out if repeats == 1 else out * repeats, 1)


def sum_of_weights(
    weights: mx.array, mask: mx.array | None, shape: tuple[int, ...], axes: Axes
) -> mx.array:
    """The total of weights over ``axes``, in the dtype of the weights."""
    # With a unit: MLX calls the rules of a function of one argument in another way.
    row = [weights, mx.ones([1] * len(shape), weights.dtype), *([] if mask is None else [mask])]
    given = [_of_rank(v, shape) for v in row]
    own, repeats, kept = _shares(shape, axes, *(v.shape for v in given))
    return sum_of_selected(own, weights.dtype)(*given).reshape(kept) * repeats


def inverse(
    row: Sequence[mx.array],
    shape: tuple[int, ...],
    axes: Axes,
    kind: Kind,
    dtype: mx.Dtype,
    *,
    live: bool,
) -> mx.array:
    """One over the total, over ``axes``, of weights, unit and mask; 0 if the total is.

    The row has weights, a unit unless the elements are few, and a mask if there is one. ``live``
    says whether a transform may be under way on them.
    """
    given = [_of_rank(v, shape) for v in row]
    own, repeats, kept = _shares(shape, axes, *(v.shape for v in given))
    if repeats == 0:
        return mx.zeros(kept, dtype)
    if kind.few and not (live and kind.masked):  # MLX's own adjoint sums nothing here
        total = selected(dtype)(*given).astype(mx.float64).sum(own)
    elif not live:
        total = summed_in_kernel(selected(dtype), given, own)
    else:
        total = sum_of_selected(own, mx.float64 if kind.few else dtype)(*given)
    total = total.reshape(kept)
    if repeats != 1:
        total = total * repeats
    return careful_one_over(total) if live and total.dtype != mx.float64 else one_over(total)


def one_over(total: mx.array) -> mx.array:
    """The inverse, but 0 with zero derivatives at 0."""
    some = total != 0
    return mx.where(some, 1 / mx.where(some, total, 1), 0)


def careful_one_over(total: mx.array) -> mx.array:
    """:func:`one_over`, with a derivative that is finite where the square of the inverse is not."""
    return _careful_one_over()(total)


@made_once
def _careful_one_over() -> Elementwise:
    def vjp(total: mx.array, cotangent: mx.array, out: mx.array) -> mx.array:
        return -(cotangent * out) * out

    def jvp(total: mx.array, tangent: mx.array) -> mx.array:
        return vjp(total, tangent, careful_one_over(total))

    def vmap(total: mx.array, axis: int) -> tuple[mx.array, int]:
        return careful_one_over(total), axis

    return with_rules(one_over, vjp, jvp, vmap)


def _of_rank(v: mx.array, shape: Sequence[int]) -> mx.array:
    return v if v.ndim else v.reshape([1] * len(shape))


@functools.lru_cache(maxsize=512)
def _shares(
    shape: tuple[int, ...], axes: Axes, *given: tuple[int, ...]
) -> tuple[Axes, float, list[int]]:
    """The axes to sum over, how often each of the sums is counted, and what shape remains.

    What is shared along an axis is summed once, and counted as often.
    """
    joint = mx.broadcast_shapes(*given)
    own = tuple(a for a in axes if joint[a] == shape[a])
    repeats = math.prod(shape[a] for a in axes if joint[a] != shape[a])
    return own, float(repeats), [n for a, n in enumerate(joint) if a not in axes]


def selected(dtype: mx.Dtype) -> Elementwise:
    """The function ``(weights, *unit, *mask)`` that keeps the selected weights, in the unit."""

    def keep(weights: mx.array, *rest: mx.array) -> mx.array:
        out = weights.astype(dtype)
        for v in rest:
            out = mx.where(v, out, 0) if v.dtype == mx.bool_ else out * v
        return out

    return keep


@made_once
def sum_of_selected(axes: Axes, dtype: mx.Dtype) -> Elementwise:
    """The function ``(weights, *unit, *mask)`` that sums the selected weights over ``axes``.

    It is linear in the weights, and its adjoint is a sum of the same kind: the cotangent, where it
    is selected, summed over the axes along which the weights were broadcast. MLX's own adjoint
    would sum these plainly, in float32.
    """

    def value(*row: mx.array) -> mx.array:
        return summed_in_kernel(selected(dtype), row, axes)

    def vjp(row: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        weights, *rest = row
        shape = data_shape(row)
        cotangent = mx.broadcast_to(spread(cotangent, axes), shape)
        adjoint = sum_of_selected(widened(weights.shape, shape), dtype)
        by_weights = adjoint(cotangent, *rest)
        return (by_weights.reshape(weights.shape).astype(weights.dtype), *map(mx.zeros_like, rest))

    def jvp(row: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        weights, *rest = row
        tangent = mx.zeros_like(weights) if tangents[0] is None else tangents[0]
        return sum_of_selected(axes, dtype)(tangent, *rest)

    def vmap(row: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        inner = tuple(a + 1 for a in axes)
        return sum_of_selected(inner, dtype)(*batch_first(row, batch)), 0

    return with_rules(value, vjp, jvp, vmap)


class WeightedMean:
    """The function ``(x, y, *thresholds, weights, *unit, *mask, inverse)`` and its derivatives.

    The inverse of the total is an argument, so that it is computed once. It has no derivative here:
    that by the weights holds it already. Few elements are summed in float64, without a unit.
    """

    def __init__(self, kernel: Kernel, kind: Kind, dtype: mx.Dtype, axes: Axes) -> None:
        self.kernel, self.kind, self.dtype, self.axes = kernel, kind, dtype, axes
        self.sum = Term(kernel, kind, dtype, axes, 0)
        self.sum.live = 0
        self.place = self.sum.first_factor  # of the weights
        self.centred = centred(kernel)

    def function(self) -> Elementwise:
        """The mean as a function that MLX differentiates by the rules below."""
        return by_rules(self.kernel, self.value, self.vjp, self.jvp, self.vmap)

    def value(self, *row: mx.array) -> mx.array:
        """The mean."""
        *flat, inverse = row
        if self.kind.few:
            losses = self.sum.elementwise(*flat).astype(mx.float64)
            return (losses.sum(self.axes) * inverse).astype(self.dtype)
        return self.sum.value(*flat) * inverse

    def by_weights(
        self, row: Sequence[mx.array], mean: mx.array, factor: mx.array, primal: mx.array | None
    ) -> mx.array:
        """The centred losses times a factor, summed to the shape of ``primal`` or over the axes."""
        *flat, _ = row
        arguments = [*flat[: self.place], spread(mean, self.axes), factor, *flat[self.place + 1 :]]
        kind = self.kind._replace(checks=(*self.kind.checks, None))

        def function(dtype: mx.Dtype, axes: Axes | None) -> Elementwise:
            return term(self.centred, kind, dtype, axes, 1)

        if primal is None:
            return function(self.dtype, self.axes)(*arguments)
        return pulled_back(primal, data_shape(flat), self.dtype, function, arguments)

    def vjp(
        self, row: Sequence[mx.array], cotangent: mx.array, mean: mx.array
    ) -> tuple[mx.array, ...]:
        """The cotangents of all arguments."""
        *flat, inverse = row
        scale = (cotangent * inverse).astype(self.dtype)
        found = list(self.sum.vjp(flat, scale, mean))
        if not self.kind.fixed:
            weights = flat[self.place]
            found[self.place] = self.by_weights(row, mean, spread(scale, self.axes), weights)
        return (*found, mx.zeros_like(inverse))

    def jvp(self, row: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        """The tangent of the mean."""
        *flat, inverse = row
        by_row = list(tangents[:-1])
        by_weights, by_row[self.place] = by_row[self.place], None
        out = self.sum.jvp(flat, by_row)
        if by_weights is not None:
            out = out + self.by_weights(row, self.value(*row), by_weights, None)
        return (out * inverse).astype(self.dtype)

    def vmap(self, row: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        """The means of a batch, whose axis is the first of the result."""
        *flat, inverse = row
        *axes, of_inverse = batch
        rank = largest_rank(flat, axes) - len(self.axes)
        (inverse,) = batch_first([inverse], [of_inverse], rank)
        inner = tuple(a + 1 for a in self.axes)
        batched = weighted_mean(self.kernel, self.kind, self.dtype, inner)
        return batched(*batch_first(flat, axes), inverse), 0


def weighted_mean(
    kernel: Kernel, kind: Kind, dtype: mx.Dtype, axes: Axes, *, traced: bool = True
) -> Elementwise:
    """The function of a :class:`WeightedMean`, built once as :func:`term` builds its own."""
    key = (WeightedMean, kind, dtype, axes, traced, mx.default_device().type)
    if key not in kernel.terms:
        made = WeightedMean(kernel, kind, dtype, axes)
        kernel.terms[key] = made.function() if traced else made.value
    return cast(Elementwise, kernel.terms[key])


def centred(kernel: Kernel) -> Kernel:
    """The kernel less a last argument, the mean."""

    def formula(r: mx.array, *row: mx.array) -> mx.array:
        return kernel.formula(r, *row[:-1]) - row[-1]

    by_mean = Kernel(lambda r, *_: -mx.ones_like(r))
    partials = (*map(_ignoring, kernel.partials), by_mean) if kernel.partials else ()
    return Kernel(formula, partials)


def _ignoring(kernel: Kernel) -> Kernel:
    """The kernel with a last argument that it ignores."""
    by_mean = Kernel(lambda r, *_: mx.zeros_like(r))
    partials = (*map(_ignoring, kernel.partials), by_mean) if kernel.partials else ()
    return Kernel(lambda *row: kernel.formula(*row[:-1]), partials)
