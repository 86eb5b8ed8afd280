"""Thresholds that are learned: they stay in their range, and find what is known."""

import copy
import fractions
import math
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import WITH_THRESHOLD, Entry, Line, same_bits, train
from mlx.utils import tree_flatten, tree_map
from oracle import as_numpy

import smoothloss as sl
from smoothloss import Threshold

pytestmark = pytest.mark.filterwarnings("ignore:.*no minimum")
INF = math.inf
RANGES = [(0.0, INF), (0.0, 2.0), (0.0, 1.0), (-3.0, INF), (5.0, 7.0)]


def learned(spec: Threshold, low: float = 0.0) -> sl.Learned:
    """Of the middle of a threshold's range."""
    high = spec.high
    return sl.Learned(low + (1 if high == INF else (high - low) / 2), low, high)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float64, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("bounds", RANGES)
def test_the_value_starts_at_the_initial_one(bounds: tuple[float, float], dtype: mx.Dtype) -> None:
    """Half types are learned in float32."""
    low, high = bounds
    rise = np.logspace(-34, 34, 137) if high == INF else (high - low) * np.logspace(-30, 0, 121)
    initial = mx.array(low + rise, dtype)
    v = as_numpy(initial)
    rise = v - low
    known = (v < np.inf) & (rise > 1e-34)
    known &= rise < (1e34 if high == INF else (high - low) * (1 - 2e-7))
    assert known.sum() > 5
    value = sl.Learned(initial[mx.array(np.flatnonzero(known))], low, high).value
    assert value.dtype == (mx.float64 if dtype == mx.float64 else mx.float32)
    off = abs(as_numpy(value).astype(float) - v[known])
    assert (off <= 1e-5 * rise[known] + 1.2e-7 * abs(v[known])).all()


@pytest.mark.parametrize("bounds", RANGES)
def test_the_formula_and_its_derivative(bounds: tuple[float, float]) -> None:
    """v = low + e^t has v' = e^t; v = low + w s has v' = w s (1 - s), s = 1 / (1 + e^-t)."""
    low, high = bounds
    t = np.linspace(-6, 6, 25)
    rise = np.exp(t) if high == INF else (high - low) / (1 + np.exp(-t))
    slope = rise if high == INF else rise * (1 - rise / (high - low))
    threshold = learned(Threshold("t", high=high), low)
    threshold.raw = mx.array(t, mx.float32)
    value, gradient = nn.value_and_grad(threshold, lambda: threshold.value.sum())()
    np.testing.assert_allclose(as_numpy(threshold.value), low + rise, rtol=2e-6)
    np.testing.assert_allclose(value.item(), (low + rise).sum(), rtol=2e-6)
    noise = 0 if high == INF else 1.2e-7 * (high - low)  # of 1 - s, in MLX's sigmoid
    np.testing.assert_allclose(as_numpy(gradient["raw"]), slope, rtol=5e-6, atol=noise)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_however_far_it_walks_it_stays_valid(entry: Entry, dtype: mx.Dtype) -> None:
    x, y = mx.array([0.0, 1.0, -1e3]), mx.zeros(3)
    for raw in (-1e38, -300.0, -80.0, 15.0, 17.0, 300.0, 1e38):
        theta = {t.name: learned(t) for t in entry.loss.thresholds if t.low == 0}
        for threshold in theta.values():
            threshold.raw = mx.array(raw, mx.float32)
        loss = entry.module(**theta)
        loss.set_dtype(dtype)
        for t in entry.loss.thresholds:
            if t.name in theta:
                value = theta[t.name].value.item()
                assert t.low < value < t.high
        inside = mx.array([0.0])
        out, grads = nn.value_and_grad(loss, loss)(inside, 0 * inside)
        assert mx.isfinite(out), raw
        if dtype == mx.float32:  # in which e^t fits
            assert all(mx.isfinite(g).all() for _, g in tree_flatten(grads)), raw
        assert not mx.isnan(loss(x, y)), raw


@pytest.mark.full
def test_an_output_without_noise_does_no_harm() -> None:
    """Without a lower bound its scale shrinks for ever; the other one is found."""
    loss = sl.AdaptiveLoss(2.0, sl.Learned(mx.ones(2), low=0))
    r = mx.random.normal((500, 2)) * mx.array([3.0, 0.0])
    train(loss, optim.Adam(0.1), 1500, r, 0 * r)
    scale, none = loss.scale.value.tolist()
    assert scale == pytest.approx(3, rel=0.1)
    assert 0 < none < 1e-30


def test_a_traced_start_is_differentiated_or_refused() -> None:
    x, y = mx.random.normal((30,)), mx.zeros(30)
    through = mx.grad(lambda d: sl.HuberLoss(sl.Learned(d))(x, y))(mx.array(0.2))
    assert mx.allclose(through, mx.grad(lambda d: sl.HuberLoss(d)(x, y))(mx.array(0.2)), 1e-5)
    for transform in (mx.compile, mx.vmap):
        with pytest.raises(ValueError, match=r"^Learned: `initial` is traced; .* Make the module"):
            transform(lambda d: sl.Learned(d).value)(mx.ones(2))


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_a_loss_takes_its_value_and_trains_its_raw_parameter(entry: Entry) -> None:
    x, y = mx.random.normal((30,)), mx.random.normal((30,))
    theta = {t.name: learned(t) if t.low == 0 else mx.array(1.0) for t in entry.loss.thresholds}
    loss = entry.module(**theta)
    values = {n: v.value if isinstance(v, sl.Learned) else v for n, v in theta.items()}
    assert same_bits(loss(x, y), entry.function(x, y, **values, reduction="mean"))
    names = {f"{n}.raw" for n, v in theta.items() if isinstance(v, sl.Learned)}
    assert {n for n, _ in tree_flatten(loss.trainable_parameters())} == names

    _, grads = nn.value_and_grad(loss, loss)(x, y)
    slopes = mx.grad(lambda v: entry.function(x, y, **v, reduction="mean"))(values)
    for name, t in theta.items():
        if isinstance(t, sl.Learned):
            rise = values[name] if t.high == INF else values[name] * (1 - values[name] / t.high)
            assert mx.allclose(grads[name]["raw"], slopes[name] * rise, rtol=1e-5), name

    assert repr(pickle.loads(pickle.dumps(loss))) == repr(loss)
    assert repr(eval(repr(loss), vars(sl) | vars(mx))) == repr(loss)
    loss.freeze()
    assert not tree_flatten(loss.trainable_parameters())


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_a_range_beyond_the_valid_one_raises(entry: Entry) -> None:
    for t in entry.loss.thresholds:
        outside = [sl.Learned(t.low - 1, low=t.low - 2)] if t.low > -INF else []
        outside += [sl.Learned(t.high + 1)] if t.high < INF else []
        assert outside or t.name == "alpha"
        for value in outside:
            with pytest.raises(ValueError, match=f"{entry.module.__name__}: `{t.name}` is learned"):
                entry.module(**{t.name: value})


BAD: dict[str, tuple[Callable[[], Any], type, str]] = {
    "zero": (lambda: sl.Learned(0.0), ValueError, "`initial` is 0.0; .* between 0 and inf"),
    "tiny": (lambda: sl.Learned(1e-40), ValueError, "Start farther inside"),
    "near": (lambda: sl.Learned(mx.array(2 - 1e-7), high=2.0), ValueError, "Start farther inside"),
    "huge": (lambda: sl.Learned(3e38), ValueError, "Start farther inside"),
    "wide": (lambda: sl.Learned(1.0, -3e38, 3e38), ValueError, "in float32"),
    "an element": (lambda: sl.Learned(mx.array([1.0, 0.0])), ValueError, "`initial` is array"),
    "high": (lambda: sl.Learned(2.0, high=2.0), ValueError, "between 0 and 2"),
    "negative": (lambda: sl.Learned(-1.0), ValueError, "`initial` is -1"),
    "nan": (lambda: sl.Learned(float("nan")), ValueError, "`initial` is nan"),
    "inf": (lambda: sl.Learned(INF), ValueError, "`initial` is inf"),
    "text": (lambda: sl.Learned("1"), TypeError, "`initial` is of type str"),
    "list": (lambda: sl.Learned([1.0]), TypeError, "`initial` is of type list"),
    "integers": (lambda: sl.Learned(mx.array(1)), TypeError, "`initial` has dtype .*int32"),
    "bounds": (lambda: sl.Learned(1.0, 2.0, 2.0), ValueError, "a finite low below high"),
    "no low": (lambda: sl.Learned(1.0, -INF), ValueError, "a finite low below high"),
    "text bound": (lambda: sl.Learned(1.0, high="2"), TypeError, "`high` is of type str"),
}


for _name in ("initial", "low", "high"):
    for _sign in (1, -1):
        for _huge in (10**400, 10**5000, fractions.Fraction(10**400)):
            BAD[f"{_name} {_sign} {len(BAD)}"] = (
                lambda given={"initial": 1.0, _name: _sign * _huge}: sl.Learned(**given),
                ValueError,
                f"`{_name}` is beyond the floats; expected a number that float32 holds",
            )


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_raise(case: str) -> None:
    make, error, words = BAD[case]
    with pytest.raises(error, match=f"^Learned: .*{words}"):
        make()


NORMAL, CAUCHY = np.array([0.5, 4.0]), np.array([0.02, 3.0])  # the known scales
SLOPES = np.array([[1.0, -2.0], [0.5, 3.0]])


def sample(noise: np.ndarray) -> tuple[mx.array, mx.array]:
    x = np.random.default_rng(1).normal(size=(len(noise), 2))
    return mx.array(x, mx.float32), mx.array(x @ SLOPES.T + noise, mx.float32)


@pytest.mark.full
def test_the_scale_of_normal_noise_is_found() -> None:
    """At alpha = 2 it is the standard deviation."""
    x, y = sample(NORMAL * np.random.default_rng(0).normal(size=(10_000, 2)))
    model = Line(sl.AdaptiveLoss(alpha=2.0, scale=sl.Learned(mx.ones(2))))
    train(model, optim.Adam(optim.cosine_decay(0.1, 1000)), 1000, x, y)
    np.testing.assert_allclose(as_numpy(model.loss.scale.value), NORMAL, rtol=0.05)
    errors = abs(as_numpy(model.line.weight) - SLOPES).max(1)
    assert (errors < 4 * NORMAL / 100).all()  # standard errors


@pytest.mark.full
def test_shape_and_scale_of_cauchy_noise_are_found() -> None:
    """At alpha = 0 the density is Cauchy's with sqrt(2) times the scale."""
    x, y = sample(2**0.5 * CAUCHY * np.random.default_rng(0).standard_cauchy((20_000, 2)))
    loss = sl.AdaptiveLoss(alpha=sl.Learned(1.0, high=2.0), scale=sl.Learned(mx.ones(2)))
    model = Line(loss)
    train(model, optim.Adam(optim.cosine_decay(0.1, 1000)), 1000, x, y)
    np.testing.assert_allclose(as_numpy(loss.scale.value), CAUCHY, rtol=0.05)
    assert loss.alpha.value.item() < 0.05
    assert (abs(as_numpy(model.line.weight) - SLOPES).max(1) < 0.1 * CAUCHY).all()


def test_without_a_minimum_there_is_nothing_to_find() -> None:
    """Why the thresholds of other losses are not learned along with the model."""
    r = mx.random.normal((100,))
    falls = mx.grad(lambda beta: sl.smooth_l1_loss(r, 0 * r, beta))
    rises = mx.grad(lambda delta: sl.huber_loss(r, 0 * r, delta, "mean"))
    for value in (0.01, 0.1, 1.0, 3.0):
        assert falls(mx.array(value)).item() < 0 <= rises(mx.array(value)).item()


def test_a_threshold_without_a_minimum_is_warned_of(entry: Entry) -> None:
    """At the line that makes or sets it, unless the loss is adaptive."""
    for t in entry.loss.thresholds:
        value = sl.Learned(0.4, high=0.9)
        loss = entry.module()
        for act in (lambda: entry.module(**{t.name: value}), lambda: setattr(loss, t.name, value)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                act()
                copy.deepcopy(loss)
            if entry.name == "adaptive_loss":
                assert t.learnable
                assert caught == []
                continue
            (warning,) = caught
            assert warning.category is UserWarning
            assert warning.filename == __file__
            words = (
                rf"{entry.module.__name__}: `{t.name}` is Learned, .* Use AdaptiveLoss, .* valid"
            )
            assert re.match(words, str(warning.message))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                exec(re.search(r"silence this with (.*)\.$", str(warning.message))[1])
                act()
            assert caught == []


@pytest.mark.parametrize("learnable", [False, True])
def test_a_loss_of_ones_own_says_whether_it_is_learnable(learnable: bool) -> None:
    class Own(sl.LossModule):
        loss = sl.Loss(
            "own",
            lambda r, c: mx.square(r / c) + mx.log(c),
            thresholds=[Threshold("c", default=1.0, open_low=True, learnable=learnable)],
        )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = Own(sl.Learned(2.0))
    assert loss.c.low == (pytest.approx(0.02) if learnable else 0)
    assert len(caught) == (not learnable)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_the_scale_has_a_floor(unit: float) -> None:
    """A hundredth of the least initial value, in any unit; not that of alpha."""
    initial = unit * mx.array([3.0, 1.0])
    loss = sl.AdaptiveLoss(sl.Learned(1.0, high=2.0), sl.Learned(initial))
    assert loss.scale.low == pytest.approx(0.01 * unit)
    assert mx.allclose(loss.scale.value, initial, rtol=1e-5, atol=0)
    assert (loss.alpha.low, loss.alpha.high) == (0, 2)
    loss.scale = loss.scale  # no second floor
    assert loss.scale.low == pytest.approx(0.01 * unit)
    for low in (0.0, 0.5 * unit):
        assert sl.AdaptiveLoss(scale=sl.Learned(initial, low=low)).scale.low == low
    assert sl.CauchyLoss(sl.Learned(initial)).scale.low == 0


@pytest.mark.parametrize("optimizer", [optim.SGD(0.05), optim.Adam(0.05)], ids=["SGD", "Adam"])
def test_training_goes_on_after_an_exact_fit(optimizer: optim.Optimizer) -> None:
    class Level(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = mx.array(0.0)
            self.loss = sl.AdaptiveLoss(scale=sl.Learned(1.0))

        def __call__(self, y: mx.array) -> mx.array:
            return self.loss(mx.broadcast_to(self.level, y.shape), y)

    model = Level()
    train(model, optimizer, 1500, mx.full((4,), 5.0))
    assert model.level.item() == pytest.approx(5, abs=0.01)
    assert 0.01 <= model.loss.scale.value.item() < 0.011
    train(model, optimizer, 1500, mx.array([5.0, 5.0, 5.0, 5.1]))
    assert model.level.item() == pytest.approx(5, abs=0.2)
    assert 0.01 <= model.loss.scale.value.item() < 0.5


@pytest.mark.parametrize("how", ["file", "update"])
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_other_bounds_are_not_loaded(entry: Entry, how: str, tmp_path: Any) -> None:
    """They would give another value. The cure is that of the error."""

    def load(saved: sl.LossModule, into: sl.LossModule) -> None:
        if how == "update":
            into.update(saved.parameters())
        else:
            saved.save_weights(str(tmp_path / "loss.safetensors"))
            into.load_weights(str(tmp_path / "loss.safetensors"))

    def build(value: sl.Learned) -> sl.LossModule:
        return entry.module(**{name: value})

    name, threshold = entry.threshold_names[0], entry.loss.thresholds[0]
    ranges = [(0.0, 0.9), (0.1, 0.9), (0.0, 0.8)] + [(0.0, INF)] * (threshold.high == INF)
    for low, high in ranges:
        saved = build(sl.Learned(0.5, low, high))
        for other in ranges:
            into = build(sl.Learned(0.4, *other))
            if other == (low, high):
                load(saved, into)
                assert repr(into) == repr(saved)
                continue
            with pytest.raises(ValueError, match=r"^Learned: `bounds` are .* loaded") as raised:
                load(saved, into)
            cure = re.search(r"Make it with Learned\(\.\.\., (.*)\)\.$", str(raised.value))[1]
            into = build(eval(f"sl.Learned(0.4, {cure})"))
            load(saved, into)
            assert repr(into) == repr(saved)


def test_bounds_stay_through_casts_averages_and_training() -> None:
    loss = sl.AdaptiveLoss(sl.Learned(1.0, high=1.9), sl.Learned(mx.array([0.7, 3.0])))
    bounds = [loss.alpha.bounds.tolist(), loss.scale.bounds.tolist()]
    averages = tree_map(lambda p: 0.9 * p + 0.1 * p, loss.parameters())
    loss.update(averages)
    train(loss, optim.AdamW(0.1), 5, mx.ones((3, 2)), mx.zeros((3, 2)))
    for dtype in (mx.float16, mx.bfloat16, mx.float32):
        loss.set_dtype(dtype)
        loss.unfreeze()
        assert [loss.alpha.bounds.tolist(), loss.scale.bounds.tolist()] == bounds
        names = {n for n, _ in tree_flatten(loss.trainable_parameters())}
        assert names == {"alpha.raw", "scale.raw"}


def test_a_function_asks_for_the_value(entry: Entry) -> None:
    """And a class, of weights. The cure is taken literally."""
    x, learned = mx.ones((1, 3)), sl.Learned(mx.full((1, 3), 0.5), high=1.0)
    calls = [(entry.function, n) for n in (*entry.threshold_names, "weights")]
    for call, name in (*calls, (entry.loss, "weights"), (entry.module(), "weights")):
        with pytest.raises(TypeError, match=f"`{name}` is of type Learned; .*") as raised:
            call(x, 0 * x, **{name: learned})
        value = eval(re.search(r"Pass its value, as in ([a-z.]+\w)", str(raised.value))[1])
        assert mx.isfinite(call(x, 0 * x, **{name: value})).all()
