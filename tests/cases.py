"""Builders shared by the tests: what to call, over the whole catalogue."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import device
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from textbook import Row, row

import smoothloss as sl


@dataclass(frozen=True)
class Entry:
    """One public loss: its function, its record, its class and its row of the textbook."""

    name: str

    @cached_property
    def function(self) -> Callable[..., mx.array]:
        return getattr(sl, self.name)

    @cached_property
    def loss(self) -> sl.Loss:
        return self.function.loss

    @cached_property
    def module(self) -> type[sl.LossModule]:
        classes = (v for v in vars(sl).values() if isinstance(v, type))
        return next(c for c in classes if getattr(c, "loss", None) is self.loss)

    @cached_property
    def textbook(self) -> Row:
        return row(self.name)

    @property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @property
    def data_names(self) -> tuple[str, str]:
        first, second, *_ = self.signature.parameters
        return first, second

    @property
    def threshold_names(self) -> tuple[str, ...]:
        return self.loss.threshold_names

    def trait(self, name: str, *theta: Any) -> Any:
        """A trait for thresholds, which may be arrays where its formula takes arrays."""
        trait = getattr(self.loss.traits, name)
        return trait(*theta) if callable(trait) else trait

    def traits(self, name: str, *theta: np.ndarray) -> np.ndarray | float:
        """A numeric trait for arrays of thresholds, element by element."""
        with np.errstate(all="ignore"):
            each = np.vectorize(lambda *v: self.trait(name, *map(float, v)), otypes=[float])
            return each(*theta) if theta else self.trait(name)


def catalog() -> tuple[Entry, ...]:
    """Every loss, by name."""
    return tuple(map(Entry, sl.losses.__all__))


BY_NAME = {e.name: e for e in catalog()}
LOSSES = [pytest.param(e, id=e.name) for e in catalog()]
WITH_THRESHOLD = [pytest.param(e, id=e.name) for e in catalog() if e.loss.thresholds]
FLOATS = [
    pytest.param(d, id=str(d).split(".")[-1])
    for d in (mx.float32, mx.float16, mx.bfloat16, mx.float64)
]
# Those that the device has, for tests that draw them.
HERE = [p.values[0] for p in FLOATS if device.FLOAT64 or p.values[0] != mx.float64]
# Plain numbers, not in the units of the residual: their special values, inside any interval.
NUMBERS = (
    -np.inf,
    -50,
    -15.4,
    -6.5,
    -2,
    -1e-3,
    0,
    1e-3,
    0.3,
    0.5,
    1,
    1.5,
    1.75,
    1.999,
    2,
    2.001,
    4,
    15.5,
    np.inf,
)


STACK_LOSS = np.loadtxt(
    """
80 27 89 42;80 27 88 37;75 25 90 37;62 24 87 28;62 22 87 18;62 23 87 18;62 24 93 19;62 24 93 20;
58 23 87 15;58 18 80 14;58 18 89 14;58 17 88 13;58 18 82 11;58 19 93 12;50 18 89 8;50 18 86 7;
50 19 72 8;50 19 79 8;50 20 80 9;56 20 82 15;70 20 91 15
""".replace(";", "\n").splitlines()
)
"""K. A. Brownlee, Statistical Theory and Methodology in Science and Engineering, 2nd ed., 1965:
flow of air, temperature, acid and the loss of ammonia on 21 days of a plant."""


# Of a docstring, in order.
SECTIONS = ["Parameters", "Returns", "Raises", "Notes", "References", "Examples"]


def docstring_entries(thing: object) -> dict[str, str]:
    """The arguments that a NumPy docstring describes, each with its text, the type included."""
    text = inspect.getdoc(thing) or ""
    start = text.index("Parameters\n---")
    part = re.split(r"^(?:Returns|Examples)\n---", text[start:], maxsplit=1, flags=re.MULTILINE)[0]
    found = {}
    for entry in re.findall(r"^\S.* : .*(?:\n .*)*", part, re.MULTILINE):
        names, text = entry.split(" : ", 1)
        found |= dict.fromkeys(names.split(", "), text)
    return found


def broken_links(folder: Path, text: str) -> list[str]:
    """The relative links of a Markdown text that lead nowhere from its folder."""
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    return [link for link in links if not (folder / link).exists()]


def script(path: str) -> ModuleType:
    """A file of ``benchmarks`` or ``docs``, which are no packages, as a module."""
    file = Path(__file__).parents[1] / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(spec: sl.Threshold) -> list[float]:
    """The special values of a threshold that is a plain number."""
    valid = [v for v in NUMBERS if spec.low <= v <= spec.high]
    return [v for v in valid if not (spec.open_low and v == spec.low)]


def fitted(entry: Entry, positive: Any) -> list[Any]:
    """A valid value for each threshold: a positive one, squeezed into (0, 1) for plain numbers."""
    return [
        positive if t.has_residual_units else positive / (1 + positive)
        for t in entry.loss.thresholds
    ]


def thresholds(entry: Entry, positive: Any = 1.0) -> dict[str, Any]:
    """The same by name."""
    return dict(zip(entry.threshold_names, fitted(entry, positive), strict=True))


def call(entry: Entry, **keywords: object) -> Callable[..., mx.array]:
    """The loss as a function of (x, y, *thresholds)."""

    def f(x: mx.array, y: mx.array, *theta: object) -> mx.array:
        named = dict(zip(entry.threshold_names, theta, strict=False))
        return entry.function(x, y, **named, **keywords)

    return f


def partial(entry: Entry, order: tuple[int, ...]) -> Callable[..., mx.array]:
    """The elementwise derivative of (x, y, *full-size thresholds) by nested mx.grad.

    In ``order``, 0 stands for the residual and 1 for the first threshold.
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


def exports(f: Callable[[], mx.array]) -> bool:
    """Whether MLX exports a function: it does unless there is a custom function in the graph."""
    try:
        mx.export_function(os.devnull, f)
    except ValueError as error:
        if "Unable to serialize primitive CustomTransforms" not in str(error):
            raise
        return False
    return True


class Line(nn.Module):
    """A line through two features for each of two outputs, which holds its loss."""

    def __init__(self, loss: sl.LossModule) -> None:
        super().__init__()
        self.line = nn.Linear(2, 2)
        self.loss = loss

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        return self.loss(self.line(x), y)


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int, *data: mx.array) -> list[float]:
    """Train in compiled steps, and return the losses."""
    state = [model.state, optimizer.state]

    def step(*data: mx.array) -> mx.array:
        value, grads = nn.value_and_grad(model, model)(*data)
        optimizer.update(model, grads)
        return value

    compiled = mx.compile(step, inputs=state, outputs=state)
    return [compiled(*data).item() for _ in range(steps)]
