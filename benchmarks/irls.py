"""Many small robust regressions at once, beside statsmodels, which fits one at a time.

Run with the peers' environment: ``.venv-peers/bin/python benchmarks/irls.py``. It writes
``irls.json`` and prints the table that ``docs/regression.md`` quotes.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import smoothloss as sl

OUT = Path(__file__).with_suffix(".json")
# Regressions, rows, columns.
SIZES = [(1, 20, 4), (100, 20, 4), (10_000, 20, 4), (10_000, 100, 8), (1, 100_000, 8)]
SAMPLE, REPEATS = 100, 3
HUBER = sl.RobustNorm(sl.huber_loss, delta=1.345)


def data(m: int, n: int, p: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return designs with a constant, and targets with errors of Student's t, 3 degrees."""
    rng = np.random.default_rng(0)
    design = rng.normal(size=(m, n, p)).astype(np.float32)
    design[..., 0] = 1
    noise = rng.standard_t(3, size=(m, n))
    return design, (design.sum(-1) + noise).astype(np.float32)


def seconds(call: Callable[[], Any]) -> float:
    """Return the least time of a few calls, after one that does not count."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def row(m: int, n: int, p: int) -> dict[str, float]:
    """Time both, statsmodels on a sample of the regressions, and compare the coefficients."""
    sm = importlib.import_module("statsmodels.api")
    design, targets = data(m, n, p)
    x, y = mx.array(design), mx.array(targets)
    fit = sl.irls(x, y, HUBER)
    ours = seconds(lambda: mx.eval(sl.irls(x, y, HUBER)))
    some = range(min(m, SAMPLE))
    wide = [(targets[i].astype(float), design[i].astype(float)) for i in some]

    def loop(**named: Any) -> np.ndarray[Any, Any]:
        model = sm.robust.norms.HuberT(1.345)
        return np.stack([sm.RLM(a, b, M=model).fit(**named).params for a, b in wide])

    theirs = seconds(loop) * m / len(some)
    apart = np.abs(loop(maxiter=1000, tol=1e-14) - np.array(fit.coefficients)[: len(some)]).max()
    return {"m": m, "n": n, "p": p, "ours": ours, "theirs": theirs, "apart": float(apart)}


def markdown(rows: list[dict[str, float]]) -> str:
    """Return the table of the documentation."""
    lines = [
        "| regressions | rows | columns | `irls` | statsmodels | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        times = " | ".join(f"{r[key]:.2g} s" for key in ("ours", "theirs"))
        size = " | ".join(f"{r[key]:,}" for key in ("m", "n", "p"))
        lines.append(f"| {size} | {times} | {r['theirs'] / r['ours']:.2g} |")
    return "\n".join(lines)


def main() -> None:
    """Time every size."""
    rows = [row(*size) for size in SIZES]
    OUT.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
