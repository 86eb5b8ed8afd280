"""What each rank of ``test_distributed.py`` runs, and the one program that it is compared with.

``ranks.py FOLDER STEPS CASE...`` writes what it finds to FOLDER, one file for each rank.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

import smoothloss as sl

# The rows of each rank: unequal, and none for one of four.
BOUNDS = {1: (0, 40), 2: (0, 33, 40), 4: (0, 25, 29, 29, 40)}
Data = dict[str, mx.array]
Mean = Callable[..., mx.array]


def data(case: str, size: int = 1, rank: int = 0) -> Data:
    """The rows of one rank."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4))
    y = x @ rng.normal(size=(4, 3)) + np.linspace(-3, 3, 40)[:, None] + rng.normal(size=(40, 3))
    arrays: dict[str, Any] = {"x": x, "y": y}
    if case in ("weighted", "model-weighted", "curvature"):
        arrays["weights"] = rng.uniform(0.1, 2, (40, 1)) * np.linspace(0.1, 4, 40)[:, None]
    if case in ("masked", "accumulated", "half", "axis"):
        arrays["where"] = rng.random((40, 3)) < np.linspace(0.9, 0.2, 40)[:, None]
        y[~arrays["where"]] = np.nan
    if case == "masked-shard":  # the whole last one, of two and of four
        arrays["where"] = np.arange(40)[:, None] < 29
    if case == "all-masked":
        arrays["where"] = np.zeros((40, 1), bool)
    if case == "half":  # whose sums are above 65504
        arrays |= {"x": 40 * x.astype(np.float16), "y": 900 * y.astype(np.float16)}
    start, stop = BOUNDS[size][rank : rank + 2]
    rows = {name: v[start:stop] for name, v in arrays.items()}
    return {n: mx.array(v.astype(np.float32) if v.dtype == float else v) for n, v in rows.items()}


class Model(nn.Module):
    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case
        self.w = mx.array(np.random.default_rng(1).normal(size=(4, 3)), mx.float32)
        if case == "half":
            self.w = self.w.astype(mx.float16)
        if case in ("model-weighted", "curvature"):
            self.confidence = mx.array([[0.1, -0.2, 0.3]])
        self.loss: Any = getattr(sl, case, sl.huber_loss)
        if case == "adaptive":
            self.loss = sl.AdaptiveLoss(
                alpha=sl.Learned(mx.array([1.0, 0.5, 1.2]), high=2.0), scale=sl.Learned(1.0)
            )

    def __call__(self, mean: Mean, d: Data, **named: Any) -> mx.array:
        named |= {name: d[name] for name in ("weights", "where") if name in d}
        if "confidence" in self:
            named["weights"] = mx.exp(self.confidence) * d["weights"]
        if self.case == "axis":
            named["axis"] = 0
        one = lambda scale: mean(self.loss, scale * (d["x"] @ self.w), d["y"], **named)
        if self.case == "mapped":
            return mx.vmap(one)(mx.array([0.5, 1.0])).sum()
        return one(1).sum()


def plain(loss: Any, x: mx.array, y: mx.array, **named: Any) -> mx.array:
    """The mean of one program."""
    if isinstance(loss, sl.LossModule):
        return loss(x, y, **named)
    return loss(x, y, reduction="mean", **named)


def naive(*arguments: Any, **named: Any) -> mx.array:
    """The mean of a rank's own losses, which is wrong."""
    return plain(*arguments, **named)


def whole(mean: Mean, model: Model, d: Data, compiled: bool) -> Callable[[], Any]:
    """The function that returns value and gradient of one batch."""

    def gradient(d: Data) -> Any:
        return nn.value_and_grad(model, lambda d: model(mean, d))(d)

    state = model.state
    step = mx.compile(gradient, inputs=state, outputs=state) if compiled else gradient
    return lambda: step(d)


def accumulated(mean: Mean, model: Model, d: Data, compiled: bool) -> Callable[[], Any]:
    """The same over micro-batches of nine rows, of which the last is shorter."""
    total = sl.total_weight(d["y"], where=d["where"])
    mx.eval(total)

    def gradient(d: Data, total: mx.array) -> Any:
        return nn.value_and_grad(model, lambda d: model(mean, d, total=total))(d)

    state = model.state
    step = mx.compile(gradient, inputs=state, outputs=state) if compiled else gradient

    def both() -> Any:
        out = mx.array(0.0), tree_map(mx.zeros_like, model.trainable_parameters())
        for i in range(0, len(d["y"]), 9):
            part = step({name: v[i : i + 9] for name, v in d.items()}, total)
            out = tree_map(mx.add, out, part)
        share, gradients = out
        value = nn.average_gradients(share)
        mx.eval(value)
        return value, gradients

    return both


def curvature(mean: Mean, model: Model, d: Data, compiled: bool) -> Callable[[], Any]:
    """The function that returns value and gradient, each with its derivative in one direction."""
    names = ("confidence", "w")

    def value(*parameters: mx.array) -> mx.array:
        model.update(dict(zip(names, parameters, strict=True)))
        return model(mean, d)

    def both() -> Any:
        at = [mx.array(model[name]) for name in names]
        ahead = [mx.cos(v) for v in at]
        (here,), (slope,) = mx.jvp(value, at, ahead)
        gradients = mx.jvp(mx.grad(value, argnums=(0, 1)), at, ahead)
        model.update(dict(zip(names, at, strict=True)))
        mx.eval(here, slope)
        return mx.stack([here, slope]), gradients

    return both


def train(case: str, mean: Mean, d: Data, steps: int, compiled: bool) -> dict[str, list[float]]:
    """The values of all steps, the first gradient, and the parameters in the end.

    Of the losses of the catalogue, of half types and of second derivatives, there is one step.
    """
    model, optimizer = Model(case), optim.SGD(0.05, momentum=0.9)
    kinds = {"curvature": curvature}
    if mean is not plain:
        kinds["accumulated"] = accumulated
    step = kinds.get(case, whole)(mean, model, d, compiled)
    values, first = [], []
    for _ in range(1 if case.endswith(("_loss", "half", "curvature")) else steps):
        value, gradients = step()
        if mean is not plain:
            gradients = nn.average_gradients(gradients)
        first = first or numbers(gradients)
        if case != "curvature":
            optimizer.update(model, gradients)
        mx.eval(model, optimizer.state)
        if mx.distributed.init().rank() == 0:
            mx.eval(value)  # by one rank alone, as by one that logs
        values.append(value)
    parameters = numbers(model.trainable_parameters())
    return {"values": numbers(values), "gradients": first, "parameters": parameters}


def numbers(tree: Any) -> list[float]:
    flat = [v.astype(mx.float32).reshape(-1) for _, v in tree_flatten(tree)]
    return mx.concatenate(flat).tolist()


def main() -> None:
    folder, steps, *cases = sys.argv[1:]
    group = mx.distributed.init()
    out = {}
    for name in cases:
        case, way = name.split(":")
        rows = data(case, group.size(), group.rank())
        mean = naive if way == "naive" else sl.global_mean
        out[name] = train(case, mean, rows, int(steps), way == "compiled")
    Path(folder, f"{group.rank()}.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()
