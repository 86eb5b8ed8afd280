"""A check of the derivatives of a loss against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ._loss import Loss
from ._robust import RobustNorm
from ._types import Formula

Floats = NDArray[np.float64]

# Both signs, and magnitudes on either side of the thresholds.
RESIDUALS = np.array([s * m for m in (0.01, 0.1, 0.37, 0.9, 1.6, 3.1, 9.7, 41.0) for s in (1, -1)])
STEP = 1e-3  # relative; the difference quotient is of fourth order
TOLERANCE = 1e-6


def check_loss(
    loss: Callable[..., Any], residuals: Sequence[float] | Floats | None = None, **thresholds: float
) -> None:
    """Raise unless the derivatives that a loss gives are those of its rho.

    Every formula that is given is evaluated in float64, on the CPU, and compared: psi and the
    derivatives by thresholds with the difference quotients of rho, the second derivatives with
    those of the first, and the weight function with psi(r)/r. rho is checked to be nonnegative
    beyond its value at 0, and every formula to be NaN at a NaN residual.

    Parameters
    ----------
    loss : callable
        A :class:`Loss`, or a function or class that carries one.
    residuals : sequence of float, optional
        Where the formulas are compared; by default, 16 residuals from 0.01 to 41, of both signs.
        Points next to a kink of rho or psi, where no derivative exists, are left out.
    **thresholds : float
        The thresholds by name, each with the default of the loss.

    Raises
    ------
    AssertionError
        If a formula is wrong. The message names it, the residual, and both values.
    TypeError
        If ``loss`` is no loss, or a threshold is not a number.
    ValueError
        If a threshold is not valid.

    Notes
    -----
    A derivative passes if it is within 1e-6 of the quotient, relative to the larger of the two and
    of rho/r. The check says nothing about kinks, limits and infinite residuals.

    References
    ----------
    .. [1] B. Fornberg, "Generation of Finite Difference Formulas on Arbitrarily Spaced Grids",
       Mathematics of Computation 51(184), 1988. https://doi.org/10.1090/S0025-5718-1988-0935077-0

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> sl.check_loss(sl.huber_loss, delta=2.0)
    >>> wrong = sl.Loss("wrong_loss", mx.square, psi=lambda r: r)
    >>> sl.check_loss(wrong)
    Traceback (most recent call last):
        ...
    AssertionError: check_loss: psi of wrong_loss is 0.01 at r = 0.01; the difference quotient ...
    """
    norm = RobustNorm(loss, **thresholds)
    _ = norm.traits  # thresholds are numbers
    at = np.asarray(RESIDUALS if residuals is None else residuals, np.float64).ravel()
    theta = [float(v) for v in norm.thresholds.values()]
    with mx.stream(mx.cpu):  # which has float64
        _Check(norm.loss, at, theta).run()


class _Check:
    """The formulas of a loss at fixed residuals and thresholds."""

    def __init__(self, loss: Loss, r: Floats, theta: list[float]) -> None:
        self.loss, self.names = loss, ("r", *loss.threshold_names)
        self.row = [r, *(np.full(r.shape, v) for v in theta)]

    def run(self) -> None:
        for name, formula in self.formulas():
            self.keeps_nan(name, formula)
        self.nonnegative()
        for by, formula in self.loss.derivatives.items():
            *lower, last = by
            below = self.loss.derivatives[tuple(lower)] if lower else self.loss.rho
            self.compare(by, formula, below, last)
            if len(by) == 2 and by[0] != by[1]:  # a mixed one, the other way round
                self.compare(by, formula, self.loss.derivatives[last,], by[0])
        if self.loss.weight is not None and self.loss.psi is not None:
            self.weighted()

    def formulas(self) -> Iterator[tuple[str, Formula]]:
        yield "rho", self.loss.rho
        for by, formula in self.loss.derivatives.items():
            yield self.named(by), formula
        if self.loss.weight is not None:
            yield "weight", self.loss.weight

    def named(self, by: tuple[str, ...]) -> str:
        return {("r",): "psi", ("r", "r"): "psi_prime"}.get(
            by, f"the partial by {' and '.join(by)}"
        )

    def evaluate(self, formula: Formula, row: Sequence[Floats]) -> Floats:
        arrays = [mx.array(v, mx.float64) for v in row]
        out = mx.broadcast_to(formula(*arrays), row[0].shape)
        return np.array(out.astype(mx.float64))

    def quotient(self, formula: Formula, by: str, step: float) -> Floats:
        """The difference quotient of fourth order by one argument."""
        i = self.names.index(by)
        v = self.row[i]
        h = step * np.where(v == 0, 1, abs(v))
        ahead, behind, far, farther = (
            self.evaluate(formula, [*self.row[:i], v + k * h, *self.row[i + 1 :]])
            for k in (1, -1, 2, -2)
        )
        return (8 * (ahead - behind) - (far - farther)) / (12 * h)

    def compare(self, by: tuple[str, ...], formula: Formula, below: Formula, last: str) -> None:
        """Hold a derivative against the quotient of the formula below it."""
        got, want = self.evaluate(formula, self.row), self.quotient(below, last, STEP)
        size = abs(self.evaluate(below, self.row)) / np.where(self.row[0] == 0, 1, abs(self.row[0]))
        room = TOLERANCE * np.maximum(np.maximum(abs(got), abs(want)), size)
        # Next to a kink the quotients of two steps differ.
        smooth = abs(self.quotient(below, last, STEP / 4) - want) <= room
        self.fail(
            self.named(by), (abs(got - want) > room) & smooth, got, "difference quotient", want
        )

    def keeps_nan(self, name: str, formula: Formula) -> None:
        nan = np.full(self.row[0].shape, np.nan)
        got = self.evaluate(formula, [nan, *self.row[1:]])
        self.fail(name, ~np.isnan(got), got, "value for a NaN residual, which it should keep,", nan)

    def nonnegative(self) -> None:
        got = self.evaluate(self.loss.rho, self.row)
        least = self.evaluate(self.loss.rho, [0 * self.row[0], *self.row[1:]])
        self.fail("rho", got < least, got, "value at r = 0, the least one,", least)

    def weighted(self) -> None:
        assert self.loss.psi is not None
        assert self.loss.weight is not None
        r = self.row[0]
        psi = self.evaluate(self.loss.psi, self.row)
        got, want = self.evaluate(self.loss.weight, self.row), psi / np.where(r == 0, 1, r)
        wrong = (abs(got - want) > TOLERANCE * abs(want)) & (r != 0)
        self.fail("weight", wrong, got, "quotient psi(r)/r", want)

    def fail(self, name: str, wrong: NDArray[Any], got: Floats, other: str, want: Floats) -> None:
        if not wrong.any():
            return
        k = int(np.flatnonzero(wrong)[0])
        at = ", ".join(f"{n} = {v[k]:g}" for n, v in zip(self.names, self.row, strict=True))
        raise AssertionError(
            f"check_loss: {name} of {self.loss.name} is {got[k]:.9g} at {at}; the {other} is "
            f"{want[k]:.9g}. Derive it again."
        )
