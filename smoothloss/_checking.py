"""A check of the derivatives of a loss against finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ._loss import Loss
from ._robust import record_and_thresholds
from ._threshold import Threshold
from ._types import Formula

Floats = NDArray[np.float64]

# From far inside the thresholds to far outside, in units of each, of both signs.
MAGNITUDES = (0.003, 0.013, 0.11, 0.43, 0.87, 1.13, 1.7, 3.9, 11.0, 47.0, 510.0)
FACTORS = (1.0, 0.41, 2.7)  # of the default thresholds
STEP = 1e-3  # relative to the argument
TOLERANCE = 5e-5


def check_loss(
    loss: Callable[..., Any], residuals: Sequence[float] | Floats | None = None, **thresholds: float
) -> None:
    """Raise unless the derivatives that a loss gives are those of its rho.

    Every formula that is given is evaluated in float64, on the CPU, and compared: psi and the
    derivatives by thresholds with the difference quotients of rho, the second derivatives with
    those of the first, and the weight function with psi(r)/r and its limit at r = 0. Formulas must
    be elementwise and NaN at a NaN residual, and rho must not fall below its value at 0.

    Parameters
    ----------
    loss : callable
        A :class:`Loss`, or a function or class that carries one.
    residuals : sequence of float, optional
        Where the formulas are compared: finite, and not 0. By default residuals of both signs, from
        0.003 to 510, in plain numbers and in units of each threshold that has those of the
        residual.
    **thresholds : float
        The thresholds by name, each inside its interval and finite. Those that are not given take
        their default, 0.41 times and 2.7 times that, as far as these are inside.

    Raises
    ------
    AssertionError
        If a formula is wrong. The message names it, the residual, and both values.
    TypeError
        If ``loss`` is no loss, or a threshold is not a number.
    ValueError
        If a threshold is not inside its interval, or no residual is left to compare at.

    Notes
    -----
    A derivative passes if it is within 5e-5 of the quotient, relative to the larger of the two and
    of rho/r, beyond what quotients of other steps and of either side differ by. So nothing is
    compared next to a kink, and little where rho itself is inaccurate: MLX computes ``mx.exp``,
    ``mx.sigmoid``, ``mx.logaddexp`` and ``mx.erf`` of float64 only to about 1e-7 on the CPU. The
    check says nothing about kinks, limits and infinite residuals.

    References
    ----------
    .. [1] B. Fornberg, "Generation of Finite Difference Formulas on Arbitrarily Spaced Grids",
       Mathematics of Computation 51(184), 1988. https://doi.org/10.1090/S0025-5718-1988-0935077-0

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> sl.check_loss(sl.huber_loss, delta=2.0)
    >>> wrong = sl.Loss("wrong_loss", mx.square, psi=lambda r: 3 * r)
    >>> sl.check_loss(wrong, residuals=[1.0])
    Traceback (most recent call last):
        ...
    AssertionError: check_loss: psi of wrong_loss is 3 at r = 1; the difference quotient is 2. ...
    """
    record, given = record_and_thresholds("check_loss", loss, thresholds)
    each = [_values(spec, given[spec.name], spec.name in thresholds) for spec in record.thresholds]
    with mx.stream(mx.cpu):  # which has float64
        for theta in itertools.product(*each):
            _Check(record, _points(record, theta, residuals), theta).run()


def _values(spec: Threshold, value: object, given: bool) -> list[float]:
    """The values at which a threshold is checked: strictly inside, for differences need room."""
    if isinstance(value, mx.array | np.ndarray):
        raise TypeError(
            f"check_loss: `{spec.name}` is an array; expected a number. Check one at a time."
        )
    number = spec.checked("check_loss", value, mx.float64)
    factors = FACTORS[:1] if given else FACTORS
    inside = [f * number for f in factors if spec.low < f * number < spec.high]
    if not inside:
        raise ValueError(
            f"check_loss: `{spec.name}` is {number:g}; expected a finite number inside "
            f"({spec.low:g}, {spec.high:g}), since differences are taken to both sides. Pass one."
        )
    return inside


def _points(
    loss: Loss, theta: Sequence[float], residuals: Sequence[float] | Floats | None
) -> Floats:
    """The residuals at which formulas are compared."""
    if residuals is None:
        pairs = zip(loss.thresholds, theta, strict=True)
        units = np.unique([1.0, *(v for spec, v in pairs if spec.has_residual_units)])
        signed = [s * m for m in MAGNITUDES for s in (1, -1)]
        return np.asarray(np.outer(units, signed).ravel(), np.float64)
    given: Floats = np.asarray(residuals, np.float64).ravel()
    points: Floats = given[np.isfinite(given) & (given != 0)]
    if not points.size:
        raise ValueError(
            f"check_loss: `residuals` is {residuals!r}; expected finite numbers other than 0. "
            f"Leave it out for residuals on either side of the thresholds."
        )
    return points


class _Check:
    """The formulas of a loss at fixed residuals and thresholds."""

    def __init__(self, loss: Loss, r: Floats, theta: Sequence[float]) -> None:
        self.loss, self.names = loss, ("r", *loss.threshold_names)
        self.row: list[Floats] = [r, *(np.full(r.shape, v) for v in theta)]

    def run(self) -> None:
        for name, formula in self.formulas():
            self.elementwise(name, formula)
        for by, formula in self.loss.derivatives.items():
            for k, last in enumerate(by):  # a mixed one both ways
                lower = by[:k] + by[k + 1 :]
                below = self.loss.derivatives[lower] if lower else self.loss.rho
                self.compare(by, formula, below, last)
        self.nonnegative()
        self.weighted()
        for name, formula in self.formulas():
            self.keeps_nan(name, formula)

    def formulas(self) -> Iterator[tuple[str, Formula]]:
        yield "rho", self.loss.rho
        for by, formula in self.loss.derivatives.items():
            yield self.named(by), formula
        if self.loss.weight is not None:
            yield "weight", self.loss.weight

    def named(self, by: tuple[str, ...]) -> str:
        known = {("r",): "psi", ("r", "r"): "psi_prime"}
        return known.get(by, f"the partial by {' and '.join(by)}")

    def evaluate(self, formula: Formula, row: Sequence[Floats]) -> Floats:
        out = mx.array(formula(*(mx.array(v, mx.float64) for v in row)))
        found: Floats = np.array(mx.broadcast_to(out, row[0].shape).astype(mx.float64))
        return found

    def quotients(self, formula: Formula, by: str) -> Floats:
        """Difference quotients by one argument: central ones of several steps, and one-sided."""
        i = self.names.index(by)
        h = STEP * abs(self.row[i])

        def at(k: float) -> Floats:
            moved = self.row[i] + k * h
            return self.evaluate(formula, [*self.row[:i], moved, *self.row[i + 1 :]])

        def central(k: float) -> Floats:
            rise = 8 * (at(k) - at(-k)) - (at(2 * k) - at(-2 * k))
            return np.asarray(rise / (12 * k * h))

        def one_sided(k: float) -> Floats:
            rise = -11 * at(0) + 18 * at(k) - 9 * at(2 * k) + 2 * at(3 * k)
            return np.asarray(rise / (6 * k * h))

        return np.stack([central(k) for k in (1, 0.5, 16)] + [one_sided(k) for k in (1, -1)])

    def compare(self, by: tuple[str, ...], formula: Formula, below: Formula, last: str) -> None:
        """Hold a derivative against the quotients of the formula below it."""
        with np.errstate(all="ignore"):
            got, found = self.evaluate(formula, self.row), self.quotients(below, last)
            want = found[0]
            slope = abs(self.evaluate(below, self.row) / self.row[self.names.index(last)])
            size = np.maximum(np.maximum(abs(got), abs(want)), slope)
            # By as much as the quotients themselves differ, next to a kink or by rounding.
            room = TOLERANCE * size + 3 * np.ptp(found, axis=0)
            wrong = abs(got - want) > room
        self.fail(self.named(by), wrong, got, "difference quotient", want)

    def elementwise(self, name: str, formula: Formula) -> None:
        """An element does not depend on the others."""
        whole = self.evaluate(formula, self.row)
        alone = self.evaluate(formula, [v[:1] for v in self.row])
        wrong = ~np.isclose(whole[:1], alone, rtol=1e-6, equal_nan=True)
        self.fail(name, wrong, whole, "value without the other residuals", alone)

    def keeps_nan(self, name: str, formula: Formula) -> None:
        row: list[Floats] = [np.full(self.row[0].shape, np.nan), *self.row[1:]]
        got = self.evaluate(formula, row)
        if not np.isnan(got).all():
            raise AssertionError(
                f"check_loss: {name} of {self.loss.name} is {got[0]:g} at r = nan; a NaN residual "
                f"must give NaN. mx.sign(nan) is 0, and comparisons with NaN are False: select so "
                f"that r itself remains then, as in mx.where(r == r, {name.split()[-1]}, r)."
            )

    def nonnegative(self) -> None:
        got = self.evaluate(self.loss.rho, self.row)
        zero: Floats = 0 * self.row[0]
        least = self.evaluate(self.loss.rho, [zero, *self.row[1:]])
        wrong = got < least - TOLERANCE * abs(least)
        self.fail("rho", wrong, got, "value at r = 0, which should be the least,", least)

    def weighted(self) -> None:
        """Hold the weight function against psi(r)/r, and at 0 against that of ever smaller r."""
        psi, weight = self.loss.psi, self.loss.weight
        if psi is None or weight is None:
            return
        got, want = self.evaluate(weight, self.row), self.evaluate(psi, self.row) / self.row[0]
        self.fail("weight", abs(got - want) > TOLERANCE * abs(want), got, "quotient psi(r)/r", want)
        tiny: Floats = np.full(self.row[0].shape, 1e-9 * abs(self.row[0]).min())
        right, left, nearer, got = (
            self.evaluate(weight, [k * tiny, *self.row[1:]]) for k in (1, -1, 0.5, 0)
        )
        settled = abs(right - nearer) <= TOLERANCE * abs(right)
        room = TOLERANCE * abs(right)
        outside = (got < np.minimum(left, right) - room) | (got > np.maximum(left, right) + room)
        self.fail("weight at 0", settled & outside, got, "limit of psi(r)/r", right)

    def fail(self, name: str, wrong: NDArray[Any], got: Floats, other: str, want: Floats) -> None:
        if not wrong.any():
            return
        k = int(np.flatnonzero(wrong)[0])
        at = ", ".join(f"{n} = {v[k]:g}" for n, v in zip(self.names, self.row, strict=True))
        raise AssertionError(
            f"check_loss: {name} of {self.loss.name} is {got[k]:.9g} at {at}; the {other} is "
            f"{want[k]:.9g}. Derive it again, or correct rho."
        )
