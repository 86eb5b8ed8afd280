"""What the work around a loss costs: what is fused with it, and what another design would fuse.

A custom function is a barrier to fusion. Here the loss stands beside the same formulas without
one, and with one around rho alone, so that psi is open to its surroundings.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from measure import interleaved, kernels, peak
from peers import MLXStep

import smoothloss as sl
from smoothloss.losses import smooth_l1

N = 1 << 20
BETA = 0.7
Loss = Callable[[mx.array, mx.array], mx.array]


def beta() -> mx.array:
    return mx.full((), BETA)


def without(x: mx.array, y: mx.array) -> mx.array:
    return smooth_l1.rho(x - y, beta()).mean()


_open = mx.custom_function(lambda x, y: smooth_l1.rho(x - y, beta()))


@_open.vjp
def _open_vjp(row: Any, cotangent: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    x, y = row
    x = mx.squeeze(mx.expand_dims(x, 0), 0)  # else the residual is shared, and written
    gradient = cotangent * smooth_l1.psi(x - y, beta())
    return gradient, -gradient


LOSSES: dict[str, Loss] = {
    "smoothloss": lambda x, y: sl.smooth_l1_loss(x, y, BETA),
    "psi without a rule": lambda x, y: mx.mean(_open(x, y)),  # type: ignore[arg-type]
    "no custom function": without,
    "mlx.nn": lambda x, y: nn.losses.smooth_l1_loss(x, y, BETA, reduction="mean"),
}
AROUND: dict[str, Callable[[Loss], Callable[..., mx.array]]] = {
    "the loss alone": lambda loss: lambda x, y, s, t: loss(x, y),
    "of x * s + t": lambda loss: lambda x, y, s, t: loss(x * s + t, y),
    "half of two losses": lambda loss: lambda x, y, s, t: 0.5 * loss(x, y) + 0.5 * loss(2 * x, y),
}


def main() -> None:
    x, y, s, t = mx.random.normal((N,)), mx.random.normal((N,)), mx.array(1.5), mx.array(0.1)
    mx.eval(x, y)
    print(f"{'compiled value-and-grad in x, 1 M float32':<44}{'ns/el':>7}{'B/el':>7}{'kernels':>9}")
    for name, around in AROUND.items():
        steps = {
            library: MLXStep(mx.compile(mx.value_and_grad(around(loss))), (x, y, s, t))
            for library, loss in LOSSES.items()
        }
        times = interleaved({k: v.__call__ for k, v in steps.items()}, 2.0)
        for library, step in steps.items():
            median = statistics.median(times[library])
            label = f"{name}: {library}"
            print(f"{label:<44}{median / N * 1e9:>7.2f}{peak(step) / N:>7.1f}{kernels(step):>9}")


if __name__ == "__main__":
    main()
