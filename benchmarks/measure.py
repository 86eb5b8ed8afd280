"""How it is timed and counted."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any, cast

import mlx.core as mx
import numpy as np
from graph import data_nodes
from mlx.utils import tree_flatten
from peers import MLXStep, Step, floors, peers, smoothloss
from workloads import Workload, data

Row = dict[str, Any]
Leaves = list[tuple[str, mx.array]]
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 3e-2}
CHECKED = 4096


def _seconds(step: Step, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def interleaved(steps: dict[str, Step], budget: float) -> dict[str, list[float]]:
    """Seconds of each step, in rounds of one after the other, for about ``budget`` seconds."""
    for step in steps.values():
        step()
    once = {name: _seconds(step, 2) for name, step in steps.items()}
    calls = {name: max(1, int(5e-4 / t)) for name, t in once.items()}
    a_round = sum(calls[name] * t for name, t in once.items())
    rounds = min(100, max(3, int(budget / a_round)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                times[name].append(_seconds(step, calls[name]))
    finally:
        gc.enable()
    return times


def _numbers(out: Any) -> list[np.ndarray[Any, Any]]:
    """The value and gradient of a step of any library, in float64."""
    flat = []
    for v in out if isinstance(out, list | tuple) else [out]:
        v = v[0] if isinstance(v, list | tuple) else v
        if isinstance(v, mx.array):
            v = v.astype(mx.float32)
        elif hasattr(v, "detach"):
            v = v.detach().float()
        flat.append(np.array(v, np.float64))
    return flat


def check(workload: Workload) -> None:
    """The libraries agree on the first elements, or there is nothing to compare."""
    few = replace(workload, n=min(workload.n, CHECKED), dims=())
    given = data(few)
    tolerance = TOLERANCE[workload.dtype]
    x, y = (mx.array(v).astype(getattr(mx, workload.dtype)) for v in (given.x, given.y))
    no_tie = np.array(x != y)  # where subgradients differ
    ours = _numbers(smoothloss(few, given)())
    for library, peer in peers(few, given).items():
        for a, b in zip(ours, _numbers(peer()), strict=True):
            if a.shape:
                a, b = a[no_tie], b[no_tie]
            if not np.allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(a).max()):
                raise SystemExit(f"smoothloss and {library} disagree: {workload}")


def peak(step: Step) -> int:
    """Bytes that a call allocates at most, its results included."""
    step()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    step()
    return int(mx.get_peak_memory() - before)


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4)


def measure(workload: Workload, budget: float) -> Row:
    """Time ours, the roofline and every peer in one run: quartiles, and ratios call by call."""
    check(workload)
    given = data(workload)
    ours, rivals = smoothloss(workload, given), peers(workload, given)
    bounds = floors(workload, given)
    times = interleaved({"smoothloss": ours, **rivals, **bounds}, budget)
    mine = times["smoothloss"]
    medians = {name: statistics.median(t) for name, t in times.items()}
    roofline = medians["map"]
    if workload.reduction == "mean":
        roofline += min(medians[name] for name in bounds if name.startswith("sum"))
    return {
        **vars(workload),
        "label": workload.label,
        "seconds": {name: _quartiles(t) for name, t in times.items()},
        "ratio": {
            name: _quartiles([b / a for a, b in zip(mine, times[name], strict=True)])
            for name in rivals
        },
        "roofline": medians["smoothloss"] / roofline,
        "map": medians["smoothloss"] / medians["map"],
        "peak_bytes": {
            name: peak(step)
            for name, step in {"smoothloss": ours, **rivals}.items()
            if isinstance(step, MLXStep)
        },
        "kernels": kernels(ours),
    }


def kernels(step: MLXStep) -> int:
    """Fused kernels of the data in the compiled graph."""
    leaves = cast(Leaves, tree_flatten(step.run(*step.row)))
    return data_nodes([v for _, v in leaves], step.row[:2])["Compiled"]


FIRST = """
import glob, os, sys, time
import mlx.core as mx
module, name, threshold, thresholds = *sys.argv[1:4], int(sys.argv[4])
loss = getattr(__import__(module, fromlist=["_"]), name)
x, y = mx.random.normal((4096,)), mx.random.normal((4096,))
mx.eval(x, y)
def run(value):
    theta = {threshold: value} if thresholds else {}
    f = lambda x, y: loss(x, y, **theta, reduction="mean")
    mx.eval(mx.compile(mx.value_and_grad(f))(x, y))
def kernels():
    return len(glob.glob(os.environ["TMPDIR"] + "/**/*.so", recursive=True))
start = time.perf_counter()
run(1.0)
seconds, first = time.perf_counter() - start, kernels()
for i in range(thresholds):
    run(0.5 + i / 64)
print(seconds, first, kernels() - first)
"""


def first_call(module: str, loss: str, threshold: str, thresholds: int) -> Row:
    """What a fresh process without cached kernels pays, and then for so many new thresholds."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, "-c", FIRST, module, loss, threshold, str(thresholds)],
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            check=True,
        )
    seconds, first, new = run.stdout.split()
    return {
        "seconds": float(seconds),
        "compilations": int(first),
        "thresholds": thresholds,
        "for_new_thresholds": int(new),
    }
