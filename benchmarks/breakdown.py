"""Where the time of a small eager call goes: built and evaluated, layer by layer.

    python benchmarks/breakdown.py huber_loss 256

Each line is a layer with all that are below it: MLX's derivative of nothing but a sum, the bare
arithmetic with its rules of differentiation (the term), the plan that calls it, the record that
finds the plan, the public function. "Build" is what Python and MLX take to make the graph, over and
over; "all" includes its evaluation, and the threads that wait for each other meanwhile.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from graph import primitives
from measure import interleaved
from mlx.utils import tree_flatten
from peers import Step

from smoothloss import losses
from smoothloss._engine.plan import prepare

Graph = Callable[[], Any]


def layers(name: str, x: mx.array, y: mx.array) -> dict[str, Callable[..., mx.array]]:
    """The mean of a loss as ever more of the library makes it."""
    function = getattr(losses, name)
    record, peer = function.loss, getattr(nn.losses, name, None)
    theta = [t.default for t in record.thresholds]
    given = [*theta, None, None]
    plan, *_ = prepare(record, name, record.data_names, x, y, "mean", None, given)
    row = [mx.array(v) for v in theta]
    term, count = plan.function(True, False), mx.array(float(x.size))
    found: dict[str, Callable[..., mx.array]] = {
        "a sum of x": lambda x, y: x.sum(),
        "term": lambda x, y: term(x, y, *row) / count,
        "plan": lambda x, y: plan(x, y, given),
        "record": lambda x, y: record(x, y, *theta, "mean"),
        "function": lambda x, y: function(x, y, reduction="mean"),
    }
    if peer is not None:
        found["mlx.nn"] = lambda x, y: peer(x, y, reduction="mean")
    return found


def evaluated(graph: Graph) -> None:
    mx.eval(graph())


def build(graph: Graph) -> float:
    """Microseconds to make a graph, of the best of many rounds."""
    rounds = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(200):
            graph()
        rounds.append((time.perf_counter() - start) / 200)
    return min(rounds) * 1e6


def nodes(graph: Graph) -> int:
    """The primitives of a graph."""
    leaves = cast(list[tuple[str, mx.array]], tree_flatten(graph()))
    return primitives([v for _, v in leaves])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loss", nargs="?", default="mse_loss")
    parser.add_argument("n", nargs="?", type=int, default=256)
    given = parser.parse_args()
    x, y = mx.random.normal((given.n,)), mx.random.normal((given.n,))
    mx.eval(x, y)
    for gradient in (False, True):
        graphs: dict[str, Graph] = {
            name: functools.partial(mx.value_and_grad(f) if gradient else f, x, y)
            for name, f in layers(given.loss, x, y).items()
        }
        steps: dict[str, Step] = {k: functools.partial(evaluated, g) for k, g in graphs.items()}
        times = interleaved(steps, 2.0)
        title = f"{given.loss} of {given.n}, {'value and grad' if gradient else 'forward'}"
        print(f"{title:<36}{'primitives':>12}{'build us':>10}{'all us':>8}")
        for name, graph in graphs.items():
            everything = statistics.median(times[name]) * 1e6
            print(f"    {name:<32}{nodes(graph):>12}{build(graph):>10.1f}{everything:>8.0f}")


if __name__ == "__main__":
    main()
