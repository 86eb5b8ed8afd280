"""Whether a transform of MLX is under way."""

from __future__ import annotations

import functools

import mlx.core as mx


class _Look:
    """Counts the calls of a function that MLX calls only while it traces."""

    count = 0


@functools.partial(mx.compile, shapeless=True)
def _look(*arrays: mx.array) -> tuple[()]:
    _Look.count += 1
    return ()


def traced(*arrays: mx.array) -> bool:
    """Whether a transform (grad, vmap, compile, ...) is under way on one of the arrays.

    MLX then calls a compiled function as it was written; otherwise it replays what it traced once
    for these numbers of axes and dtypes. Where it traces for the first time, or compiles nothing
    (``MLX_DISABLE_COMPILE``), the answer is True, which is always safe.
    """
    before = _Look.count
    _look(*arrays)
    return _Look.count != before
