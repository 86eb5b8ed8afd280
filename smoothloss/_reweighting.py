r"""Reweighted least squares of many regressions at once, in float64 on the CPU.

The columns of a design A are made orthonormal once, :math:`U = A T`, so that the normal equations
are well-conditioned under all weights w but extreme ones. From coordinates :math:`\gamma`, the
coefficients being :math:`T\gamma`, a step is

.. math:: \gamma \leftarrow \gamma - (U^T w\, U + \epsilon I)^{-1}\, U^T w\, r
          \qquad r = U\gamma - y.

The tiny :math:`\epsilon` does not move the solution, where the right side is 0. It lets a direction
rest that no row of any weight shows: one that a design of deficient rank lacks, or all of them
where every weight is 0. So nothing is ever singular.

Regressions leave the batch as they converge, so that none depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ._robust import RobustNorm

EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)
RIDGE = 1e-13
NEAREST = 1e-7
"""Weights are those of residuals of at least so many scales, which bounds the weight of L1."""


class Coordinates(NamedTuple):
    """Matrices from orthonormal coordinates to coefficients and back."""

    out: mx.array
    back: mx.array


class Batch(NamedTuple):
    """Regressions, along the first axis of each array, which is of length 1 where all share it.

    Targets are in units of the largest one, ``unit``; ``fixed`` is a scale that a caller gave, and
    ``rounding`` the size of a residual that is nothing but rounding.
    """

    basis: mx.array
    targets: mx.array
    counts: mx.array | None
    unit: mx.array
    fixed: mx.array
    rounding: mx.array

    def take(self, index: mx.array) -> Batch:
        """Return some of the regressions."""
        taken: list[Any] = [v if v is None or v.shape[0] == 1 else v[index] for v in self]
        return Batch(*taken)

    def residuals(self, gamma: mx.array) -> mx.array:
        """Return predictions - targets."""
        return (self.basis @ gamma[..., None])[..., 0] - self.targets

    def step(self, r: mx.array, weights: mx.array) -> mx.array:
        """Return by how much weighted least squares moves the coordinates."""
        if self.counts is not None:
            weights = weights * self.counts
        weighted = (weights[..., None] * self.basis).swapaxes(-1, -2)
        gram = weighted @ self.basis
        trace = gram.diagonal(axis1=-2, axis2=-1).sum(-1)[..., None, None]
        gram = gram + (RIDGE * trace + TINY) * mx.eye(gram.shape[-1], dtype=gram.dtype)
        return -mx.linalg.solve(gram, weighted @ r[..., None])[..., 0]

    def size(self, move: mx.array) -> mx.array:
        """Return how far a move of the coordinates moves the predictions: the root mean square."""
        n = self.targets.shape[-1] if self.counts is None else self.counts.sum(-1)
        return mx.sqrt(mx.square(move).sum(-1) / n)


def orthonormal(design: mx.array, counts: mx.array | None) -> tuple[mx.array, Coordinates]:
    """Return the columns of a design made orthonormal, 0 where there are too many."""
    longest = mx.abs(design).max(axis=-2, keepdims=True)
    longest = mx.where(longest > 0, longest, 1)
    design = design / longest
    rows = design if counts is None else mx.sqrt(counts)[..., None] * design
    _, values, right = mx.linalg.svd(mx.linalg.qr(rows)[1])
    kept = values > max(design.shape[-2:]) * EPS * values[..., :1]
    inverse = mx.where(kept, 1 / mx.where(kept, values, 1), 0)
    out = right.swapaxes(-1, -2) * inverse[..., None, :]
    back = mx.where(kept, values, 0)[..., None] * right
    return design @ out, Coordinates(out / longest.swapaxes(-1, -2), back * longest)


class Fitted(NamedTuple):
    """Coordinates, the number of steps to them, and whether these converged, by regression."""

    gamma: mx.array
    iterations: mx.array
    converged: mx.array


class Solver(NamedTuple):
    """The loss, the estimate of scale (None: it is fixed), and when to stop."""

    norm: RobustNorm
    estimate: Callable[..., mx.array] | None
    tolerance: float
    most: int

    def scale(self, batch: Batch, r: mx.array) -> mx.array:
        """Return the scale of the residuals, 0 where more than half are nothing but rounding."""
        if self.estimate is None:
            return batch.fixed
        given = {} if batch.counts is None else {"weights": batch.counts}
        found = self.estimate(r * batch.unit[:, None], axis=-1, **given)
        if not isinstance(found, mx.array) or found.shape != r.shape[:1]:
            got = f"shape {found.shape}" if isinstance(found, mx.array) else type(found).__name__
            raise ValueError(
                f"irls: `scale` returned {got} for residuals of shape {r.shape}; expected an array "
                f"of shape {r.shape[:1]}. Reduce over axis=-1."
            )
        found = found / batch.unit
        return mx.where(found <= batch.rounding, 0, found)

    def weights(self, batch: Batch, r: mx.array, scale: mx.array) -> mx.array:
        """Return the weights of residuals. With a scale of 0 those of rounding count as 0."""
        exact = (scale == 0)[:, None] & (mx.abs(r) <= 64 * batch.rounding[:, None])
        u = mx.where(exact, 0, r) / mx.maximum(scale, batch.rounding)[:, None]
        return self.norm.weight(mx.where(mx.abs(u) < NEAREST, NEAREST, u))

    def solve(self, batch: Batch, gamma: mx.array) -> Fitted:
        """Reweight from coordinates on until each regression has converged."""
        m = gamma.shape[0]
        out = Fitted(gamma + 0, mx.full((m,), self.most, mx.int32), mx.zeros((m,), mx.bool_))
        todo = mx.arange(m)
        for i in range(1, self.most + 1):
            if not todo.size:
                break
            r = batch.residuals(gamma)
            scale = self.scale(batch, r)
            move = batch.step(r, self.weights(batch, r, scale))
            gamma = gamma + move
            moved = batch.size(move)
            # A NaN ends here as well.
            done = np.array(~(moved > self.tolerance * scale) | (scale == 0))
            if done.any():
                ends, goes_on = (mx.array(np.flatnonzero(rows)) for rows in (done, ~done))
                index = todo[ends]
                out.gamma[index] = gamma[ends]
                out.iterations[index] = i
                out.converged[index] = mx.isfinite(moved[ends])
                todo, gamma, batch = todo[goes_on], gamma[goes_on], batch.take(goes_on)
        if todo.size:
            out.gamma[todo] = gamma
        return out
