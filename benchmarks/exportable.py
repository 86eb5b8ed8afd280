"""What a loss costs inside ``exportable()``: beside the same loss outside, and beside ``mlx.nn``.

The table is that of docs/export.md. Value and gradient of the mean, in float32.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from measure import interleaved
from peers import MLXStep

from smoothloss import exportable, losses

SHARED = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "log_cosh_loss")
SIZES = (256, 1 << 12, 1 << 16, 1 << 20)


def step(loss: Callable[..., mx.array]) -> Callable[[mx.array, mx.array], Any]:
    return mx.value_and_grad(lambda x, y: loss(x, y, reduction="mean"))


def compiled(name: str) -> dict[str, Callable[[mx.array, mx.array], Any]]:
    inside = mx.compile(exportable()(step(getattr(losses, name))), shapeless=True)
    steps = {"outside": mx.compile(step(getattr(losses, name))), "inside": inside}
    if hasattr(nn.losses, name):
        steps["mlx.nn"] = mx.compile(step(getattr(nn.losses, name)), shapeless=True)
    return steps


def eager(name: str) -> dict[str, Callable[[mx.array, mx.array], Any]]:
    steps = {"outside": step(getattr(losses, name))}
    steps["inside"] = exportable()(steps["outside"])
    if hasattr(nn.losses, name):
        steps["mlx.nn"] = step(getattr(nn.losses, name))
    return steps


def row(name: str, n: int, budget: float) -> list[str]:
    """The times of the three in microseconds, and the ratios to the other two, call by call."""
    x, y = mx.random.normal((n,)), mx.random.normal((n,))
    mx.eval(x, y)
    found = []
    for made in (compiled(name), eager(name)):
        steps = {which: MLXStep(f, (x, y)).__call__ for which, f in made.items()}
        times = interleaved(steps, budget)
        inside = times.pop("inside")
        for other in ("outside", "mlx.nn"):
            ratios = [t / i for t, i in zip(times.get(other, ()), inside, strict=False)]
            found.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        found.append(f"{statistics.median(inside) * 1e6:.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each comparison")
    parser.add_argument("--all", action="store_true", help="every loss, not those of mlx.nn alone")
    given = parser.parse_args()
    heads = ["outside", "`mlx.nn`", "us"]
    heads = [f"{mode}, {head}" for mode in ("compiled", "eager") for head in heads]
    print("| loss | elements |", *(f"{head} |" for head in heads))
    print("|---|---|" + "---|" * len(heads))
    for name in losses.__all__ if given.all else SHARED:
        for n in SIZES:
            print(
                f"| `{name}` | {n} |", *(f"{v} |" for v in row(name, n, given.budget)), flush=True
            )


if __name__ == "__main__":
    main()
