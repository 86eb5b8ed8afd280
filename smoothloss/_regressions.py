"""Data of regressions, checked and put into orthonormal coordinates, and the way back."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, NoReturn

import mlx.core as mx

from ._engine import inputs
from ._reweighting import EPS, TINY, Batch, Coordinates, Fitted, Solver, orthonormal
from ._robust import RobustNorm
from ._scale import counts_of, mad
from ._threshold import Threshold
from .losses.l1 import LOSS as L1

SCALE = Threshold("scale", open_low=True)
STARTS = ("least_squares", "l1")


def about_0(r: mx.array, axis: int, weights: mx.array | None = None) -> mx.array:
    """Return the scale of residuals of regressions."""
    return mad(r, axis, center=0.0, weights=weights)


class Problem(NamedTuple):
    """The regressions, in coordinates, and what their results are turned back with."""

    batch: Batch
    coordinates: Coordinates
    valid: mx.array
    shape: tuple[int, ...]
    dtype: mx.Dtype

    def begin(self, start: object) -> mx.array:
        """Return the coordinates to begin with."""
        batch, (out, back) = self.batch, self.coordinates
        m, p = batch.targets.shape[0], out.shape[-1]
        if inputs.is_array(start):
            given = inputs.as_array("irls", "start", start, wide=True).astype(mx.float64)
            given = _broadcast("start", given, (*self.shape, p)).reshape(m, p)
            return (back @ (given / batch.unit[:, None])[..., None])[..., 0]
        if not isinstance(start, str) or start not in STARTS:
            raise ValueError(
                f"irls: `start` is {start!r}; expected 'least_squares', 'l1' or an array of "
                f"coefficients. Leave it out for 'least_squares'."
            )
        gamma = mx.zeros((m, p), mx.float64)
        r = batch.residuals(gamma)
        gamma = gamma + batch.step(r, mx.ones_like(r))
        if start == "l1":
            gamma = Solver(RobustNorm(L1), about_0, 1e-3, 100).solve(batch, gamma).gamma
        return gamma

    def result(self, solver: Solver, found: Fitted) -> tuple[list[mx.array], list[mx.array]]:
        """Return coefficients, scale and weights, and iterations and whether they converged."""
        batch, unit = self.batch, mx.where(self.valid, self.batch.unit, mx.nan)
        r = batch.residuals(found.gamma)
        scale = solver.scale(batch, r)
        weights = solver.weights(batch, r, scale) * (unit / unit)[:, None]
        coefficients = (self.coordinates.out @ found.gamma[..., None])[..., 0] * unit[:, None]
        floats = [v.astype(self.dtype) for v in (coefficients, scale * unit, weights)]
        rest = [found.iterations, found.converged & self.valid]
        return [self.shaped(v) for v in floats], [self.shaped(v) for v in rest]

    def shaped(self, v: mx.array) -> mx.array:
        """Return a result with the axes of the regressions."""
        return v.reshape((*self.shape, *v.shape[1:]))


def problem(
    design: object, targets: object, scale: object, weights: object, where: object
) -> Problem:
    """Check the data, and put them into orthonormal coordinates."""
    a = inputs.as_array("irls", "design", design, wide=True)
    y = inputs.as_array("irls", "targets", targets, wide=True)
    shape, dtype = _shape(a, y), mx.result_type(_dtype(design, a), _dtype(targets, y))
    n, p, m = *a.shape[-2:], math.prod(shape)
    counts = counts_of("irls", weights, where, y.shape, mx.float64)
    mask = None if where is None else inputs.selection("irls", where, y.shape)
    a, y = closed(a.astype(mx.float64), y.astype(mx.float64))  # for mx.jvp, which begins here

    def rows(v: mx.array, *core: int) -> mx.array:
        """Regressions along one axis."""
        return mx.broadcast_to(v, (*shape, *core)).reshape(m, *core)

    a = a.reshape(1, n, p) if a.size == n * p else rows(a, n, p)
    y, finite = rows(y, n), mx.isfinite(a).all(-1) & mx.isfinite(rows(y, n))
    if mask is not None:
        finite = finite | ~rows(mask, n)
        y = mx.where(rows(mask, n), y, 0)
    a, y, valid = mx.where(mx.isfinite(a), a, 0), mx.where(mx.isfinite(y), y, 0), finite.all(-1)
    if counts is not None:
        counts = rows(counts, n)
        valid = valid & ((counts >= 0) & mx.isfinite(counts)).all(-1) & (counts > 0).any(-1)
        counts = mx.where(valid[:, None], counts, 1)
    largest = mx.abs(y).max(-1)
    unit = mx.where(largest > 0, largest, 1)
    y = y / unit[:, None]
    size = mx.abs(y)
    rounding = 16 * EPS * mad(size, -1, center=0.0, where=size > 0)
    basis, coordinates = orthonormal(a, counts)
    fixed = _fixed(scale, shape).reshape(m) / unit
    batch = Batch(basis, y, counts, unit, fixed, mx.where(rounding > 0, rounding, TINY))
    return Problem(batch, coordinates, valid, shape, dtype)


def _fixed(scale: object, shape: tuple[int, ...]) -> mx.array:
    """The scale that a caller gave; without one it is not used."""
    if inputs.is_array(scale):
        given = inputs.as_array("irls", "scale", scale, wide=True).astype(mx.float64)
        return _broadcast("scale", given * SCALE.validity(given), shape)
    number = 1.0 if scale is None else SCALE.checked("irls", scale, mx.float64)
    return mx.full(shape, number, mx.float64)


def _dtype(given: object, array: mx.array) -> mx.Dtype:
    """The dtype that a result has: of NumPy's float64 as of integers, float32."""
    exact = isinstance(given, mx.array) or array.dtype != mx.float64
    return array.dtype if exact and mx.issubdtype(array.dtype, mx.floating) else mx.float32


def _shape(design: mx.array, targets: mx.array) -> tuple[int, ...]:
    """The shape of the regressions."""
    cure = "Lay the rows along the last axis but one of design, and along the last of targets."
    if design.ndim == 1:
        cure = "For one column, pass design[:, None]."
    elif targets.ndim and targets.shape[-1] == 1 and design.shape[-2] != 1:
        cure = "Pass targets[..., 0]."
    if design.ndim < 2 or targets.shape[-1:] != (design.shape[-2],):
        raise ValueError(
            f"irls: `design` has shape {design.shape} and `targets` {targets.shape}; expected "
            f"(..., n, p) and (..., n). {cure}"
        )
    if not 0 < design.shape[-1] <= design.shape[-2]:
        raise ValueError(
            f"irls: `design` has {design.shape[-2]} rows and {design.shape[-1]} columns; expected "
            f"at least one column, and as many rows as columns. Add data, or take columns away."
        )
    try:
        return tuple(mx.broadcast_shapes(design.shape[:-2], targets.shape[:-1]))
    except ValueError:
        raise ValueError(
            f"irls: the leading axes of `design` are {design.shape[:-2]} and of `targets` "
            f"{targets.shape[:-1]}; they must broadcast. Reshape one side."
        ) from None


def _broadcast(name: str, value: mx.array, shape: tuple[int, ...]) -> mx.array:
    try:
        return mx.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(
            f"irls: `{name}` has shape {value.shape}; expected one that broadcasts to {shape}. "
            f"Reshape it."
        ) from None


def _refuse(*_: Any) -> NoReturn:
    raise TypeError(
        "irls: a derivative of what it returns was asked for; expected none, since it has none. "
        "Pass it, or what is made of it, through mx.stop_gradient."
    )


def _closed(*results: mx.array) -> tuple[mx.array, ...]:
    """Return the results, without a derivative."""
    return tuple(v + 0 for v in results)


closed: Any = mx.custom_function(_closed)
closed.vjp(_refuse)
closed.jvp(_refuse)
