"""Robust regression by iteratively reweighted least squares, for many regressions at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, NoReturn

import mlx.core as mx
import numpy as np

from ._engine import inputs
from ._robust import RobustNorm, record_and_thresholds
from ._reweighting import EPS, TINY, Batch, Coordinates, Fitted, Solver, orthonormal
from ._scale import counts_of, mad
from ._threshold import Threshold, as_float, is_number
from ._types import Array, Number, Parameter
from .losses.l1 import LOSS as L1

SCALE = Threshold("scale", open_low=True)
STARTS = ("least_squares", "l1")


class RobustFit(NamedTuple):
    """What :func:`irls` returns, of each of the regressions.

    Attributes
    ----------
    coefficients : mx.array
        Of shape (..., p): what the columns of the design are multiplied with.
    scale : mx.array
        Of shape (...): the scale of the residuals. 0 where more than half of the data fit exactly.
    weights : mx.array
        Of shape (..., n): psi(u)/u of each residual u in units of the scale, without the weights
        that were passed.
    iterations : mx.array of int
        Of shape (...): how many weighted least squares were solved.
    converged : mx.array of bool
        Of shape (...): whether the last one moved the predictions by no more than the tolerance.
    """

    coefficients: mx.array
    scale: mx.array
    weights: mx.array
    iterations: mx.array
    converged: mx.array


def irls(
    design: Array,
    targets: Array,
    loss: RobustNorm | Callable[..., Any],
    *,
    scale: Parameter | Callable[..., mx.array] = mad,
    start: Array | Literal["least_squares", "l1"] = "least_squares",
    weights: Parameter | None = None,
    where: Array | None = None,
    tolerance: Number = 1e-8,
    max_iterations: int = 200,
) -> RobustFit:
    r"""Robust linear regression by iteratively reweighted least squares.

    It looks for coefficients b that minimise :math:`\sum_i \rho(r_i/s)` with
    :math:`r = \text{design}\, b - \text{targets}`, where the scale s is estimated anew from the
    residuals before each step. A step is a least squares in which residual :math:`r_i` counts
    :math:`w(r_i/s)`, :math:`w(u) = \psi(u)/u`. Leading axes are regressions, each fitted on its
    own.

    Parameters
    ----------
    design : mx.array or numpy.ndarray
        Of shape (..., n, p): n rows of data in p columns, of which a constant is one if the model
        has an intercept; n >= p. Leading axes broadcast against those of the targets.
    targets : mx.array or numpy.ndarray
        Of shape (..., n).
    loss : RobustNorm or callable
        A loss, with thresholds in units of the scale: ``sl.RobustNorm(sl.huber_loss, delta=1.345)``
        or ``sl.HuberLoss(1.345)``. A function, a class or a :class:`Loss` has its defaults.
        :meth:`RobustNorm.tuning` finds a threshold.
    scale : callable, float or mx.array, default sl.mad
        What residuals are measured by. :func:`mad` is taken about 0. Another function is called as
        ``scale(r, axis=-1)``, with ``weights=`` beside it where some count otherwise than once; r
        has shape (m, n), of m of the regressions. A number, or an array of the leading shape,
        fixes the scale.
    start : {"least_squares", "l1"} or mx.array, default "least_squares"
        Where to begin: the least squares, least absolute deviations, or coefficients of shape
        (..., p). Losses that are not convex end at the minimum near the start.
    weights : float or mx.array, optional
        How often each row counts, at least 0, with the axes of the targets, of their lengths or of
        length 1. Whole numbers give the fit of the repeated rows.
    where : mx.array of bool, optional
        Selects rows, with axes as those of weights. What the others hold does not matter.
    tolerance : float, default 1e-8
        A regression has converged when a step moves its predictions by no more than this part of
        the scale, as the root of the mean square.
    max_iterations : int, default 200
        The largest number of steps, at least 1.

    Returns
    -------
    RobustFit
        ``coefficients``, ``scale``, ``weights``, ``iterations`` and ``converged``; the first three
        of the promoted dtype of design and targets (float32 for integers and NumPy arrays).

    Raises
    ------
    TypeError
        If ``loss`` is no loss, a threshold is an array with axes, an array is complex or boolean
        (or ``where`` is not boolean), or another argument is of a wrong type; if a derivative of
        the result is taken.
    ValueError
        If shapes do not fit, n < p, a number is out of range, or ``start`` is unknown. Under
        ``mx.compile`` and ``mx.vmap``: it looks at the data to see when to stop.

    Notes
    -----
    - All is computed in float64 on the CPU, from data taken as they are, NumPy's float64 too. Each
      regression stops by itself, so that none depends on others.
    - Where more than half of the data fit exactly, the scale falls to 0 and the steps end at that
      fit.
    - A design of deficient rank has many solutions with one fit: the coefficients are the shortest,
      with columns in units of their largest element.
    - Weights are evaluated at residuals of at least 1e-7 scales, which bounds those of L1.
    - A regression with NaN or infinity in selected rows, or of no total weight, has NaN in
      coefficients, scale and weights, and has not converged.
    - Residuals are ``predictions - targets``, the negative of those of statsmodels, which matters
      for quantile losses alone.

    References
    ----------
    .. [1] P. W. Holland, R. E. Welsch, "Robust Regression Using Iteratively Reweighted
       Least-Squares", Communications in Statistics - Theory and Methods 6(9), 1977.
       https://doi.org/10.1080/03610927708827533
    .. [2] W. N. Venables, B. D. Ripley, "Modern Applied Statistics with S", 4th ed., Springer,
       2002, section 6.5. https://doi.org/10.1007/978-0-387-21706-2

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> x = mx.arange(6.0)
    >>> y = mx.array([1.1, 2.9, 5.0, 7.1, 8.9, 100.0])
    >>> fit = sl.irls(mx.stack([mx.ones(6), x], axis=1), y, sl.HuberLoss(1.345))
    >>> fit.coefficients
    array([1.01863, 1.99068], dtype=float32)
    >>> fit.weights.tolist()[-1] < 0.01
    True
    >>> fit.converged.item()
    True
    """
    solver = Solver(_norm(loss), _estimate(scale), _tolerance(tolerance), _count(max_iterations))
    with mx.stream(mx.cpu):
        problem = _problem(design, targets, None if callable(scale) else scale, weights, where)
        return problem.result(solver, solver.solve(problem.batch, problem.begin(start)))


class _Problem(NamedTuple):
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
        for _ in range(2):  # the second takes the rounding errors of the first away
            r = batch.residuals(gamma)
            gamma = gamma + batch.step(r, mx.ones_like(r))
        if start == "l1":
            gamma = Solver(RobustNorm(L1), _about_0, 1e-3, 100).solve(batch, gamma).gamma
        return gamma

    def result(self, solver: Solver, found: Fitted) -> RobustFit:
        """Return the results in the units, shape and dtype of the data."""
        batch, unit = self.batch, mx.where(self.valid, self.batch.unit, mx.nan)
        r = batch.residuals(found.gamma)
        scale = solver.scale(batch, r)
        weights = solver.weights(batch, r, scale) * (unit / unit)[:, None]
        coefficients = (self.coordinates.out @ found.gamma[..., None])[..., 0] * unit[:, None]
        floats = _closed(
            *(
                v.reshape((*self.shape, *v.shape[1:])).astype(self.dtype)
                for v in (coefficients, scale * unit, weights)
            )
        )
        converged = found.converged & self.valid
        return RobustFit(*floats, *(v.reshape(self.shape) for v in (found.iterations, converged)))


def _about_0(r: mx.array, axis: int, weights: mx.array | None = None) -> mx.array:
    return mad(r, axis, center=0.0, weights=weights)


def _norm(loss: object) -> RobustNorm:
    if isinstance(loss, RobustNorm):
        norm = loss
    else:
        record, thresholds = record_and_thresholds("irls", loss, {})
        norm = RobustNorm(record, **thresholds)
    for name, value in norm.thresholds.items():
        if getattr(value, "ndim", 0):
            raise TypeError(
                f"irls: `{name}` of the loss is an array of shape {value.shape}; expected one "
                f"number, in units of the scale. Pass a scale for each regression instead."
            )
    return norm


def _estimate(scale: object) -> Callable[..., mx.array] | None:
    if not callable(scale):
        return None
    return _about_0 if scale is mad else scale


def _tolerance(value: object) -> float:
    if not is_number(value) or not 0 <= as_float(value) < 1:
        raise ValueError(
            f"irls: `tolerance` is {value!r}; expected a number in [0, 1), a part of the scale. "
            f"Leave it out for 1e-8."
        )
    return as_float(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"irls: `max_iterations` is {value!r}; expected a whole number of at least 1. "
            f"Leave it out for 200."
        )
    return value


def _problem(
    design: object, targets: object, scale: object, weights: object, where: object
) -> _Problem:
    """Check the data, and put them into orthonormal coordinates."""
    a = inputs.as_array("irls", "design", design, wide=True)
    y = inputs.as_array("irls", "targets", targets, wide=True)
    shape, dtype = _shape(a, y), mx.result_type(_dtype(design, a), _dtype(targets, y))
    n, p, m = *a.shape[-2:], math.prod(shape)
    counts = counts_of("irls", weights, where, y.shape, mx.float64)
    mask = None if where is None else inputs.selection("irls", where, y.shape)
    a, y = a.astype(mx.float64), y.astype(mx.float64)

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
    return _Problem(batch, coordinates, valid, shape, dtype)


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


@mx.custom_function
def _closed(*results: mx.array) -> tuple[mx.array, ...]:
    """The results, without a derivative."""
    return tuple(v + 0 for v in results)


_closed.vjp(_refuse)
_closed.jvp(_refuse)
