"""What differs between devices, and that the emulated ones are what they say: docs/devices.md."""

import device
import mlx.core as mx
import numpy as np
import pytest
from cases import Entry, call, floats, partial
from oracle import as_numpy

import smoothloss as sl

TINY = 1e-39  # a subnormal float32


def test_the_device_is_the_one_asked_for() -> None:
    """Else a run on an emulated device would prove nothing."""
    assert (mx.default_device() == mx.gpu) == ("gpu" in device.NAME)
    if device.NAME == "emulated-gpu":
        assert not device.FLOAT64
    if device.NAME == "emulated-fused":
        assert device.FUSES
    if device.NAME == "emulated-flushing":
        assert device.FLUSHES


def test_float64_runs_on_the_cpu_alone() -> None:
    x, y = mx.array(np.array([1.0, 3.0]), mx.float64), mx.array(np.zeros(2), mx.float64)
    with mx.stream(mx.cpu):
        assert sl.l1_loss(x, y).item() == 2
        assert mx.grad(sl.l1_loss)(x, y).tolist() == [0.5, 0.5]
    if not device.FLOAT64:
        with pytest.raises(ValueError, match="float64 is not supported on the GPU"):
            sl.l1_loss(x, y)


def test_no_array_is_float64_in_any_derivative_of_float32(entry: Entry) -> None:
    """Off the CPU, the first one would raise."""
    x, y, w = mx.random.normal((300, 3)), mx.random.normal((300, 3)), mx.ones((300, 1))

    def mean(x: mx.array, w: mx.array) -> mx.array:
        return call(entry, reduction="mean", weights=w, where=x > -1)(x, y)

    slope = lambda x, w: sum(g.sum() for g in mx.grad(mean, argnums=(0, 1))(x, w))
    for f in (mean, slope, mx.grad(slope, argnums=1)):
        for step in (f, mx.compile(f)):
            assert mx.isfinite(step(x, w)).all()


def test_a_subnormal_residual_has_a_slope_unless_it_counts_as_0() -> None:
    x = floats(TINY, -TINY)
    slope = 0 if device.FLUSHES else 1
    for f in (sl.l1_loss, lambda x, y, _: sl.smooth_l1_loss(x, y, 0.0, "sum")):
        g = mx.grad(lambda x, f=f: f(x, mx.zeros(2), "sum"))(x)
        assert g.tolist() == [slope, -slope]


def test_a_subnormal_threshold_is_one_unless_it_counts_as_0() -> None:
    x, y = floats(3e38), floats(0)
    value = sl.huber_loss(x, y, mx.array(TINY)).item()
    assert value == (0 if device.FLUSHES else pytest.approx(0.3, rel=1e-6))
    below = sl.huber_loss(x, y, mx.array(-TINY)).item()
    assert below == 0 if device.FLUSHES else np.isnan(below)


def test_subnormal_numbers_make_no_nan(entry: Entry) -> None:
    x = floats(0, TINY, -TINY, 1.0)
    theta = [
        mx.array(TINY if t.has_residual_units and not t.open_low else 0.5)
        for t in entry.loss.thresholds
    ]
    for order in [(), (0,)]:
        full = [mx.broadcast_to(t, x.shape) for t in theta]
        assert not np.isnan(as_numpy(partial(entry, order)(x, mx.zeros(4), *full))).any()


@pytest.mark.parametrize("alpha", [1.5, 4.0])
def test_an_infinite_residual_of_a_scale_that_has_no_inverse(alpha: float) -> None:
    """Where 1/scale counts as 0, it is 0 times infinity."""
    f = lambda x: sl.general_loss(x, floats(0), mx.array(alpha), mx.array(3e38), "sum")
    slope = mx.grad(f)(floats(np.inf)).item()
    assert np.isnan(slope) if device.FLUSHES else slope == np.inf
