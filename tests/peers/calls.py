"""One way to call a loss of any library; the tables of docs/parity.md are written in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import mlx.core as mx
import numpy as np
import torch

torch.set_num_threads(1)

# All that the comparisons find: of a loss and its gradient, and of reductions, which each library
# adds up in another order.
ULPS, SUM_ULPS = 2, 5


def library(loss: Callable[..., Any]) -> str:
    return loss.__module__.split(".")[0]


def array(home: str, values: Any, dtype: str) -> Any:
    """An array of the library ``home``."""
    wide = np.asarray(values, np.float64)
    if home == "smoothloss":
        return mx.array(wide, mx.float64).astype(getattr(mx, dtype))
    if home == "torch":
        return torch.tensor(wide).to(getattr(torch, dtype))
    return jnp.asarray(wide).astype(dtype)


def dtype_of(v: Any) -> str:
    return str(v.dtype).split(".")[-1]


def as_numpy(v: Any) -> np.ndarray:
    """In NumPy, with its dtype."""
    dtype = dtype_of(v)
    if isinstance(v, mx.array):
        v = v.astype(mx.float64)
    elif isinstance(v, torch.Tensor):
        v = v.double().numpy(force=True)
    return np.asarray(v).astype(dtype)


def slopes(
    home: str, f: Callable[..., Any], args: Sequence[Any], cotangent: Any = 1.0
) -> Sequence[Any]:
    """The derivatives of ``(f(*args) * cotangent).sum()`` by each argument."""
    args = [a.requires_grad_() for a in args] if home == "torch" else list(args)
    out = f(*args)
    seed = array(home, np.broadcast_to(cotangent, out.shape), dtype_of(out))
    if home == "torch":
        return torch.autograd.grad(out, args, seed, create_graph=True)
    return mx.vjp(f, args, [seed])[1] if home == "smoothloss" else jax.vjp(f, *args)[1](seed)


def derivative(order: int) -> Callable[..., np.ndarray]:
    """The derivative by x of a loss of arrays, those of Keras in our order."""

    def at(
        loss: Callable[..., Any],
        x: Any,
        y: Any = 0.0,
        dtype: str | tuple[str, str] = "float32",
        **named: Any,
    ) -> np.ndarray:
        home, dtypes = library(loss), (dtype, dtype) if isinstance(dtype, str) else dtype
        x = np.atleast_1d(np.asarray(x, np.float64))
        y = np.full_like(x, y) if np.ndim(y) == 0 else y
        x, y = (array(home, v, d) for v, d in zip((x, y), dtypes, strict=True))
        arrays = {k: v for k, v in named.items() if isinstance(v, np.ndarray)}
        named |= {k: array(home, v, dtypes[0]) for k, v in arrays.items()}
        f = lambda x: loss(y, x, **named) if home == "keras" else loss(x, y, **named)
        for _ in range(order):
            f = lambda x, f=f: slopes(home, f, [x])[0]
        return as_numpy(f(x))

    return at


value, grad, grad2 = (derivative(order) for order in range(3))


def ulps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """|got - want| in units in the last place of want; 0 where both are the same inf or NaN."""
    limits = ml_dtypes.finfo(want.dtype)
    a, b = got.astype(np.float64), want.astype(np.float64)
    exponent = np.where(b == 0, -10_000, np.frexp(b)[1] - 1)
    unit = np.maximum(np.ldexp(float(limits.eps), exponent), float(limits.smallest_subnormal))
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, abs(a - b) / unit)
    return np.where(np.isnan(off), np.inf, off)
