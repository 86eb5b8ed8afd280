"""Robust regression by iteratively reweighted least squares, for many regressions at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import mlx.core as mx

from ._regressions import about_0, closed, problem
from ._reweighting import Solver
from ._robust import RobustNorm, record_and_thresholds
from ._scale import mad
from ._threshold import as_float, is_number
from ._types import Array, Number, Parameter


class RobustFit(NamedTuple):
    """What :func:`irls` returns, of each of the regressions.

    Parameters
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

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> fit = sl.irls(mx.ones((5, 1)), mx.array([1.0, 2.0, 3.0, 4.0, 100.0]), sl.L1Loss())
    >>> fit.coefficients
    array([3], dtype=float32)
    >>> fit.iterations.item() < 30
    True
    """

    coefficients: mx.array
    scale: mx.array
    weights: mx.array
    iterations: mx.array
    converged: mx.array


def irls(
    design: Array,
    targets: Array,
    loss: Callable[..., Any],
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
    loss : callable
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
    array([0.93154, 2.06231], dtype=float32)
    >>> fit.weights.tolist()[-1] < 0.01
    True
    >>> fit.converged.item()
    True
    """
    solver = Solver(_norm(loss), _estimate(scale), _tolerance(tolerance), _count(max_iterations))
    with mx.stream(mx.cpu):
        given = problem(design, targets, None if callable(scale) else scale, weights, where)
        found = solver.solve(given.batch, given.begin(start))
        (coefficients, size, counted), (iterations, converged) = given.result(solver, found)
        coefficients, size, counted = closed(coefficients, size, counted)
    return RobustFit(coefficients, size, counted, iterations, converged)


def _norm(loss: object) -> RobustNorm:
    record, thresholds = record_and_thresholds("irls", loss, {})
    for name, value in thresholds.items():
        if getattr(value, "ndim", 0):
            raise TypeError(
                f"irls: `{name}` of the loss is an array of shape {value.shape}; expected one "
                f"number, in units of the scale. Pass a scale for each regression instead."
            )
    return RobustNorm(record, **thresholds)


def _estimate(scale: object) -> Callable[..., mx.array] | None:
    if not callable(scale):
        return None
    return about_0 if scale is mad else cast("Callable[..., mx.array]", scale)


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
