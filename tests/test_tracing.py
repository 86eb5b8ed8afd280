"""Calls under a transform and calls without one, which take a shorter way: the same results."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, FLOATS, Entry, call, same_bits, script, thresholds
from mlx.utils import tree_flatten

import smoothloss as sl
from smoothloss._engine.tracing import traced

GRAPH = script("benchmarks/graph.py")


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


# Of the mean of 256 elements without mx.compile, at most: primitives and Python functions of the
# package, of a forward pass and with the gradient.
COUNTS = {
    "mse_loss": ((7, 20), (14, 23)),
    "l1_loss": ((7, 22), (14, 23)),
    "huber_loss": ((13, 31), (16, 26)),
    "smooth_l1_loss": ((14, 34), (16, 26)),
}


def primitives(f: Callable[..., object], *row: mx.array) -> int:
    return GRAPH.primitives([v for _, v in tree_flatten(f(*row))])


def functions_called(f: Callable[..., object], *row: mx.array) -> int:
    names: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "smoothloss" in Path(frame.f_code.co_filename).parts:
            names.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        f(*row)
    finally:
        sys.setprofile(None)
    return len(names)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.cpu
def test_an_eager_call_does_little(name: str) -> None:
    """A primitive costs 2 to 3 microseconds, whatever the size, and Python is not far behind."""
    x, y = mx.ones(256), mx.zeros(256)
    loss = getattr(sl, name)
    f = lambda x, y: loss(x, y, reduction="mean")
    for steps, (most_primitives, most_functions) in zip(
        (f, mx.value_and_grad(f)), zip(*COUNTS[name], strict=True), strict=True
    ):
        for _ in range(2):  # the first call of a kind is taken for a traced one
            mx.eval(steps(x, y))
        assert primitives(steps, x, y) <= most_primitives
        assert functions_called(steps, x, y) <= most_functions


@pytest.mark.parametrize(("given", "most"), [("weights", (21, 42)), ("where", (19, 40))])
@pytest.mark.cpu
def test_weights_and_masks_add_little(given: str, most: tuple[int, int]) -> None:
    x, y, w = mx.ones((256, 1)), mx.zeros((256, 1)), mx.ones((256, 1))

    def f(x: mx.array, y: mx.array, w: mx.array) -> mx.array:
        return sl.huber_loss(x, y, reduction="mean", **{given: w})

    row = [x, y, w if given == "weights" else w > 0]
    for steps, bound in zip((f, mx.value_and_grad(f)), most, strict=True):
        for _ in range(2):
            mx.eval(steps(*row))
        assert primitives(steps, *row) <= bound


def test_what_a_call_needs_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For arrays of the same shapes and dtypes, and the same numbers: nothing is checked again."""
    from smoothloss._engine import inputs

    calls: list[str] = []
    for name in ("data", "axes", "thresholds", "weighting", "selection"):
        original = getattr(inputs, name)
        monkeypatch.setattr(
            inputs, name, lambda *a, n=name, o=original, **k: calls.append(n) or o(*a, **k)
        )

    def checked(delta: object, n: int = 7, **given: object) -> bool:
        calls.clear()
        rng = np.random.default_rng(n)
        x, y, w = (mx.array(rng.random((n, 3)), mx.float32) for _ in range(3))
        both = {"weights": w, "where": w > 0.5} | given
        out = sl.huber_loss(x, y, delta, "mean", **both)
        r, w, m = (np.array(v, np.float64) for v in (x - y, w, w > 0.5))
        w = w * m if both["weights"] is not None else m
        rho = np.where(abs(r) < 0.25, r * r / 2, 0.25 * (abs(r) - 0.125))
        np.testing.assert_allclose(out, (w * rho).sum() / w.sum(), 1e-6)
        return bool(calls)

    for delta in (0.25, mx.array(0.25), mx.full((7, 1), 0.25)):
        assert checked(delta)
        assert not checked(delta)
    assert not checked(mx.array(0.25))  # another array of the kind
    assert checked(0.25, n=8)
    assert checked(0.25, weights=None)
    assert checked(np.float32(0.25))
    assert checked(np.array(0.25))
    assert checked(np.array(0.25))  # which no plan is kept for


@pytest.mark.parametrize("wrong", [True, "1.0", [0.25], None, -1.0, float("nan")])
def test_a_wrong_argument_raises_after_right_ones(wrong: object) -> None:
    x, y = mx.ones(3), mx.zeros(3)
    for right in (1.0, 1, np.float64(1)):
        sl.huber_loss(x, y, right)
    with pytest.raises((TypeError, ValueError), match="delta"):
        sl.huber_loss(x, y, wrong)
    sl.huber_loss(x, y, reduction="sum", axis=0)
    for axis in (True, 0.0, [True]):
        with pytest.raises(TypeError, match="axis"):
            sl.huber_loss(x, y, reduction="sum", axis=axis)


def test_what_was_one_array_may_be_two() -> None:
    x, y = mx.full((3,), 2.0), mx.zeros(3)
    one, two = mx.array(1.0), mx.full((1,), 2.0)
    for alpha, scale, w in ((one, one, one), (one, two, one), (two, one, one), (two, two, two)):
        got = sl.general_loss(x, y, alpha, scale, "sum", weights=w).item()
        u = 2 / scale.item()
        rho = u * u / 2 if alpha is two else np.sqrt(1 + u * u) - 1
        assert got == pytest.approx(3 * w.item() * rho, rel=1e-6)


def test_a_negative_zero_is_a_zero() -> None:
    x, y = mx.array([0.0, 1.0]), mx.zeros(2)
    for first, second in ((0.0, -0.0), (-0.0, 0.0)):
        sl.smooth_l1_loss.loss.plans.clear()
        for beta in (first, second):
            g = mx.grad(lambda x, beta=beta: sl.smooth_l1_loss(x, y, beta, "sum"))(x)
            assert g.tolist() == [0, 1]


def test_a_loss_keeps_few_plans() -> None:
    """A threshold that falls with every step must not fill the memory."""
    from smoothloss._engine.evaluate import MOST

    x, y = mx.ones(3), mx.zeros(3)
    for i in range(MOST + 9):
        sl.huber_loss(x, y, 1 + i / 1024)
    assert len(sl.huber_loss.loss.plans) <= MOST
