"""Sums and means: accuracy, weights, masks and axes."""

import mlx.core as mx
import numpy as np
import pytest
from cases import (
    FLOATS,
    Entry,
    call,
    catalog,
    fitted,
    floats,
    same_bits,
    thresholds,
)
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import array_shapes
from oracle import as_numpy, at_doubles

import smoothloss as sl


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_means_are_rounded_once(dtype: mx.Dtype) -> None:
    x = mx.random.uniform(shape=(200_000,)).astype(dtype) * 3
    true = mx.array(as_numpy(x).mean()).astype(dtype)
    assert same_bits(sl.l1_loss(x, mx.zeros_like(x)), true)
    twos = mx.full((70_000,), 2, dtype)
    assert sl.l1_loss(twos, mx.zeros_like(twos)).item() == 2
    total = sl.l1_loss(twos, mx.zeros_like(twos), "sum")
    assert same_bits(total, mx.array(140_000.0).astype(dtype))  # inf in float16, as it should be
    # Squares beyond float16, a mean within it, and a gradient whose 1/N is not rounded to half.
    x = mx.concatenate([mx.full((1,), 300, dtype), mx.zeros(69_999, dtype)])
    value, g = mx.value_and_grad(sl.mse_loss)(x, mx.zeros_like(x))
    assert same_bits(value, mx.array(90_000 / 70_000).astype(dtype))
    assert same_bits(g[0], mx.array(600 / 70_000).astype(dtype))


@pytest.mark.large_sums
def test_threshold_gradients_are_summed_accurately() -> None:
    n = 10**7
    x = mx.full((n,), 3.0)
    g = mx.grad(lambda b: sl.smooth_l1_loss(x, mx.zeros_like(x), b))(mx.array(0.1))
    assert g.item() == pytest.approx(-0.5, rel=1e-6)


MASKS = st.sampled_from(["none", "full", "row", "nothing"])


@st.composite
def problem(draw: st.DrawFn) -> dict:
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    seed = draw(st.integers(0, 2**32 - 1))
    broadcast = [draw(st.booleans()) for _ in shape]
    kept = draw(st.integers(0, len(shape)))
    small = tuple(1 if b else n for b, n in zip(broadcast, shape, strict=True))[kept:]
    axis = draw(
        st.none() | st.lists(st.integers(0, len(shape) - 1), unique=True).map(tuple)
        if shape
        else st.none()
    )
    if axis and draw(st.booleans()):
        axis = tuple(a - len(shape) for a in axis)
    return {
        "shape": shape,
        "seed": seed,
        "small": small,
        "axis": axis,
        "weighted": draw(st.booleans()),
        "mask": draw(MASKS),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
        "poison": draw(st.booleans()),
        "name": draw(st.sampled_from([e.name for e in catalog()])),
    }


@given(problem())
@pytest.mark.float64
def test_weights_where_and_axis_mean_what_they_say(p: dict) -> None:
    """Value and all gradients against float64 NumPy, with broken data behind the mask."""
    entry = next(e for e in catalog() if e.name == p["name"])
    rng = np.random.default_rng(p["seed"])
    x, y = (np.array(rng.normal(size=p["shape"])) for _ in range(2))
    aligned = (1,) * (x.ndim - len(p["small"])) + p["small"]
    weighted = p["weighted"] and (x.ndim > 0 or p["reduction"] == "sum")
    w = np.array(rng.uniform(0.1, 2, aligned)) if weighted else None
    mask = {
        "none": None,
        "full": rng.random(p["shape"]) < 0.5,
        "row": rng.random(aligned) < 0.5,
        "nothing": np.zeros((), bool),
    }[p["mask"]]
    theta = fitted(entry, np.array(rng.choice([0.25, 0.5, 1.0, 1.5], p["small"])))
    axes = tuple(range(x.ndim)) if p["axis"] is None else p["axis"]

    chosen = np.broadcast_to(True if mask is None else mask, x.shape)
    wide = np.where(chosen, 1.0 if w is None else np.broadcast_to(w, x.shape), 0.0)
    r = np.where(chosen, x - y, 0.0)
    rho = at_doubles(entry, (), r, *theta)
    norm = wide.sum(axes, keepdims=True) if p["reduction"] == "mean" else 1.0
    norm = np.where(norm == 0, np.inf, norm)
    value = (wide * rho / norm).sum(axes)
    psi = np.where(r == 0, 0, at_doubles(entry, (0,), np.where(r == 0, 1, r), *theta))
    gx = wide * psi / norm

    if p["poison"]:  # what the mask leaves out may be anything
        x = np.where(chosen, x, rng.choice([np.nan, np.inf, -np.inf]))
        y = np.where(chosen, y, rng.choice([np.nan, np.inf, 0.0]))
    arrays = [x, y, *theta] + ([] if w is None else [w])
    row = [mx.array(v, mx.float64) for v in arrays]
    keywords = {"reduction": p["reduction"], "axis": p["axis"]}
    if mask is not None:
        keywords["where"] = mx.array(mask)

    def f(x: mx.array, y: mx.array, *rest: mx.array) -> mx.array:
        named = dict(zip([*entry.threshold_names, "weights"], rest, strict=False))
        return entry.function(x, y, **named, **keywords)

    got = f(*row)
    assert got.shape == value.shape
    # Where the loss is an approximation, so is what is compared.
    free = 0 if entry.textbook.absolute == "0" else 1e-6 * (1 if p["reduction"] == "mean" else 64)
    np.testing.assert_allclose(as_numpy(got), value, rtol=1e-12, atol=1e-14 + free)
    every = tuple(range(len(row)))
    grads = mx.grad(lambda *row: f(*row).sum(), argnums=every)(*row)
    np.testing.assert_allclose(as_numpy(grads[0]), gx.astype(float), rtol=1e-6, atol=1e-9)
    assert same_bits(grads[1], -grads[0])
    if w is not None:
        spread = np.expand_dims(value, axes) if axes else value
        inner = chosen * (rho - (spread if p["reduction"] == "mean" else 0)) / norm
        added = tuple(range(x.ndim - w.ndim))
        by_w = inner.sum(added)
        ones = tuple(i for i, n in enumerate(w.shape) if n == 1)
        by_w = by_w.sum(ones, keepdims=True)
        np.testing.assert_allclose(as_numpy(grads[-1]), by_w, rtol=1e-9, atol=1e-12 + free)
    for g, v in zip(grads, row, strict=True):
        assert g.shape == v.shape


def test_weighted_mean_divides_by_the_weights(entry: Entry) -> None:
    x, y = mx.array([1.0, 2.0, 6.0]), mx.zeros(3)
    rho = entry.function(x, y, reduction="none", **thresholds(entry))
    got = entry.function(
        x, y, reduction="mean", weights=mx.array([1.0, 0.0, 3.0]), **thresholds(entry)
    )
    assert got.item() == pytest.approx(((rho[0] + 3 * rho[2]) / 4).item())
    for number in (2, -2.0, mx.array(2.0)):  # which would cancel
        with pytest.raises(ValueError, match=r"weights. is a single number.*Multiply the loss"):
            entry.function(x, y, reduction="mean", weights=number, **thresholds(entry))
        twice = entry.function(x, y, reduction="none", weights=number, **thresholds(entry))
        assert mx.allclose(twice, rho * number)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_mean_over_nothing_is_0_with_0_gradients(entry: Entry, dtype: mx.Dtype) -> None:
    x, y = floats(1, -2, 3, 4, dtype=dtype), mx.zeros(4, dtype)
    nan = mx.full((4,), float("nan"), dtype)
    empty = mx.zeros((0,), dtype)
    loss = call(entry, reduction="mean")
    assert loss(empty, empty).item() == 0
    assert mx.grad(loss)(empty, empty).shape == (0,)
    for w in (float("nan"), float("inf")):
        broken = call(entry, reduction="mean", weights=mx.array([w], dtype))
        assert broken(empty, empty).item() == 0
    for data, keywords in (
        (nan, {"where": mx.zeros(4) > 0}),
        (x, {"weights": mx.zeros(4)}),
        (x, {"weights": floats(1, -1, 2, -2)}),
        (nan, {"weights": mx.ones(4), "where": mx.zeros(4) > 0}),
    ):
        value, g = mx.value_and_grad(call(entry, reduction="mean", **keywords))(data, y)
        assert value.item() == 0
        assert (g == 0).all()
        # and 0 second derivatives, in the weights too
        w = keywords.get("weights", 1.0)
        w = w if isinstance(w, mx.array) else mx.ones(4) * w
        mask = keywords.get("where")

        def by_w(w: mx.array, x: mx.array = data, mask: object = mask) -> mx.array:
            return call(entry, reduction="mean", weights=w, where=mask)(x, y)

        twice = mx.grad(lambda w: mx.grad(by_w)(w).sum())(w)
        assert (twice == 0).all()
    masked = mx.array([True, False, True, False])
    value, g = mx.value_and_grad(call(entry, reduction="mean", where=masked))(nan, y)
    assert np.isnan(value.item())
    assert mx.isnan(g).tolist() == masked.tolist()


def test_none_keeps_the_shape_and_masks_to_0(entry: Entry) -> None:
    x, y = floats(float("nan"), float("inf"), 2, 3), mx.zeros(4)
    mask = mx.array([False, False, True, True])
    f = call(entry, reduction="none", where=mask, weights=floats(float("nan"), 1, 1, 2))
    plain = call(entry, reduction="none")(x, y)
    assert f(x, y).tolist() == [0, 0, plain[2].item(), 2 * plain[3].item()]
    g = mx.grad(lambda x: f(x, y).sum())(x)
    assert g[:2].tolist() == [0, 0]


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), (-1, 0), (1,), (), None])
@pytest.mark.large_sums
def test_axes_of_strided_and_transposed_data(entry: Entry, axis: object) -> None:
    base = mx.random.normal((40, 33, 50))
    x = base.transpose(2, 0, 1)[::2]
    y = mx.broadcast_to(mx.random.normal((33,)), x.shape)
    f = call(entry, reduction="sum", axis=axis)
    rho = as_numpy(call(entry, reduction="none")(x, y))
    numpy_axis = None if axis is None else tuple(np.atleast_1d(np.array(axis, int)).tolist())
    np.testing.assert_allclose(as_numpy(f(x, y)), rho.sum(numpy_axis), rtol=1e-6)
    np.testing.assert_allclose(as_numpy(mx.compile(f)(x, y)), rho.sum(numpy_axis), rtol=1e-6)
    g = mx.grad(lambda x: f(x, y).sum())(x)
    assert same_bits(g, mx.grad(lambda x: call(entry, reduction="none")(x, y).sum())(x))
    assert same_bits(f(x, y), f(mx.array(np.array(x)), y))
