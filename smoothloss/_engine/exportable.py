r"""Losses of MLX's own operations, which it can export and compile for changing shapes.

With :math:`v_0` the argument v without its gradient, and :math:`d = v - v_0`, which is 0, the form

.. math:: f(v_0) + \sum_i d_i \Big(f_i(v_0) + \tfrac12 \sum_j d_j f_{ij}(v_0)\Big)

has the value f, and MLX differentiates it into the first and second derivatives that a loss gives.

A shape that Python reads here is that of the trace. So it may choose between forms that hold for
every shape, but never enter the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from .._threshold import Check, NumberKind, Threshold
from .inputs import scalar
from .kernel import Kernel
from .mean import one_over, selected
from .plan import Plan, residual
from .shapes import apart
from .sums import Axes, on_cpu
from .validation import as_elementwise


class ExportablePlan(Plan):
    """The steps of a call inside ``exportable()``."""

    def __call__(self, x: mx.array, y: mx.array, given: Sequence[Any]) -> mx.array:
        """The loss of x and y, and of the other arguments in the order of ``prepare``."""
        kind, compute = self.kind, self.compute
        row = [
            scalar(slot, compute, True) if isinstance(slot, float) else given[slot]
            for slot in self.slots
        ]
        n, end = len(kind.checks), len(kind.checks) + kind.factors
        thetas, factors, mask = row[:n], row[n:end], row[end:]
        # Apart, since what forward and backward share is written once: all the rest reads that.
        r = apart(residual(x, y, compute))
        out = losses(self.kernel, r, thetas, kind.checks, mask)
        if self.over is not None and on_cpu():
            # Where float32 is summed in sequence. A trace keeps its device, in a file too.
            out = out.astype(mx.float64)
        weights = selected(out.dtype)(*factors, *mask) if factors else None
        if weights is not None:
            out = weights * out
        if mask:
            out = mx.where(mask[0], out, 0)
        if self.over is not None:
            out = self.reduced(out, weights, mask)
        return out.astype(self.dtype)

    def reduced(
        self, out: mx.array, weights: mx.array | None, mask: Sequence[mx.array]
    ) -> mx.array:
        """The sum or mean of losses, of which all is counted when the trace is run."""
        if self.mean and weights is not None:
            total = summed(mx.broadcast_arrays(weights, out)[0], self.axes)
            return summed(out, self.axes) * one_over(total)
        if self.mean and mask:
            total = summed(mx.broadcast_arrays(mask[0], out)[0], self.axes)
            return summed(out, self.axes) / mx.maximum(total, 1).astype(out.dtype)
        return summed(out, self.axes, mean=self.mean)


def summed(x: mx.array, axes: Axes, *, mean: bool = False) -> mx.array:
    """The sum or mean over axes, whose lengths may change when a trace is run again."""
    reduce = mx.mean if mean else mx.sum
    if not axes or len(axes) == x.ndim or any(x.shape[a] != 1 for a in axes):
        return reduce(x, axes)
    # MLX 0.32.4 drops the sum over axes of length 1 from the trace, and fails at other lengths.
    twice = mx.broadcast_arrays(mx.expand_dims(x, 0), mx.zeros([2] + [1] * x.ndim))[0]
    out = reduce(twice, (0, *(a + 1 for a in axes)))
    return out if mean else out / 2


def losses(
    kernel: Kernel,
    r: mx.array,
    thetas: Sequence[mx.array],
    checks: Sequence[Check],
    mask: Sequence[mx.array] = (),
) -> mx.array:
    """The kernel of each residual, NaN where a threshold is not valid.

    What the mask leaves out is replaced by what has finite derivatives, since MLX multiplies them
    by 0; the result there is to be dropped.
    """
    row, scale = [r], None
    for theta, check in zip(thetas, checks, strict=True):
        if isinstance(check, Threshold):
            theta = theta.astype(r.dtype)
            if mask:
                theta = mx.where(mask[0], theta, valid(check))
            validity = check.validity(theta)
            scale = validity if scale is None else scale * validity
        row.append(theta)
    if mask:
        row[0] = mx.where(mask[0], r, 0)
    if kernel.plain is not None and all(check is NumberKind.ORDINARY for check in checks):
        out = kernel.plain(*row)
    else:
        out = linked(kernel, row, [True, *(isinstance(check, Threshold) for check in checks)])
    if type(out) is not mx.array or out.shape != r.shape:  # the formula may ignore r
        out = mx.broadcast_arrays(as_elementwise(kernel.formula, out, mx.zeros(())), r)[0]
    return out if scale is None else scale * out


def valid(threshold: Threshold) -> float:
    """A valid value of a threshold."""
    if threshold.default is not None:
        return threshold.default
    low, high = threshold.low, threshold.high
    return high if abs(high) < mx.inf else max(low, -1.0) + 1.0


def linked(kernel: Kernel, row: Sequence[mx.array], live: Sequence[bool]) -> mx.array:
    """The kernel of arguments, differentiable by those that are ``live``."""
    if not kernel.partials:
        return kernel.formula(*row)
    base = [mx.stop_gradient(v) for v in row]
    out = kernel.formula(*base)
    by = [i for i, differentiable in enumerate(live) if differentiable]
    infinite = {i: mx.abs(base[i]) == mx.inf for i in by}
    steps = {i: step(row[i], infinite[i]) for i in by}
    slopes = {i: kernel.partial(i).formula(*base) for i in by}
    # An infinite residual has an infinite loss, of which the slope is that of a line.
    line = infinite[0] & (mx.abs(out) == mx.inf) & (mx.abs(slopes[0]) > 0)
    out = mx.where(line, row[0] * mx.where(line, slopes[0], 1), out)
    for i in by:
        first = slope = finite(mx.where(infinite[i], 0, slopes[i]))
        for j in by:
            curve = finite(kernel.partial(i).partial(j).formula(*base))
            # Where it alone is NaN, it must not spoil the rest.
            slope = slope + (0.5 * steps[j]) * mx.where(curve == curve, curve, 0 * first)
        out = out + steps[i] * slope
    return out


def step(v: mx.array, infinite: mx.array) -> mx.array:
    """0 with the derivative 1 (0 where v is infinite, and NaN where it is NaN)."""
    v = mx.where(infinite, 0, v)
    return v - mx.stop_gradient(v)


def finite(v: mx.array) -> mx.array:
    """``v`` within the finite numbers, so that 0 times it is 0; NaN stays."""
    most = scalar(float(mx.finfo(v.dtype).max), v.dtype, True)
    return mx.maximum(-most, mx.minimum(most, v))
