"""Calls under a transform and calls without one, which take a shorter way: the same results."""

import re
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, FLOATS, Entry, call, same_bits, thresholds
from mlx.utils import tree_flatten

import smoothloss as sl
from smoothloss._engine.tracing import traced


def seen(transform: Callable[[Callable[..., mx.array]], Callable[..., object]]) -> bool:
    """Whether an argument is seen to be traced, the second time that it comes."""
    found: list[bool] = []

    def f(x: mx.array) -> mx.array:
        found.append(traced(x, mx.zeros(3)))
        return x.sum()

    for _ in range(2):
        mx.eval(transform(f)(mx.ones(3)))
    return found[-1]


TRANSFORMS = {
    "grad": mx.grad,
    "value_and_grad": mx.value_and_grad,
    "vmap": lambda f: lambda x: mx.vmap(f)(mx.stack([x, x])),
    "jvp": lambda f: lambda x: mx.jvp(f, [x], [x])[1],
    "vjp": lambda f: lambda x: mx.vjp(f, [x], [mx.array(1.0)])[1],
    "grad grad": lambda f: lambda x: mx.grad(lambda x: mx.grad(f)(x).sum())(x),
    "compile grad": lambda f: mx.compile(mx.grad(f)),
    "compile": lambda f: mx.compile(f),
    "checkpoint": lambda f: mx.grad(mx.checkpoint(f)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_seen(name: str) -> None:
    assert not seen(lambda f: f)
    assert seen(TRANSFORMS[name])
    assert not seen(lambda f: f)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_value_is_the_same_without_a_transform(
    entry: Entry, dtype: mx.Dtype, reduction: str
) -> None:
    x, y = (mx.random.normal((7, 30)).astype(dtype) for _ in range(2))
    w = mx.random.uniform(shape=(7, 30))
    for extra in ({}, {"weights": w}, {"where": w > 0.3}, {"weights": w, "where": w > 0.3}):
        for theta in thresholds(entry, 0.7), thresholds(entry, mx.array(0.7)):
            f = call(entry, reduction=reduction, **extra)
            row = list(theta.values())
            for _ in range(2):  # the first call of a kind is taken for a traced one
                alone = f(x, y, *row)
            inside = mx.vjp(lambda x, f=f, row=row: f(x, y, *row), [x], [mx.ones_like(alone)])[0][0]
            assert same_bits(alone, inside)


SPECIAL = [name for name in BY_NAME if BY_NAME[name].loss.ordinary]


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", [mx.float32, mx.float64])
def test_formulas_for_ordinary_thresholds_are_the_others_to_the_bit(
    name: str, dtype: mx.Dtype
) -> None:
    """From the smallest normal threshold to the largest, at any residual."""
    limits = mx.finfo(dtype)
    decades = (np.log10(float(limits.smallest_normal)), np.log10(float(limits.max)))
    rng = np.random.default_rng(0)
    sizes = 10 ** rng.uniform(*decades, 4000)
    r = mx.array(np.concatenate([[0, -0.0, np.inf, -np.inf, np.nan], sizes, -sizes]), dtype)
    theta = [float(limits.smallest_normal), *(10 ** rng.uniform(*decades, 40)), 1.0, limits.max]
    for kernel in (BY_NAME[name].loss.kernel, BY_NAME[name].loss.kernel.partial(0)):
        for value in theta:
            t = mx.array(float(value), dtype)
            for near in (r, mx.concatenate([t[None], -t[None], (t * 0.999)[None], (t / 3)[None]])):
                want = kernel.formula(near, t)
                assert same_bits((kernel.ordinary or kernel.formula)(near, t), want), value


def test_the_gradient_of_l1_is_the_same_for_few_and_for_many() -> None:
    r = mx.array([0.0, 1e-45, -1e-30, 3.0, float("inf"), float("-inf"), float("nan")])
    many = mx.concatenate([r, mx.zeros(1 << 15)])
    g = mx.grad(lambda x: sl.l1_loss(x, mx.zeros_like(x), "sum"))
    assert same_bits(g(r), g(many)[: r.size])


# Primitives of a call without mx.compile, at most: of the forward pass, and with the gradient.
PRIMITIVES = {
    "mse_loss": (7, 21),
    "l1_loss": (7, 22),
    "huber_loss": (13, 31),
    "smooth_l1_loss": (14, 34),
}


def primitives(f: Callable[..., object], *row: mx.array, file: Path) -> int:
    mx.eval(row)
    mx.eval(f(*row))  # the first call of a kind is taken for a traced one
    mx.export_to_dot(str(file), *(v for _, v in tree_flatten(f(*row))))
    return len(re.findall(r"shape=rectangle", file.read_text()))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_an_eager_call_builds_few_primitives(name: str, tmp_path: Path) -> None:
    """Each costs 2 to 3 microseconds, whatever the size: what small calls are made of."""
    x, y = mx.ones(256), mx.zeros(256)
    f = call(BY_NAME[name], reduction="mean")
    forward, both = PRIMITIVES[name]
    assert primitives(f, x, y, file=tmp_path / "f.dot") <= forward
    assert primitives(mx.value_and_grad(f), x, y, file=tmp_path / "g.dot") <= both


def test_a_call_is_validated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the backward pass nothing is looked at again."""
    from smoothloss._engine import inputs

    calls: list[str] = []
    for name in ("data", "axes", "thresholds", "weighting", "selection"):
        original = getattr(inputs, name)
        monkeypatch.setattr(
            inputs, name, lambda *a, n=name, o=original, **k: calls.append(n) or o(*a, **k)
        )
    given = {"weights": mx.ones(9), "where": mx.ones(9) > 0}
    f = lambda x: sl.huber_loss(x, mx.zeros(9), 1.0, "mean", **given)
    mx.eval(mx.value_and_grad(f)(mx.ones(9)))
    assert sorted(calls) == ["axes", "data", "selection", "thresholds", "weighting"]
