"""Builders shared by the tests: what to call, over the whole catalogue."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import mlx.core as mx
import numpy as np
import pytest

from smoothloss._catalog import Entry, catalog

LOSSES = [pytest.param(e, id=e.name) for e in catalog()]
WITH_THRESHOLD = [pytest.param(e, id=e.name) for e in catalog() if e.loss.thresholds]
FLOATS = [
    pytest.param(d, id=str(d).split(".")[-1])
    for d in (mx.float32, mx.float16, mx.bfloat16, mx.float64)
]


@pytest.fixture(params=LOSSES)
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


def thresholds(entry: Entry, value: object = 1.0) -> dict[str, object]:
    """Every threshold of the loss by name, with the same value."""
    return dict.fromkeys(entry.threshold_names, value)


def call(entry: Entry, **keywords: object) -> Callable[..., mx.array]:
    """The loss as a function of (x, y, *thresholds)."""

    def f(x: mx.array, y: mx.array, *theta: object) -> mx.array:
        named = dict(zip(entry.threshold_names, theta, strict=False))
        return entry.function(x, y, **named, **keywords)

    return f


def partial(entry: Entry, order: tuple[int, ...]) -> Callable[..., mx.array]:
    """The elementwise derivative of (x, y, *full-size thresholds) by nested mx.grad.

    In ``order``, 0 stands for the residual and 1 for the threshold.
    """
    return nested(call(entry, reduction="none"), [i + 1 if i else 0 for i in order])


def nested(f: Callable[..., mx.array], argnums: Iterable[int]) -> Callable[..., mx.array]:
    """The derivative of an elementwise ``f`` by each argument in turn."""
    for argnum in argnums:
        f = mx.grad(lambda *row, f=f: f(*row).sum(), argnums=argnum)
    return f


def orders(entry: Entry, most: int) -> list[tuple[int, ...]]:
    """All derivative orders up to ``most``."""
    arguments = range(1 + len(entry.loss.thresholds))
    return [order for n in range(1, most + 1) for order in itertools.product(arguments, repeat=n)]


def floats(*values: float, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(np.array(values), dtype)


def same_bits(a: mx.array, b: mx.array) -> bool:
    """Equal to the bit, all NaNs alike."""
    return a.dtype == b.dtype and a.shape == b.shape and mx.array_equal(a, b, equal_nan=True).item()
