"""The contestants: how each library makes a step of a workload, without arguments, that waits."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from workloads import Data, Workload

from smoothloss import losses

Step = Callable[[], Any]
"""Computes and returns the value, or the value and the gradient in x, evaluated."""


@dataclass(frozen=True)
class MLXStep:
    """A step of MLX: ``run(*row)`` is its graph, not evaluated."""

    run: Callable[..., Any]
    row: tuple[mx.array, ...]

    def __call__(self) -> Any:
        out = self.run(*self.row)
        mx.eval(out)
        return out


def _array(v: Any, dtype: mx.Dtype = mx.float32) -> Any:
    return mx.array(v).astype(dtype) if isinstance(v, np.ndarray) else v


def _mlx_step(workload: Workload, data: Data, loss: Callable[..., mx.array]) -> MLXStep:
    dtype = getattr(mx, workload.dtype)
    x, y = _array(data.x, dtype), _array(data.y, dtype)
    number = data.threshold if isinstance(data.threshold, float) else None
    given = {
        "threshold": None if number is not None else _array(data.threshold),
        "weights": _array(data.weights, dtype),
        "where": None if data.where is None else mx.array(data.where),
    }
    named = {k: v for k, v in given.items() if v is not None}
    ones = mx.ones_like(x)

    def f(x: mx.array, y: mx.array, *row: mx.array) -> mx.array:
        keywords = dict(zip(named, row, strict=True))
        threshold = keywords.pop("threshold", number)
        return loss(x, y, *([] if threshold is None else [threshold]), **keywords)

    def step(x: mx.array, y: mx.array, *row: mx.array) -> Any:
        if not workload.gradient:
            return f(x, y, *row)
        if workload.reduction == "mean":
            return mx.value_and_grad(f)(x, y, *row)
        return mx.vjp(lambda x: f(x, y, *row), [x], [ones])

    row = (x, y, *named.values())
    mx.eval(row, ones)
    return MLXStep(mx.compile(step) if workload.compiled else step, row)


def smoothloss(workload: Workload, data: Data) -> MLXStep:
    def loss(x: mx.array, y: mx.array, *threshold: Any, **keywords: mx.array) -> mx.array:
        named = dict(zip((str(workload.threshold_name),), threshold, strict=False))
        function: Callable[..., mx.array] = getattr(losses, workload.loss)
        return function(x, y, reduction=workload.reduction, **named, **keywords)

    return _mlx_step(workload, data, loss)


def mlx_nn(workload: Workload, data: Data) -> MLXStep | None:
    """``mlx.nn.losses``, with weights and masks as its users write them."""
    peer = getattr(nn.losses, workload.loss, None)
    if peer is None:
        return None
    mean = workload.reduction == "mean"

    def loss(
        x: mx.array,
        y: mx.array,
        *threshold: Any,
        weights: mx.array | None = None,
        where: mx.array | None = None,
    ) -> mx.array:
        if weights is None and where is None:
            out: mx.array = peer(x, y, *threshold, reduction=workload.reduction)
            return out
        w = mx.array(1) if weights is None else weights
        if where is not None:  # selected before the loss, so that no NaN left out shows
            x, y, w = (mx.where(where, v, 0) for v in (x, y, w))
        out = w * peer(x, y, *threshold, reduction="none")
        return out.sum() / w.sum() if mean else out

    return _mlx_step(workload, data, loss)


def floors(workload: Workload, data: Data) -> dict[str, Step]:
    """The roofline: the cheapest graphs that read two arrays and write one, and that sum one.

    Half types are converted, as any loss must; the cheapest of three sums counts.
    """
    dtype = getattr(mx, workload.dtype)
    x, y = _array(data.x, dtype), _array(data.y, dtype)
    losses = _array(data.x)
    side = 1 << (max(0, workload.n.bit_length() - 1) // 2)
    whole = losses.reshape(-1)[: side * (workload.n // side)].reshape(side, -1)
    cast = mx.compile(lambda x, y: (x.astype(mx.float32) - y.astype(mx.float32)).astype(dtype))
    mx.eval(x, y, losses, whole)
    return {
        "map": lambda: mx.eval(x - y if dtype == mx.float32 else cast(x, y)),
        "sum": lambda: mx.eval(losses.sum()),
        "sum of columns": lambda: mx.eval(whole.sum(0).sum()),
        "sum of rows": lambda: mx.eval(whole.sum(1).sum()),
    }


def _mean(losses: Any, factors: Any) -> Any:
    """The mean, and with weights or a mask what users of PyTorch and JAX write for it."""
    return losses.mean() if factors is None else (factors * losses).sum() / factors.sum()


def _torch_step(workload: Workload, data: Data, *, compiled: bool) -> Step | None:
    torch: Any = importlib.import_module("torch")
    dtype = getattr(torch, workload.dtype)
    x, y = (torch.tensor(v).to(dtype) for v in (data.x, data.y))
    x.requires_grad_(workload.gradient)
    function = getattr(torch.nn.functional, workload.loss, None)
    if function is None:
        return None
    names = {} if data.threshold is None else {str(workload.threshold_name): data.threshold}
    factors = None if data.factors is None else torch.tensor(data.factors).to(dtype)

    def loss(x: Any, y: Any) -> Any:
        if factors is None:
            return function(x, y, reduction="mean", **names)
        return _mean(function(x, y, reduction="none", **names), factors)

    if compiled:
        torch.compiler.reset()
        loss = torch.compile(loss)

    def step() -> Any:
        value = loss(x, y)
        return (value, torch.autograd.grad(value, x)[0]) if workload.gradient else value

    return step


def _jax_step(workload: Workload, data: Data) -> Step | None:
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    elementwise = {
        "l1_loss": lambda x, y: abs(x - y),
        "mse_loss": optax.squared_error,
        "huber_loss": lambda x, y: optax.huber_loss(x, y, delta=data.threshold),
        "smooth_l1_loss": lambda x, y: (
            optax.huber_loss(x, y, delta=data.threshold) / data.threshold
        ),
        "log_cosh_loss": optax.log_cosh,
    }.get(workload.loss)
    if elementwise is None:
        return None
    x, y = (jax.numpy.array(v, workload.dtype) for v in (data.x, data.y))
    factors = None if data.factors is None else jax.numpy.array(data.factors, workload.dtype)

    def loss(x: Any, y: Any) -> Any:
        return _mean(elementwise(x, y), factors)

    run = jax.jit(jax.value_and_grad(loss) if workload.gradient else loss)
    return lambda: jax.block_until_ready(run(x, y))


def _plain(workload: Workload) -> bool:
    """Whether every library can be asked for it in the same words."""
    one = not (workload.weights and workload.where)
    number = workload.threshold == "number"
    return workload.reduction == "mean" and number and one and not workload.batched


def peers(workload: Workload, data: Data) -> dict[str, Step]:
    """The steps of the other libraries: of MLX always, of those that are installed beside it."""
    found: dict[str, Step | None] = {"mlx.nn": mlx_nn(workload, data)}
    if _plain(workload) and importlib.util.find_spec("torch"):
        found["torch"] = _torch_step(workload, data, compiled=False)
        if workload.compiled and workload.n > 1 and not workload.dims:
            found["torch.compile"] = _torch_step(workload, data, compiled=True)
    if _plain(workload) and workload.compiled and importlib.util.find_spec("optax"):
        found["optax"] = _jax_step(workload, data)
    return {name: step for name, step in found.items() if step is not None}
