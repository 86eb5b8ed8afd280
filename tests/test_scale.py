"""The median absolute deviation: its value, its limits, its gradient."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import FLOATS, floats

import smoothloss as sl

QUARTILE = 0.6744897501960817
INF, NAN = float("inf"), float("nan")


def numpy_mad(r: np.ndarray, axis: Any = None, center: Any = None) -> np.ndarray:
    middle = np.median(r, axis, keepdims=True) if center is None else center
    return np.median(abs(r - middle), axis) / QUARTILE


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 0), (-1, 0, 1)])
@pytest.mark.parametrize("center", [None, 0.0, -0.7, 3])
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_it_is_that_of_numpy(axis: Any, center: Any, n: int) -> None:
    r = np.random.default_rng(n).normal(size=(3, n, 5)).astype(np.float32)
    got = sl.mad(mx.array(r), axis, center=center)
    np.testing.assert_allclose(got, numpy_mad(r, axis, center), rtol=1e-6)
    kept = sl.mad(r, axis, True, center=center)
    assert kept.ndim == 3 and mx.array_equal(kept.reshape(got.shape), got)


def test_it_estimates_the_standard_deviation() -> None:
    assert sl.mad(3 * mx.random.normal((200_001,))).item() == pytest.approx(3, rel=0.01)


@pytest.mark.float64
def test_a_center_may_be_an_array() -> None:
    r = np.random.default_rng(0).normal(size=(3, 5))
    center = np.array([[1.0], [0.0], [-2.0]])
    got = sl.mad(mx.array(r, mx.float64), 1, center=mx.array(center, mx.float64))
    np.testing.assert_allclose(got, numpy_mad(r, 1, center), rtol=1e-15)


@pytest.mark.parametrize("dtype", FLOATS)
def test_half_types_are_rounded_once(dtype: mx.Dtype) -> None:
    """1000.5 and 0.25 are no neighbours in half types, so differences have to be in float32."""
    r = (1000 * mx.random.normal((101,))).astype(dtype)
    got = sl.mad(r)
    assert got.dtype == dtype
    assert got.item() == mx.array(numpy_mad(np.array(r.tolist())).item(), dtype).item()


def test_integers_give_float32() -> None:
    assert sl.mad(mx.array([1, 2, 4])).dtype == mx.float32
    assert sl.mad(np.array([1, 2, 4])).item() == pytest.approx(1 / QUARTILE)


@pytest.mark.parametrize(
    ("r", "want"),
    [
        ([], NAN),
        ([5.0], 0),
        ([1.0, NAN, 2.0, 3.0], NAN),
        ([1.0, 2.0, 4.0, INF], 1.5),
        ([1.0, 2.0, 4.0, -INF], 1.5),
        ([1.0, INF], NAN),
        ([3e38, -3e38, 0.0], 3e38),
        ([1e-38, 3e-38, 2e-38], 1e-38),
        ([7.0, 7.0, 7.0, 1e30], 0),
    ],
)
def test_limits(r: list[float], want: float) -> None:
    r, want = mx.array(r, mx.float32), INF if want == 3e38 else want / QUARTILE
    expected = pytest.approx(want, rel=1e-6, nan_ok=True)
    assert sl.mad(r).item() == expected
    assert sl.mad(r, weights=mx.ones(r.shape)).item() == expected
    assert sl.mad(mx.stack([r, r]), axis=1).tolist() == [expected] * 2


def test_empty_shapes() -> None:
    assert sl.mad(mx.zeros((0, 3)), axis=1).shape == (0,)
    assert mx.isnan(sl.mad(mx.zeros((0, 3)), axis=0)).all() and sl.mad(mx.array(2.0)).item() == 0


@pytest.mark.float64
@pytest.mark.parametrize("center", [None, 0.0])
def test_weights_count_repetitions(center: float | None) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        r, times = rng.normal(size=9), rng.integers(0, 4, 9)
        want = numpy_mad(np.repeat(r, times), center=center)
        got = sl.mad(mx.array(r, mx.float64), center=center, weights=mx.array(times))
        assert got.item() == pytest.approx(want, rel=1e-14)
        assert sl.mad(floats(*r), center=center, where=mx.array(times) > 0).item() == pytest.approx(
            numpy_mad(r[times > 0], center=center), rel=1e-6
        )


def test_weights_of_each_row_and_what_is_left_out() -> None:
    r = mx.array([[1.0, 2.0, 4.0, NAN], [1.0, 5.0, 9.0, 9.0]])
    mask = mx.array([[True, True, True, False], [True, True, False, False]])
    got = sl.mad(r, 1, where=mask)
    np.testing.assert_allclose(got, np.array([1, 2]) / QUARTILE, rtol=1e-6)
    assert sl.mad(r, where=mask, weights=mx.array([[2.0], [0.0]])).item() == got[0].item()
    assert mx.isnan(sl.mad(r, 1, where=mx.zeros((2, 1), mx.bool_))).all()
    assert mx.isnan(sl.mad(r[1], weights=mx.array([1.0, 1.0, -1.0, 1.0]))).item()
    assert mx.isnan(sl.mad(r[0], weights=mx.array([1.0, 1.0, 1.0, 0.0]))).item()


@pytest.mark.float64
@pytest.mark.parametrize("named", [{}, {"center": 0.0}, {"weights": mx.array([1.0, 2, 1, 1, 3])}])
@pytest.mark.parametrize("n", [4, 5])
def test_its_gradient_is_that_of_differences(n: int, named: dict[str, Any]) -> None:
    r = floats(0.3, -1.1, 2.2, 0.9, 7.0)[:n]
    if "weights" in named:
        named = {"weights": named["weights"][:n]}
    h = 2.0**-10
    steps = [h * row for row in mx.eye(n)]
    wide = lambda r: sl.mad(r.astype(mx.float64), **named).item()
    want = [(wide(r + step) - wide(r - step)) / (2 * h) for step in steps]
    np.testing.assert_allclose(mx.grad(lambda r: sl.mad(r, **named))(r), want, atol=1e-6)


def test_its_gradient_is_finite_at_equal_elements_and_at_outliers() -> None:
    for r in ([0.0] * 4, [1.0, 1.0, 2.0], [1.0, 2.0, 3.0, INF], [2.0, 2.0, 2.0, 5.0]):
        for center in (None, 0.0):
            slope = mx.grad(lambda r, c=center: sl.mad(r, center=c))(mx.array(r))
            assert mx.isfinite(slope).all() and mx.abs(slope).sum().item() <= 2 / QUARTILE + 1e-6
    masked = mx.grad(lambda r: sl.mad(r, where=mx.array([True, True, True, False])))
    slope = masked(mx.array([1.0, 2.0, 4.0, NAN]))
    assert slope.tolist() == pytest.approx([-1 / QUARTILE, 1 / QUARTILE, 0, 0])


def test_transforms() -> None:
    r = mx.random.normal((4, 9))
    each = sl.mad(r, 1)
    assert mx.array_equal(mx.vmap(sl.mad)(r), each)
    assert mx.array_equal(mx.compile(lambda r: sl.mad(r, 1))(r), each)
    by_weight = mx.vmap(lambda r, w: sl.mad(r, weights=w))(r, mx.ones((4, 9)))
    assert mx.array_equal(by_weight, each)
    by_rows = mx.vmap(mx.grad(sl.mad))(r)
    assert mx.array_equal(by_rows, mx.grad(lambda r: sl.mad(r, 1).sum())(r))


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"r": 1.0}, TypeError, "mad: `r` is of type float; expected an array"),
        ({"r": mx.array([True])}, TypeError, "mad: `r` has dtype .*bool"),
        ({"axis": 2}, ValueError, "mad: `axis` is 2, out of range"),
        ({"center": mx.zeros((3, 2))}, ValueError, r"mad: `center` has shape \(3, 2\)"),
        ({"center": "median"}, TypeError, "mad: `center` is of type str"),
        ({"weights": mx.ones((3,))}, ValueError, r"mad: `weights` has shape \(3,\)"),
        ({"where": mx.ones((2, 3))}, TypeError, "mad: `where` has dtype .*float32; expected a boo"),
    ],
)
def test_errors(named: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sl.mad(**{"r": mx.zeros((2, 3)), **named})
