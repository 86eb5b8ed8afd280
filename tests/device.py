"""The device that the tests run on, by the environment variable SMOOTHLOSS_DEVICE.

``cpu``, the default, and ``gpu`` are MLX's own. Those of ``EMULATED`` are this CPU, changed.
conftest.py imports this first. What a test may assume of a device is measured here, not known.
"""

from __future__ import annotations

import os

import emulation
import mlx.core as mx
import numpy as np

EMULATED = {
    "emulated-gpu": emulation.no_float64,
    "emulated-fused": emulation.fuse,
    "emulated-flushing": emulation.flush,
}
NAME = os.environ.get("SMOOTHLOSS_DEVICE", "cpu")
if NAME not in {"cpu", "gpu", *EMULATED}:
    raise SystemExit(f"SMOOTHLOSS_DEVICE={NAME}: expected cpu, gpu, {', '.join(EMULATED)}")
IMPOSSIBLE = ""
if NAME in EMULATED:
    try:
        EMULATED[NAME]()
    except emulation.ImpossibleError as reason:
        IMPOSSIBLE = f"skipped {NAME}: {reason}"
mx.set_default_device(mx.gpu if "gpu" in NAME else mx.cpu)

CPU = mx.default_device() == mx.cpu


def _has_float64() -> bool:
    try:
        mx.eval(mx.zeros(1, mx.float64))
    except ValueError:
        return False
    return True


def _fuses() -> bool:
    """Whether compiled code rounds x*x + y once."""
    x, y = mx.array([1 + 2.0**-12]), mx.array([-1 - 2.0**-11])
    return bool(mx.compile(lambda x, y: x * x + y)(x, y).item())


FLOAT64 = _has_float64()
FUSES = _fuses()
FLUSHES = (mx.array([2.0**-126]) * 0.5).item() == 0
LEAST = 2.0**-126 if FLUSHES else 2.0**-149  # of float32, the least that is not 0


def seen(v: np.ndarray) -> np.ndarray:
    """Numbers as the device takes them: where it flushes subnormal ones, as 0."""
    return np.where(abs(v) < LEAST, 0, v)


DESCRIPTION = f"{NAME} (float64: {FLOAT64}, fuses: {FUSES}, flushes: {FLUSHES})"
