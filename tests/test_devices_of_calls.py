"""A loss is differentiated on the device of its call, as MLX's own operations are.

There may be one device only, so a second one is feigned: what counts is which is the default while
the library works.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from cases import Entry, call, fitted

import smoothloss as sl

pytestmark = pytest.mark.cpu  # which a feigned GPU stands beside

METHODS = ("__mul__", "__rmul__", "__add__", "__sub__", "__neg__", "__truediv__", "astype", "sum")
FUNCTIONS = ("where", "multiply", "minimum", "maximum", "square", "abs", "transpose", "zeros_like")
DEVICES = [mx.DeviceType.cpu, mx.DeviceType.gpu]


def is_wide(v: object) -> bool:
    return isinstance(v, mx.array) and v.dtype == mx.float64


class Devices:
    """The default device, and on which one the operations run during and after the call."""

    def __init__(self) -> None:
        self.default = mx.DeviceType.cpu
        self.calls = 0
        self.during: set[mx.DeviceType] = set()
        self.after: set[mx.DeviceType] = set()

    @contextlib.contextmanager
    def stream(self, kind: mx.DeviceType) -> Iterator[None]:
        before, self.default = self.default, kind
        try:
            yield
        finally:
            self.default = before

    def noted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operation)
        def run(*row: object, **keywords: object) -> object:
            (self.during if self.calls else self.after).add(self.default)
            if self.default != mx.DeviceType.cpu and any(is_wide(v) for v in row):
                raise ValueError("float64 is not supported on the GPU")
            return operation(*row, **keywords)

        return run

    def calling(self, kind: mx.DeviceType, f: Callable[..., Any]) -> Callable[..., Any]:
        """``f``, called on a device."""

        def run(*row: object) -> object:
            self.calls += 1
            try:
                with mx.stream(kind):
                    return f(*row)
            finally:
                self.calls -= 1

        return run


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    found = Devices()
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(found.default, 0))
    monkeypatch.setattr(mx, "stream", found.stream)
    for owner, names in ((mx.array, METHODS), (mx, FUNCTIONS)):
        for name in names:
            monkeypatch.setattr(owner, name, found.noted(getattr(owner, name)))
    return found


def pulled(f: Callable[..., Any]) -> Callable[..., Any]:
    """All derivatives of a scalar, by a vjp: nothing is computed here but by the rules."""
    return lambda *row: mx.vjp(f, list(row), [mx.array(0.7)])[1]


def pushed(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *row: mx.jvp(f, list(row), [mx.ones(v.shape) for v in row])[1]


def mapped(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *row: mx.vmap(f)(*(mx.stack([v, v]) for v in row))


def pulled_twice(f: Callable[..., Any]) -> Callable[..., Any]:
    def first(*row: mx.array) -> mx.array:
        return pulled(f)(*row)[0]

    return lambda *row: mx.vjp(first, list(row), [mx.ones(row[0].shape)])[1]


TRANSFORMS = {
    "vjp": pulled,
    "jvp": pushed,
    "vmap": mapped,
    "vjp of vjp": pulled_twice,
    "jvp of vjp": lambda f: lambda *row: pushed(lambda *r: pulled(f)(*r)[0])(*row),
    "vjp of vmap": lambda f: lambda *row: mx.vjp(mapped(f), list(row), [mx.ones((2,))])[1],
    "compile": lambda f: mx.compile(pulled(f)),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_rules_run_on_the_device_of_the_call(
    entry: Entry, name: str, device: mx.DeviceType, devices: Devices
) -> None:
    """By predictions, thresholds and weights."""
    shape = (4, 5)
    y, mask = mx.random.normal(shape), mx.random.uniform(shape=shape) < 0.7
    theta = fitted(entry, mx.random.uniform(0.2, 2, (4, 1)))
    row = [mx.random.normal(shape), mx.random.uniform(shape=shape), *theta]

    def loss(x: mx.array, w: mx.array, *theta: mx.array) -> mx.array:
        f = call(entry, reduction="mean", weights=w, where=mask)
        return f(x, y, *theta)

    (devices.default,) = set(DEVICES) - {device}
    devices.after.clear()
    TRANSFORMS[name](devices.calling(device, loss))(*row)  # a graph, of which nothing is computed
    assert devices.during == {device}
    assert devices.after == {device}


@pytest.mark.parametrize("device", DEVICES)
def test_one_function_on_one_device_after_the_other(
    device: mx.DeviceType, devices: Devices
) -> None:
    x, y = mx.ones((3, 4)), mx.zeros((3, 4))
    for each in (device, *DEVICES, device):
        (devices.default,) = set(DEVICES) - {each}
        devices.after.clear()
        pulled(devices.calling(each, lambda x: sl.huber_loss(x, y, reduction="mean")))(x)
        assert devices.after == {each}


@pytest.mark.parametrize("device", DEVICES)
def test_learned_thresholds(device: mx.DeviceType, devices: Devices) -> None:
    x, y = mx.ones((3, 4)), mx.zeros((3, 4))
    loss = sl.AdaptiveLoss(alpha=sl.Learned(1.2, high=2.0), scale=sl.Learned(0.7))
    (devices.default,) = set(DEVICES) - {device}
    devices.after.clear()
    nn.value_and_grad(loss, devices.calling(device, loss))(x, y)
    assert devices.after == {device}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("total", [None, 12.0])
def test_a_mean_over_machines(
    total: float | None, device: mx.DeviceType, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two, of which one is feigned."""
    monkeypatch.setattr(mx.distributed.Group, "size", lambda _: 2)
    monkeypatch.setattr(mx.distributed, "all_sum", lambda v, group: v)
    x, y = mx.ones((3, 4)), mx.zeros((3, 4))
    (devices.default,) = set(DEVICES) - {device}
    devices.after.clear()
    f = functools.partial(sl.global_mean, sl.huber_loss, total=total)
    pulled(devices.calling(device, lambda x: f(x, y)))(x)
    assert devices.after == {device}


@pytest.mark.parametrize("dtype", [mx.float64, mx.float32])
def test_float64_on_the_cpu_beside_a_gpu(dtype: mx.Dtype, devices: Devices) -> None:
    """That of the data, and that of few weights, which the CPU sums in float64."""
    x, y, w = mx.ones((5,), dtype), mx.zeros((5,), dtype), mx.ones((5,), dtype)

    def mean(x: mx.array, w: mx.array) -> mx.array:
        return sl.huber_loss(x, y, reduction="mean", weights=w)

    on_cpu = devices.calling(mx.DeviceType.cpu, mean)
    devices.default = mx.DeviceType.gpu
    _, (by_x, by_w) = mx.vjp(on_cpu, [x, w], [mx.array(1, dtype)])
    assert mx.allclose(by_x, mx.full((5,), 0.2, dtype))
    assert mx.allclose(by_w, mx.zeros((5,), dtype))
    with pytest.raises(ValueError, match="float64"):
        mx.array(1, mx.float64) * 2
