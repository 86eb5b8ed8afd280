"""The edges: kinks, limits of the thresholds, non-finite data, overflow and underflow."""

import itertools

import device
import mlx.core as mx
import numpy as np
import pytest
from cases import (
    BY_NAME,
    FLOATS,
    HERE,
    WITH_THRESHOLD,
    Entry,
    call,
    catalog,
    fitted,
    floats,
    numbers,
    orders,
    partial,
    same_bits,
)
from hypothesis import given, strategies as st
from oracle import as_eager, as_numpy

from smoothloss import Threshold

INF, NAN = float("inf"), float("nan")
SPECIAL = (0.0, -0.0, 1e-45, 1e-38, 1e-4, 0.5, 1.0, 2.0, 1e20, 3e38, INF, NAN)
GRADIENTS = {e.name: partial(e, (0,)) for e in catalog()}


def gradient(entry: Entry, x: mx.array, y: mx.array, *theta: mx.array) -> mx.array:
    return GRADIENTS[entry.name](x, y, *theta)


def valid(spec: Threshold) -> list[float]:
    """The special values of a threshold, in its interval."""
    if not spec.has_residual_units:
        return numbers(spec)
    return [v for v in SPECIAL[:-1] if v >= (2e-38 if spec.open_low else 0)]


def grid(entry: Entry, dtype: mx.Dtype = mx.float32) -> tuple[mx.array, ...]:
    """Every combination of special residuals of both signs and special thresholds."""
    signed = sorted({*SPECIAL, *(-v for v in SPECIAL)}, key=str)
    r, *theta = np.array(list(itertools.product(signed, *map(valid, entry.loss.thresholds)))).T
    if dtype == mx.float16:  # some would vanish or overflow
        theta = [np.clip(t, -INF, INF).astype(np.float32) for t in theta]
    return mx.array(r, dtype), mx.zeros(r.shape, dtype), *(mx.array(t, mx.float32) for t in theta)


def undefined(entry: Entry, x: mx.array, *theta: mx.array) -> mx.array:
    """Where an infinite residual meets an infinite threshold of its units: there NaN may be."""
    out = mx.zeros(x.shape, mx.bool_)
    for spec, t in zip(entry.loss.thresholds, theta, strict=True):
        if spec.has_residual_units:
            out = out | (mx.isinf(x) & mx.isinf(t))
    return out


def test_gradient_is_0_at_0_and_antisymmetric_in_the_data(entry: Entry) -> None:
    r, _, *theta = grid(entry)
    y = mx.random.normal(r.shape)
    at_zero = gradient(entry, y, y, *theta)
    assert (at_zero == 0).all()
    f = call(entry, reduction="none")
    gx, gy = mx.grad(lambda *row: f(*row).sum(), argnums=(0, 1))(r, y, *theta)
    assert same_bits(gy, -gx)


def test_value_is_at_least_the_least_and_psi_is_bounded(entry: Entry) -> None:
    x, y, *theta = grid(entry)
    value = as_numpy(call(entry, reduction="none")(x, y, *theta))
    least = entry.traits("minimum", *map(as_numpy, theta))
    with np.errstate(invalid="ignore"):
        room = 1e-6 * np.where(least == 0, 0, 1 + abs(least))
    assert ((value + room >= least) | np.isnan(value) | np.isnan(least)).all()
    bound = entry.traits("bound", *(device.seen(as_numpy(t)) for t in theta))
    exact = entry.textbook.bound in ("1", *entry.threshold_names)
    g = np.abs(as_numpy(gradient(entry, x, y, *theta)))
    assert ((g <= bound * (1 if exact else 1 + 1e-6)) | np.isnan(g) | np.isnan(bound)).all()


def test_nan_only_comes_from_nan_or_inf_over_inf(entry: Entry) -> None:
    x, y, *theta = grid(entry)
    allowed = mx.isnan(x) | undefined(entry, x, *theta)
    if device.FLUSHES and entry.name in ("general_loss", "adaptive_loss"):
        allowed = allowed | (mx.isinf(x) & (1 / theta[-1] == 0))  # documented, see test_devices.py
    for f in (partial(entry, ()), partial(entry, (0,))):
        got = mx.isnan(f(x, y, *theta))
        assert not (got & ~allowed).any()
        assert (got | ~mx.isnan(x)).all()
    finite = mx.isfinite(x)
    for spec, t in zip(entry.loss.thresholds, theta, strict=True):
        finite = finite & (mx.isfinite(t) if spec.has_residual_units else True)
    for order in orders(entry, 2):
        got = mx.isnan(partial(entry, order)(x, y, *theta))
        assert not (got & finite).any(), order
        assert (got | ~mx.isnan(x)).all(), order
    swapped = partial(entry, (0,))(y, x, *theta)
    assert (mx.isnan(swapped) | ~mx.isnan(x)).all()


def invalid(spec: Threshold) -> list[float]:
    """What lies beyond the interval, closely and far."""
    below = [spec.low - max(1e-40, device.LEAST), spec.low - 1.0] if spec.low > -INF else []
    above = [spec.high * (1 + 1e-6), spec.high + 1] if spec.high < INF else []
    return [NAN, *below, *above, *([spec.low] if spec.open_low else [])]


BAD = [
    pytest.param(e, k, bad, id=f"{e.name}-{spec.name}-{bad}")
    for e in catalog()
    for k, spec in enumerate(e.loss.thresholds)
    for bad in invalid(spec)
]


@pytest.mark.parametrize(("entry", "k", "bad"), BAD)
def test_a_bad_element_of_a_threshold_array_is_nan_there_only(
    entry: Entry, k: int, bad: float
) -> None:
    x, y = floats(0.1, 0.3, 5.0, 5.0), mx.zeros(4)
    good = 0.5
    for mixed in (floats(good, bad, bad, good), mx.array(bad)):
        theta = [mx.full(mixed.shape, good)] * len(entry.threshold_names)
        theta[k] = mixed
        hit = np.broadcast_to(as_numpy(mixed) != np.float32(good), 4)
        f = call(entry, reduction="none")
        assert np.isnan(as_numpy(f(x, y, *theta))).tolist() == hit.tolist()
        gx, gt = mx.grad(lambda *r, f=f: f(*r).sum(), argnums=(0, 2 + k))(x, y, *theta)
        assert np.isnan(as_numpy(gx)).tolist() == hit.tolist()
        assert np.isnan(as_numpy(gt)).any()
        if mixed.ndim:
            assert np.isnan(as_numpy(gt)).tolist() == hit.tolist()


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_threshold_gradients_are_finite_for_finite_data(entry: Entry) -> None:
    """Far from overflow, that is."""
    x, y, *theta = grid(entry)
    value = partial(entry, ())(x, y, *theta)
    fine = (mx.abs(x) < 1e10) & (mx.abs(value) < 1e30)
    for spec, t in zip(entry.loss.thresholds, theta, strict=True):
        if spec.has_residual_units:
            fine = fine & (t < 1e10) & ((t == 0) | (t >= 1e-4))
    at = mx.array(np.flatnonzero(as_numpy(fine)))
    for k in range(len(theta)):
        assert mx.isfinite(partial(entry, (1 + k,))(x, y, *theta)[at]).all()


@pytest.mark.every(7)
@pytest.mark.parametrize("dtype", FLOATS)
def test_compiled_is_eager_to_the_bit_but_for_fused_arithmetic(
    entry: Entry, dtype: mx.Dtype
) -> None:
    x, y, *theta = grid(entry, dtype)
    y = mx.concatenate([y, y + 0.5])
    x, *theta = (mx.concatenate([v, v]) for v in (x, *theta))
    for order in [(), *orders(entry, 1)]:
        f = partial(entry, order)
        compiled, eager = mx.compile(f)(x, y, *theta), f(x, y, *theta)
        # A shape's derivatives magnify what fused arithmetic rounds otherwise.
        by_shape = any(not entry.loss.thresholds[i - 1].has_residual_units for i in order if i)
        most = 256 if by_shape else 4 if any(order) else 2
        assert as_eager(compiled, eager, most), order


@given(
    dtype=st.sampled_from(HERE),
    data=st.lists(st.tuples(st.floats(), st.floats(), st.floats(0) | st.just(NAN)), min_size=1),
    name=st.sampled_from(sorted(GRADIENTS)),
)
def test_any_data_at_all(dtype: mx.Dtype, data: list[tuple[float, ...]], name: str) -> None:
    """Values are NaN where they must be and nowhere else; gradients have the residual's sign."""
    entry = BY_NAME[name]
    x, y, positive = (mx.array(np.array(column), dtype) for column in zip(*data, strict=True))
    wide = mx.float64 if dtype == mx.float64 else mx.float32
    r = x.astype(wide) - y.astype(wide)
    theta = [
        mx.where(positive > 2e-38, positive, mx.array(0.5, dtype)) if s.open_low else t
        for s, t in zip(entry.loss.thresholds, fitted(entry, positive), strict=True)
    ]
    t = as_numpy(sum(theta, mx.zeros(r.shape)))
    undefined_ = np.isnan(as_numpy(r)) | np.isnan(t)
    both = np.isinf(as_numpy(r)) & np.isinf(as_numpy(positive))
    value = as_numpy(call(entry, reduction="none")(x, y, *theta))
    g = as_numpy(gradient(entry, x, y, *theta))
    fine = ~undefined_ & ~both
    for got in (value, g):
        assert np.isnan(got[undefined_]).all()
        assert not np.isnan(got[fine]).any()
    if entry.loss.traits.minimum == 0:
        assert (value[fine] >= 0).all()
    assert ((np.sign(g) == np.sign(as_numpy(r))) | (g == 0))[fine].all()
    if entry.loss.traits.kinks:
        bound = entry.traits("bound", *map(as_numpy, theta))
        # A half gradient, or a bound of a half threshold, is rounded once.
        room = 1 - float(mx.finfo(dtype).eps)
        assert (np.abs(g) * room <= bound)[fine].all()
