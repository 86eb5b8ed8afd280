r"""The mean of losses: their sum over the total weight of what was selected.

With weights w, their total W and the mean :math:`m = \sum_i w_i \rho_i / W`,

.. math:: \frac{\partial m}{\partial \rho_i} = \frac{w_i}W \qquad
          \frac{\partial m}{\partial w_i} = \frac{\rho_i - m}W

The second is a term of the *centred* kernel :math:`\rho - m`. MLX would take it for the difference
of :math:`\rho_i / W` and :math:`\sum w\rho / W^2`, which are rounded, and summed, each by itself.

Weights are multiplied by a *unit*, a power of two that is at most one over their number, so that
neither sum overflows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from .kernel import Kernel
from .shapes import batch_first, data_shape, largest_rank, spread, widened
from .sums import Axes, Elementwise, sum_over, summed_in_kernel
from .term import Kind, Term, pulled_back, term


def unit(shape: Sequence[int]) -> float:
    """What weights of data of this shape are multiplied by."""
    return 2.0 ** -math.ceil(math.log2(max(1, math.prod(shape))))


def ratio(out: mx.array, total: mx.array) -> mx.array:
    """``out / total``, but 0 with zero derivatives over nothing, where NaN still shows."""
    some = total != 0
    return out * some / mx.where(some, total, 1)


def total(
    row: Sequence[mx.array], shape: tuple[int, ...], axes: Axes, dtype: mx.Dtype, *, live: bool
) -> mx.array:
    """The sum over ``axes`` of a mask, or of weights, unit and, if any, mask, over data of a shape.

    ``live`` says whether a transform is under way on the weights.
    """
    given = [v if v.ndim else v.reshape([1] * len(shape)) for v in row]
    own, repeats, kept = _shares(shape, axes, *(v.shape for v in given))
    if repeats == 0:
        return mx.zeros(kept, dtype)
    if len(given) == 1:
        out = sum_over(given[0], own)
    elif live:
        out = sum_of_selected(own, dtype)(*given)
    else:
        out = summed_in_kernel(selected(dtype), given, own)
    out = out.reshape(kept).astype(dtype)
    return out if repeats == 1 else out * repeats


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
    """The function ``(weights, unit, *mask)`` that keeps the selected weights, in the unit."""

    def keep(weights: mx.array, unit: mx.array, *mask: mx.array) -> mx.array:
        out = weights.astype(dtype) * unit
        return mx.where(mask[0], out, 0) if mask else out

    return keep


@functools.cache
def sum_of_selected(axes: Axes, dtype: mx.Dtype) -> Elementwise:
    """The function ``(weights, unit, *mask)`` that sums the selected weights over ``axes``.

    It is linear in the weights, and its adjoint is a sum of the same kind: the cotangent, where it
    is selected, summed over the axes along which the weights were broadcast. MLX's own adjoint
    would sum these plainly, in float32.
    """
    custom = mx.custom_function(lambda *row: summed_in_kernel(selected(dtype), row, axes))

    @custom.vjp
    def vjp(row: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        weights, unit, *mask = row
        shape = data_shape(row)
        cotangent = mx.broadcast_to(spread(cotangent, axes), shape) if mask else cotangent
        if mask:
            adjoint = sum_of_selected(widened(weights.shape, shape), dtype)
            by_weights = adjoint(cotangent, unit, mx.broadcast_to(mask[0], shape))
        else:
            by_weights = mx.broadcast_to(spread(cotangent, axes) * unit, shape)
        by_weights = by_weights.reshape(weights.shape).astype(weights.dtype)
        return (by_weights, mx.zeros_like(unit), *map(mx.zeros_like, mask))

    @custom.jvp
    def jvp(row: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        weights, *rest = row
        tangent = mx.zeros_like(weights) if tangents[0] is None else tangents[0]
        return sum_of_selected(axes, dtype)(tangent, *rest)

    @custom.vmap
    def vmap(row: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        inner = tuple(a + 1 for a in axes)
        return sum_of_selected(inner, dtype)(*batch_first(row, batch)), 0

    return cast(Elementwise, custom)


class WeightedMean:
    """The function ``(x, y, *thresholds, weights, unit, *mask, total)`` and its derivatives.

    The total, of the weights in the unit, is an argument, so that it is summed once. It has no
    derivative here: that by the weights holds it already.
    """

    def __init__(self, kernel: Kernel, kind: Kind, dtype: mx.Dtype, axes: Axes) -> None:
        self.kernel, self.kind, self.dtype, self.axes = kernel, kind, dtype, axes
        self.sum = Term(kernel, kind, dtype, axes, 0)
        self.sum.live = 0
        self.place = self.sum.first_factor  # of the weights
        self.centred = centred(kernel)

    def function(self) -> Elementwise:
        """The mean as a function that MLX differentiates by the rules below."""
        if not self.kernel.partials:
            return self.value
        custom = mx.custom_function(self.value)
        custom.vjp(self.vjp)
        custom.jvp(self.jvp)
        custom.vmap(self.vmap)
        return cast(Elementwise, custom)

    def value(self, *row: mx.array) -> mx.array:
        """The mean."""
        return ratio(self.sum.value(*row[:-1]), row[-1])

    def by_weights(
        self, row: Sequence[mx.array], mean: mx.array, factor: mx.array, primal: mx.array | None
    ) -> mx.array:
        """The centred losses times a factor, summed to the shape of ``primal`` or over the axes."""
        *flat, _ = row
        arguments = [*flat[: self.place], spread(mean, self.axes), factor, *flat[self.place + 1 :]]
        kind = self.kind._replace(checks=(*self.kind.checks, None), fixed=False)

        def function(dtype: mx.Dtype, axes: Axes | None) -> Elementwise:
            return term(self.centred, kind, dtype, axes, 1)

        if primal is None:
            return function(self.dtype, self.axes)(*arguments)
        return pulled_back(primal, data_shape(flat), self.dtype, function, arguments)

    def vjp(
        self, row: Sequence[mx.array], cotangent: mx.array, mean: mx.array
    ) -> tuple[mx.array, ...]:
        """The cotangents of all arguments."""
        *flat, total = row
        scale = ratio(cotangent, total)
        found = list(self.sum.vjp(flat, scale, mean))
        weights = flat[self.place]
        found[self.place] = self.by_weights(row, mean, spread(scale, self.axes), weights)
        return (*found, mx.zeros_like(total))

    def jvp(self, row: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        """The tangent of the mean."""
        *flat, total = row
        by_row = list(tangents[:-1])
        by_weights, by_row[self.place] = by_row[self.place], None
        out = self.sum.jvp(flat, by_row)
        if by_weights is not None:
            out = out + self.by_weights(row, self.value(*row), by_weights, None)
        return ratio(out, total)

    def vmap(self, row: Sequence[mx.array], batch: Sequence[int | None]) -> tuple[mx.array, int]:
        """The means of a batch, whose axis is the first of the result."""
        *flat, total = row
        *axes, of_total = batch
        rank = largest_rank(flat, axes) - len(self.axes)
        (total,) = batch_first([total], [of_total], rank)
        inner = tuple(a + 1 for a in self.axes)
        batched = weighted_mean(self.kernel, self.kind._replace(few=False), self.dtype, inner)
        return batched(*batch_first(flat, axes), total), 0


def weighted_mean(kernel: Kernel, kind: Kind, dtype: mx.Dtype, axes: Axes) -> Elementwise:
    """The function of a :class:`WeightedMean`, built once for each kernel and kind of call."""
    key = (WeightedMean, kind, dtype, axes)
    if key not in kernel.terms:
        kernel.terms[key] = WeightedMean(kernel, kind, dtype, axes).function()
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
