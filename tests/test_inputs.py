"""Dtypes, shapes, and the errors for bad input."""

import functools
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import (
    FLOATS,
    WITH_THRESHOLD,
    Entry,
    call,
    fitted,
    same_bits,
    thresholds,
)
from oracle import as_eager, as_numpy

import smoothloss as sl


@pytest.mark.parametrize("a", FLOATS)
@pytest.mark.parametrize("b", FLOATS)
def test_promotion_and_gradient_dtypes(entry: Entry, a: mx.Dtype, b: mx.Dtype) -> None:
    x, y = mx.array([0.1, 2.0, 3.0], a), mx.array([0.3, 0.2, 5.0], b)
    promoted = (x + y).dtype
    for reduction in ("none", "mean", "sum"):
        out = entry.function(x, y, reduction=reduction)
        assert out.dtype == promoted
        assert mx.compile(entry.function)(x, y, reduction=reduction).dtype == promoted
    gx, gy = mx.grad(lambda x, y: call(entry, reduction="mean")(x, y).sum(), (0, 1))(x, y)
    assert (gx.dtype, gy.dtype) == (a, b)


@pytest.mark.parametrize("theta", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_thresholds_and_weights_never_change_the_dtype(
    entry: Entry, dtype: mx.Dtype, theta: mx.Dtype
) -> None:
    x, y, t = mx.array([0.1, 2.0], dtype), mx.zeros(2, dtype), mx.array([0.3, 1.0], theta)
    f = lambda x, t: call(entry, reduction="mean", weights=t)(x, y, *fitted(entry, t))
    assert f(x, t).dtype == dtype
    gx, gt = mx.grad(f, (0, 1))(x, t)
    assert (gx.dtype, gt.dtype) == (dtype, theta)


@pytest.mark.parametrize("dtype", [mx.uint8, mx.int8, mx.uint16, mx.int32, mx.uint64, mx.int64])
def test_integers_become_float32_and_do_not_wrap(entry: Entry, dtype: mx.Dtype) -> None:
    x, y = mx.array([1, 100], dtype), mx.array([3, 0], dtype)
    got = entry.function(x, y, reduction="none")
    assert same_bits(
        got, entry.function(x.astype(mx.float32), y.astype(mx.float32), reduction="none")
    )
    half = entry.function(x.astype(mx.float16), y, reduction="none")
    assert half.dtype == mx.float16


def test_half_thresholds_are_not_rounded() -> None:
    x, y = mx.array([6e4], mx.float16), mx.zeros(1, mx.float16)
    assert mx.grad(lambda x: sl.huber_loss(x, y, 7e4, "sum"))(x).item() == 60000
    small = mx.array([1.0], mx.float16)
    got = sl.smooth_l1_loss(small, small * 0, 0.1, "none")
    assert same_bits(got, mx.array([1 - 0.1 / 2]).astype(mx.float16))


def test_numpy_arrays_are_converted_as_mlx_does(entry: Entry) -> None:
    x, y = np.array([[1.5, 2.0], [0.0, 1.0]]), np.array([[1, 2], [3, 4]])
    want = entry.function(mx.array(x), mx.array(y), reduction="none")
    for a, b in ((x, y), (x.astype(">f4"), y), (np.asfortranarray(x), y), (x[::-1][::-1], y)):
        assert same_bits(entry.function(a, b, reduction="none"), want)
    assert entry.function(x[::-1], y, reduction="mean").shape == ()
    assert entry.function(np.float32(1.5), mx.array(0.5), reduction="none").shape == ()
    weighted = entry.function(x, y, reduction="mean", weights=np.ones((1, 2)), where=x > 0.5)
    assert math.isfinite(weighted.item())


@pytest.mark.parametrize("value", [1, np.float32(0.5), np.int64(2), Fraction(1, 2), 10**400, 1e300])
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_any_real_number_is_a_threshold(entry: Entry, value: object) -> None:
    x, y = mx.array([0.25, 3.0]), mx.zeros(2)
    as_float = math.inf if isinstance(value, int) and value > 1 else float(value)
    f = functools.partial(entry.function, reduction="none")
    for spec in entry.loss.thresholds:
        if spec.low <= as_float <= spec.high:
            assert same_bits(f(x, y, **{spec.name: value}), f(x, y, **{spec.name: as_float}))
        several = [0.5, min(2.0, spec.high)]
        of_numpy, of_mlx = np.array(several), mx.array(several)
        assert same_bits(f(x, y, **{spec.name: of_numpy}), f(x, y, **{spec.name: of_mlx}))


@pytest.mark.every(3)
def test_scalars_and_views(entry: Entry) -> None:
    x, y = mx.array(2.0), mx.array(0.5)
    f = call(entry, reduction="mean")
    assert f(x, y).shape == ()
    assert mx.grad(f)(x, y).shape == ()
    base = mx.random.normal((6, 8))
    for view in (base.T, base[::2, ::-1], mx.broadcast_to(base[0], (5, 8)), base[:, 1]):
        flat = mx.array(np.array(view))
        zeros = mx.zeros(view.shape)
        g = mx.grad(call(entry, reduction="sum"))
        assert same_bits(g(view, zeros), g(flat, zeros))
        assert as_eager(mx.compile(g)(view, zeros), g(flat, zeros))


X = mx.ones((4, 3))
BAD_DATA = {
    "broadcast": (
        mx.ones((4, 1)),
        mx.ones(4),
        ValueError,
        r"shape \(4, 1\) .*\(4,\).*never broadc",
    ),
    "shapes": (X, mx.ones((3, 4)), ValueError, "must have the same shape"),
    "complex": (X.astype(mx.complex64), X, TypeError, "complex64.*Pass mx.abs"),
    "bool": (X > 0, X, TypeError, r"bool.*astype\(mx.float32\)"),
    "list": ([1.0], X, TypeError, r"of type list.*mx.array\(\.\.\.\)"),
    "float": (X, 1.0, TypeError, "of type float"),
    "None": (X, None, TypeError, "NoneType"),
    "numpy bool": (np.ones(3, bool), X, TypeError, "bool"),
    "numpy complex": (np.ones(3, complex), X, TypeError, "complex128"),
    "numpy object": (np.array([None]), X, TypeError, "object"),
    "numpy text": (np.array(["a"]), X, TypeError, "<U1"),
    "numpy longdouble": (np.ones(3, np.longdouble), X, TypeError, "float128|longdouble"),
    "masked": (np.ma.masked_array([1.0], [True]), X, TypeError, "where=~mask"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(entry: Entry, kind: str) -> None:
    x, y, error, message = BAD_DATA[kind]
    with pytest.raises(error, match=message) as raised:
        entry.function(x, y)
    assert str(raised.value).startswith(f"{entry.name}: `")
    names = entry.data_names
    with pytest.raises(error, match=f"`{names[0]}`|`{names[1]}`"):
        entry.function(y, x)


BAD_OPTIONS = {
    "unknown reduction": ({"reduction": "avg"}, ValueError, "`reduction` is 'avg'.*'none', 'mean'"),
    "reduction a number": ({"reduction": 1.0}, ValueError, "`reduction` is 1.0"),
    "reduction an array": ({"reduction": X}, ValueError, "`reduction`"),
    "axis out of range": ({"axis": 2, "reduction": "sum"}, ValueError, "out of range.*-2 to 1"),
    "axis below range": ({"axis": -3, "reduction": "sum"}, ValueError, "out of range"),
    "axis twice": ({"axis": (0, -2), "reduction": "sum"}, ValueError, "names an axis twice"),
    "axis a float": ({"axis": 0.0, "reduction": "sum"}, TypeError, "expected an int"),
    "axis a bool": ({"axis": True, "reduction": "sum"}, TypeError, "expected an int"),
    "axis for none": ({"axis": 0, "reduction": "none"}, ValueError, "reduces nothing"),
    "weights widen": ({"weights": mx.ones((5, 4, 3))}, ValueError, r"`weights`.*\(5, 4, 3\)"),
    "weights misfit": ({"weights": mx.ones(4)}, ValueError, r"`weights` has shape \(4,\)"),
    "weights a list": ({"weights": [1.0]}, TypeError, "`weights` is of type list"),
    "weights bool": ({"weights": X > 0}, TypeError, "`weights` has dtype"),
    "weights True": ({"weights": True}, TypeError, r"type bool.* Pass a mask as where=mx\.array"),
    "weights of one": ({"weights": mx.ones(1)}, ValueError, r"Pass weights\.reshape\(\(1, 1\)\)"),
    "weights nan": ({"weights": math.nan}, ValueError, "`weights` is nan"),
    "weights infinite": ({"weights": math.inf}, ValueError, "`weights` is inf"),
    "weights too large": (
        {"reduction": "sum", "weights": 1e39},
        ValueError,
        "`weights` is 1e.39.*float32",
    ),
    "weights beyond floats": (
        {"reduction": "sum", "weights": 10**400},
        ValueError,
        "`weights` is inf",
    ),
    "weights too small": ({"weights": 1e-50}, ValueError, "`weights` is 1e-50"),
    "where widens": ({"where": mx.ones((1, 4, 3)) > 0}, ValueError, "`where` has shape"),
    "where a number": ({"where": X}, TypeError, "`where` has dtype.*boolean.*Compare"),
    "where a list": ({"where": [True]}, TypeError, "`where` is of type list"),
    "where numpy int": ({"where": np.ones((4, 3), int)}, TypeError, "`where` has dtype"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_bad_options(entry: Entry, kind: str) -> None:
    keywords, error, message = BAD_OPTIONS[kind]
    with pytest.raises(error, match=message) as raised:
        entry.function(X, X, **{"reduction": "sum", **keywords})
    assert str(raised.value).startswith(f"{entry.name}: ")
    assert str(raised.value).endswith(".")


def cured(call: Callable[..., object], *row: object, **keywords: object) -> str:
    """The cure of the error that a call raises."""
    with pytest.raises((TypeError, ValueError)) as raised:
        call(*row, **keywords)
    return str(raised.value)[:-1].rsplit(". Pass ", 1)[1]


@pytest.mark.parametrize("axis", [np.array([0, 1]), mx.array([0, 1]), np.array(1), mx.array(1)])
def test_an_array_as_axis_says_how_to_make_it_a_tuple(entry: Entry, axis: object) -> None:
    x, y = mx.ones((4, 3)), mx.zeros((4, 3))
    for given in (axis, (axis,), [axis]):
        if np.array(axis).ndim and given is not axis:
            continue
        cure = cured(entry.function, x, y, reduction="sum", axis=given)
        right = eval(cure.removeprefix("axis="), {"axis": given})
        want = entry.function(x, y, reduction="sum", axis=tuple(np.atleast_1d(axis).tolist()))
        assert same_bits(entry.function(x, y, reduction="sum", axis=right), want)


@pytest.mark.parametrize("number", [1.0, 2, np.float32(0.5)])
def test_a_number_beside_an_array_says_how_to_widen_it(entry: Entry, number: object) -> None:
    array, names = mx.ones((4, 3)), entry.loss.data_names
    full = mx.full((4, 3), float(number))
    for place in range(2):
        row = [number, array] if place == 0 else [array, number]
        if isinstance(number, np.generic):
            continue  # an array of no axes
        cure = cured(entry.function, *row, reduction="none")
        right = eval(cure, {"mx": mx, names[1 - place]: array})
        fixed = [right, array] if place == 0 else [array, right]
        want = [full, array] if place == 0 else [array, full]
        assert same_bits(
            entry.function(*fixed, reduction="none"), entry.function(*want, reduction="none")
        )


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("kind", [mx.array, np.array])
def test_complex_data_are_told_how_to_measure_their_distance(
    entry: Entry, kind: Callable[..., Any], place: int
) -> None:
    z = [kind([3 + 4j, 0j]), mx.zeros(2)][:: -1 if place else 1]
    first, second = entry.loss.data_names
    cure = cured(entry.function, *z, reduction="none")
    assert cure.endswith(" and zeros of its shape")
    names = {"mx": mx, first: mx.array(z[0]), second: mx.array(z[1])}
    distance = eval(cure.removesuffix(" and zeros of its shape"), names)
    want = entry.function(mx.array([5.0, 0.0]), mx.zeros(2), reduction="none")
    assert same_bits(entry.function(distance, mx.zeros(2), reduction="none"), want)


@pytest.mark.float64
def test_numpy_s_float64_beside_float64_keeps_its_digits(entry: Entry) -> None:
    """Alone it becomes float32, as in MLX."""
    rng = np.random.default_rng(0)
    x, y, w = (rng.uniform(0.1, 1, (3, 4)) for _ in range(3))
    theta = {t.name: rng.uniform(0.3, 0.9, 4) for t in entry.loss.thresholds}
    wide = [mx.array(v, mx.float64) for v in (x, y, w)]
    broad = {name: mx.array(v, mx.float64) for name, v in theta.items()}
    f = functools.partial(entry.function, reduction="sum")
    want = f(wide[0], wide[1], **broad, weights=wide[2])
    for a, b in ((wide[0], y), (x, wide[1]), (wide[0], wide[1])):
        assert same_bits(f(a, b, **theta, weights=w), want)
    assert f(x, y, **theta, weights=w).dtype == mx.float32


INTEGERS = [mx.uint8, mx.int8, mx.int16, mx.uint32, mx.int32, mx.int64, mx.uint64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_difference_of_integers_is_exact(entry: Entry, dtype: mx.Dtype) -> None:
    """Those of 2^24 and more are no float32, and unsigned ones have no negative difference."""
    most = int(mx.iinfo(dtype).max)
    narrow = np.dtype(str(dtype).rsplit(".", 1)[1])
    x = np.array([3, 5, most, most - 2, most // 2], narrow)
    y = np.array([5, 3, most - 1, most, most // 2 - 7], narrow)
    a, b = mx.array(x), mx.array(y)
    r = mx.array([-2.0, 2.0, 1.0, -2.0, 7.0])
    for reduction in ("none", "mean", "sum"):
        f = functools.partial(entry.function, reduction=reduction)
        assert same_bits(f(a, b), f(r, mx.zeros(5)))
        assert same_bits(f(x, y), f(r, mx.zeros(5)))
    if entry.name == "l1_loss":
        f = functools.partial(entry.function, reduction="sum")
        assert same_bits(mx.compile(f)(a, b), f(r, mx.zeros(5)))
    if dtype.size == 8:  # and so far apart that their difference has 65 bits
        least = int(mx.iinfo(dtype).min)
        far = np.array([most, least, most, most], narrow)
        near = np.array([least, most, 0, most - 1], narrow)
        exact = mx.array([float(int(a) - int(b)) for a, b in zip(far, near, strict=True)])
        assert mx.allclose(sl.l1_loss(far, near, "none"), mx.abs(exact), 1e-6, 0)
    w, mask = mx.array([1.0, 2.0, 3.0, 4.0, 5.0]), mx.array([True, False, True, True, True])
    f = functools.partial(entry.function, reduction="mean", where=mask)
    assert same_bits(f(a, b, weights=w), f(r, mx.zeros(5), weights=w))
    by = [mx.grad(lambda w, d=d: f(*d, weights=w))(w) for d in ((a, b), (r, mx.zeros(5)))]
    assert same_bits(*by)


@pytest.mark.parametrize("yes", [True, False])
def test_a_mask_may_be_a_numpy_boolean(entry: Entry, yes: bool) -> None:
    x, y = mx.array([1.0, 2.0]), mx.zeros(2)
    for reduction in ("none", "mean", "sum"):
        f = functools.partial(entry.function, x, y, reduction=reduction)
        assert same_bits(f(where=np.bool_(yes)), f(where=mx.array(yes)))
    g = mx.grad(lambda x: entry.function(x, y, reduction="sum", where=np.array(yes)[()]))(x)
    assert yes or g.tolist() == [0, 0]


BAD_THRESHOLDS = {
    "nan": (math.nan, ValueError, "is nan; expected a number in"),
    "text": ("mean", TypeError, "of type str; .* as in reduction='mean'"),
    "a list": ([1.0], TypeError, "of type list"),
    "None": (None, TypeError, "NoneType"),
    "a bool": (True, TypeError, "of type bool"),
    "complex": (1j, TypeError, "of type complex"),
    "a complex array": (mx.ones(3) * 1j, TypeError, "complex64"),
    "a bool array": (X > 0, TypeError, "bool"),
    "widening": (mx.ones((2, 4, 3)), ValueError, r"shape \(2, 4, 3\) and the data \(4, 3\)"),
    "widening a 1": (mx.ones((4, 1, 1)), ValueError, "must broadcast to the data's shape"),
    "misfit": (mx.ones(4), ValueError, r"\(4,\)"),
}


@pytest.mark.parametrize("kind", BAD_THRESHOLDS)
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_bad_thresholds(entry: Entry, kind: str) -> None:
    value, error, message = BAD_THRESHOLDS[kind]
    for name in entry.threshold_names:
        with pytest.raises(error, match=message) as raised:
            entry.function(X, X, **thresholds(entry) | {name: value})
        assert str(raised.value).startswith(f"{entry.name}: `{name}`")


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_numbers_beyond_the_interval(entry: Entry) -> None:
    for spec in entry.loss.thresholds:
        beyond = [spec.low - 1, -math.inf, -(10**400)] if spec.low > -math.inf else []
        beyond += [spec.high + 1e-9, math.inf, 10**400] if spec.high < math.inf else []
        beyond += [spec.low] if spec.open_low else []
        for value in beyond:
            with pytest.raises(ValueError, match=re.escape(f"number in {spec.interval}")) as raised:
                entry.function(X, X, **thresholds(entry) | {spec.name: value})
            assert str(raised.value).startswith(f"{entry.name}: `{spec.name}` is {value}; ")
        if spec.open_low:
            with pytest.raises(ValueError, match="is 1e-50; expected a number that"):
                entry.function(X, X, **thresholds(entry) | {spec.name: 1e-50})


def test_axis_of_0_d_data() -> None:
    with pytest.raises(ValueError, match=r"data with 0 axes; expected none\. Leave it out"):
        sl.l1_loss(mx.array(1.0), mx.array(0.0), axis=0)


def test_a_threshold_may_not_widen_a_length_1_axis() -> None:
    x = mx.ones((4, 1))
    with pytest.raises(ValueError, match="broadcast to the data's shape"):
        sl.huber_loss(x, x, mx.ones(3))


def test_errors_come_before_tracing_too() -> None:
    with pytest.raises(ValueError, match="same shape"):
        mx.compile(mx.grad(sl.l1_loss))(X, mx.ones(3))
    with pytest.raises(ValueError, match="huber_loss: `delta` is -1"):
        mx.compile(lambda x: sl.huber_loss(x, x, -1))(X)


def test_the_data_is_never_changed(entry: Entry) -> None:
    x, y = mx.random.normal((5,)), mx.random.normal((5,))
    before = as_numpy(x), as_numpy(y)
    mx.eval(mx.value_and_grad(call(entry, reduction="mean"))(x, y))
    assert (as_numpy(x) == before[0]).all()
    assert (as_numpy(y) == before[1]).all()
