r"""Fit a line under a loss by gradient descent in compiled steps.

The objective is the mean loss of :math:`v - (a + b u)` in standardised data :math:`u, v`. In n
steps :math:`-\eta g_k` the line travels a path :math:`P = \eta\sum|g_k|`, but gets ahead by
:math:`D = \eta|\sum g_k|` only. By convexity, the mean objective along the path exceeds that of
any line at distance R by at most

.. math:: \Big|\frac1n\sum g_k\Big| R + \max|g_k|\,P = \frac{D}{n\eta} R + \max|g_k|\,P.

So :math:`\eta` is halved when D is a very small part of P, that is when steps turn back on
themselves, around a kink or across a valley; and they have converged when P is negligible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

import smoothloss as sl

from .data import LARGEST, Column, Table

ROUND = 100
MAX_STEPS = 100_000
TOLERANCE = 1e-6
"""Of a round's path relative to the line; float32 resolves little more."""
TURNING = 0.003
"""The part of its path by which the line must get ahead for the learning rate to stay."""

TINY = float(np.finfo(np.float32).tiny)

Line = dict[str, mx.array]
Objective = Callable[[mx.array, mx.array, float], mx.array]
"""``objective(predictions, targets, unit)``, where ``unit`` is one unit of the original y."""
Progress = Callable[[int, float], None]
"""Is told the number of steps and the last round's path, relative to the line."""


class Fit(NamedTuple):
    """The line under one loss.

    ``scale`` is the MAD of its residuals, ``path`` that of the last round, relative to the line.
    """

    loss: str
    slope: float
    intercept: float
    scale: float
    steps: int
    path: float

    @property
    def converged(self) -> bool:
        """Whether the last round's path was negligible."""
        return self.path <= TOLERANCE


def _huber(predictions: mx.array, targets: mx.array, unit: float) -> mx.array:
    """Apply Huber's loss, 95% efficient at the normal, with the scale of the current residuals."""
    scale = mx.stop_gradient(sl.mad(predictions - targets, center=0.0))
    return sl.huber_loss(predictions, targets, delta=1.345 * scale, reduction="mean")


LOSSES: dict[str, Objective] = {
    "mse": lambda predictions, targets, unit: sl.mse_loss(predictions, targets),
    "l1": lambda predictions, targets, unit: sl.l1_loss(predictions, targets),
    "smooth_l1": lambda predictions, targets, unit: sl.smooth_l1_loss(
        predictions, targets, beta=unit
    ),
    "huber": _huber,
}


def fit(loss: str, table: Table, progress: Progress = lambda steps, path: None) -> Fit:
    """Fit ``y = intercept + slope * x`` under the named loss, from the horizontal at the median.

    With the scale estimated alongside, Huber's loss may have several solutions; this finds one.
    """
    x_center, x_scale = float(np.mean(table.x)), float(np.std(table.x))
    y_center = float(np.median(table.y))
    y_scale = _scale(loss, table.y, y_center)
    deviations = (table.x - x_center) / x_scale
    # Far from 0, the first mean is rounded.
    u = _float32(deviations - np.mean(deviations))
    v = _float32((table.y - y_center) / y_scale)
    unit = 1 / y_scale

    def predictions(line: Line) -> mx.array:
        return line["intercept"] + line["slope"] * u

    def objective(line: Line) -> mx.array:
        return LOSSES[loss](predictions(line), v, unit)

    line = {"intercept": mx.array(0.0), "slope": mx.array(0.0)}
    # Under a wide beta gradients are of the order of 1/beta, which beta as the rate makes up for.
    optimizer = optim.SGD(learning_rate=max(1.0, unit) if loss == "smooth_l1" else 1.0)
    optimizer.init(line)
    step = _compiled(objective, line, optimizer)

    a, b = _number(line["intercept"]), _number(line["slope"])
    scale, steps, path = 0.0, 0, math.inf
    start, since, rounds = (a, b), 0.0, 0
    while path > TOLERANCE and steps < MAX_STEPS:
        rate = _number(optimizer.learning_rate)
        travelled = rate * _number(sum((step() for _ in range(ROUND)), mx.array(0.0)))
        a, b = _number(line["intercept"]), _number(line["slope"])
        steps += ROUND

        rounds += 1
        since += travelled
        if max(abs(a - start[0]), abs(b - start[1])) <= TURNING * since:
            optimizer.learning_rate = rate / 2
            rounds = 0
        # Watched for 1, 2, 4, ... rounds, a cycle of any length is seen to turn back.
        if rounds & (rounds - 1) == 0:
            start, since = (a, b), 0.0

        scale = _number(sl.mad(predictions(line) - v, center=0.0))
        path = travelled and travelled / max(abs(a), abs(b), scale, TINY)
        progress(steps, path)

    slope = b * y_scale / x_scale
    return Fit(loss, slope, y_center + a * y_scale - slope * x_center, scale * y_scale, steps, path)


def _compiled(
    objective: Callable[[Line], mx.array], line: Line, optimizer: optim.Optimizer
) -> Callable[[], mx.array]:
    """Compile a step that updates ``line`` in place and returns the largest partial derivative."""
    state = [line, optimizer.state]

    def step() -> mx.array:
        _, gradient = mx.value_and_grad(objective)(line)
        line.update(optimizer.apply_gradients(gradient, line))
        return mx.max(mx.abs(mx.stack(list(gradient.values()))))

    return mx.compile(step, inputs=state, outputs=state)


def _scale(loss: str, y: Column, center: float) -> float:
    """Return what y is measured by.

    Least squares follows the outliers. All others follow the bulk, which in units of its own keeps
    its digits in float32, however far the outliers are.
    """
    bulk = float(np.median(np.abs(y - center)))
    rounding = max(1 / LARGEST, 1e-12 * abs(center))
    return bulk if loss != "mse" and bulk > rounding else float(np.std(y - center)) or 1.0


def _float32(values: Column) -> mx.array:
    """Convert, with LARGEST for values beyond it: a bounded gradient is the same there."""
    return mx.array(np.clip(values, -LARGEST, LARGEST).astype(np.float32))


def _number(scalar: mx.array) -> float:
    return cast(float, scalar.item())
