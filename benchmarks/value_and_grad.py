"""Compiled value-and-grad of every loss against mlx.nn.losses, in one run.

The two run in turn, and a row gives the median time per element, the ratio of the medians and the
quartiles of the ratio call by call: quote the ratio, since machines differ and drift.

    python benchmarks/value_and_grad.py [--sizes 65536 1048576] [--repeats 30]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import mlx.core as mx
import mlx.nn as nn

from smoothloss._catalog import catalog

Loss = Callable[..., mx.array]
Step = Callable[[mx.array, mx.array], object]


def compiled(loss: Loss) -> Step:
    return mx.compile(mx.value_and_grad(lambda x, y: loss(x, y, reduction="mean")))


def seconds(step: Step, x: mx.array, y: mx.array) -> float:
    start = time.perf_counter()
    mx.eval(step(x, y))
    return time.perf_counter() - start


def check(ours: Loss, theirs: Loss, x: mx.array, y: mx.array) -> None:
    """Both give the same gradient of the sum, to the rounding of half types within the peer."""
    g, h = (mx.grad(lambda x, f=f: f(x, y, reduction="sum"))(x) for f in (ours, theirs))
    if not mx.allclose(g, h, rtol=2e-2, atol=2e-2).item():
        raise SystemExit(f"{ours} and {theirs} disagree in {x.dtype}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1 << 16, 1 << 20, 1 << 24])
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    print(f"MLX {version('mlx')} on {mx.default_device()}; ns per element, medians")
    print(f"{'loss':16}{'dtype':10}{'N':>10}{'ours':>8}{'mlx':>8}{'ratio':>8}   quartiles")
    for entry in catalog():
        peer = getattr(nn.losses, entry.name, None)
        if peer is None:
            continue
        for dtype in (mx.float32, mx.float16, mx.bfloat16):
            for n in options.sizes:
                x, y = (mx.random.normal((n,)).astype(dtype) for _ in range(2))
                ours, theirs = compiled(entry.function), compiled(peer)
                check(entry.function, peer, x[:4096], y[:4096])
                mx.eval(ours(x, y), theirs(x, y))
                pairs = [
                    (seconds(ours, x, y), seconds(theirs, x, y)) for _ in range(options.repeats)
                ]
                a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
                low, _, high = statistics.quantiles([t / o for o, t in pairs], n=4)
                name = str(dtype).split(".")[-1]
                print(
                    f"{entry.name:16}{name:10}{n:>10}{a / n * 1e9:>8.2f}{b / n * 1e9:>8.2f}"
                    f"{b / a:>8.2f}   {low:.2f} to {high:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
