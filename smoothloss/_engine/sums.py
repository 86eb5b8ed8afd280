"""Sums that stay accurate in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import mlx.core as mx

Axes = tuple[int, ...]
Elementwise = Callable[..., mx.array]

# A float32 sum on the CPU runs sequentially, so its error grows with the number of terms. Summing
# FAN terms at a time bounds it, if only like is added to like: a remainder that joined the partial
# sums of the rest would add small terms to large ones, the worst there is. Equal values, the worst
# of data, stay within 5.8e-7 (test_sums.py walks all mantissas, and odd lengths). RUN
# neighbours are summed side by side, which is what vectorises. Few enough are summed in float64,
# which also ends the stages of a float32 sum: a cast costs less than stages. So few as ONCE are
# summed as they are: equal values stay within 7.5e-7 (walked as well).
FAN = 16
RUN = 1024
FEW = 8192
ONCE = 48
# A GPU gives a row to 1024 threads at most and a column to LANES, but Metal gives a row of up to
# ALONE to one. Each adds its share in sequence, which is short up to ROW and COLUMN; more terms are
# summed in stages, which are small kernels. Equal values stay within 8e-7 in the orders of Metal
# and CUDA (test_gpu_sums.py simulates them).
ALONE = 64
ROW = 1 << 14
COLUMN = 1 << 9
LANES = 32
# The CPU maps and clears fresh memory for every large array, which costs more than the losses; so
# they are computed and summed in blocks of this many, whose memory is used again.
BLOCK = 1 << 19
# Slices that are added in the kernel, where the sum itself is what matters, and from where on.
FOLD = 8
SMALL = 1 << 15


def on_cpu() -> bool:
    """Whether MLX runs on the CPU; a GPU adds in other orders, and pays for each kernel."""
    return bool(mx.default_device() == mx.cpu)


def summed_in_float64(x: mx.array, axes: Sequence[int] | None = None) -> mx.array:
    """The sum of few float32 numbers, on the CPU."""
    if x.size <= ONCE:
        return x.sum(axes)
    return x.astype(mx.float64).sum(axes).astype(mx.float32)


def _total(x: mx.array) -> mx.array:
    """Sum over all axes: as :func:`_staged`, in fewer steps."""
    n = x.size
    if n <= ONCE:
        return x.sum()
    if n <= FEW and x.dtype == mx.float32:
        return summed_in_float64(x)
    run = min(RUN, n // FAN)
    blocks = n // (FAN * run)
    whole = blocks * FAN * run
    head = x if whole == n else x.reshape(-1)[:whole]
    out = _total(head.reshape(blocks, FAN, run).sum(1, keepdims=True))
    return out if whole == n else out + _total(x.reshape(-1)[whole:])


def _staged(x: mx.array) -> mx.array:
    """Sum over the middle axis of a rank 3 array."""
    before, n, after = x.shape
    cpu = on_cpu()
    if n <= FAN if cpu else _at_once(n, after):
        return x.sum(1)
    if cpu and x.size <= FEW and x.dtype == mx.float32:
        return summed_in_float64(x, (1,))
    fan, run = (FAN, min(RUN, n // FAN)) if cpu else _balanced(n, after)
    blocks = n // (fan * run)
    whole = blocks * fan * run
    head = x if whole == n else x[:, :whole]
    partial = head.reshape(before, blocks, fan, run * after).sum(2, keepdims=True)
    out = _staged(partial.reshape(before, blocks * run, after))
    return out if whole == n else out + _staged(x[:, whole:])


def _at_once(n: int, after: int) -> bool:
    """Whether a GPU sums n terms well, of a row or, with others ``after`` them, of a column."""
    return n <= COLUMN if after > 1 else n <= ONCE or ALONE < n <= ROW


def _balanced(n: int, after: int) -> tuple[int, int]:
    """How many terms are summed at a time on a GPU, and how many such sums stand side by side.

    Two stages of about the root of n: of rows, neighbours are summed; of columns, those far apart.
    """
    root = 1 << n.bit_length() // 2
    if after == 1:
        return root, 1
    fan = min(COLUMN, max(2 * LANES, root))  # CUDA gives a column of LANES to one thread
    return fan, n // fan


def _runs(axes: Axes) -> list[tuple[int, int]]:
    """Ascending axes as half-open runs of neighbours: (0, 1, 3) -> [(0, 2), (3, 4)]."""
    runs: list[tuple[int, int]] = []
    for a in axes:
        if runs and runs[-1][1] == a:
            runs[-1] = (runs[-1][0], a + 1)
        else:
            runs.append((a, a + 1))
    return runs


def sum_over(x: mx.array, axes: Axes) -> mx.array:
    """The accurate sum over ``axes`` (ascending, non-negative), dropped.

    Booleans are counted as integers, which is exact.
    """
    shape, size = x.shape, x.size
    terms = size if len(axes) == len(shape) else math.prod([shape[a] for a in axes])
    if size and (terms <= ONCE or x.dtype == mx.bool_):
        return x.sum(axes) if axes else x
    kept = [n for a, n in enumerate(shape) if a not in axes]
    if size == 0:  # MLX 0.32.4 may hang in a sum over an empty array
        return mx.zeros(kept, mx.int32 if x.dtype == mx.bool_ else x.dtype)
    cpu = on_cpu()
    if cpu and terms == size:
        return _total(x).reshape(kept)
    if cpu and size <= FEW and x.dtype == mx.float32:
        return summed_in_float64(x, axes)
    if not cpu and len(axes) == len(shape) and terms <= ROW:
        return x.sum()
    runs = _runs(axes)
    if not cpu and len(runs) == 1 and _at_once(terms, math.prod(shape[runs[0][1] :])):
        return x.sum(axes)
    left = list(shape)
    for start, stop in reversed(runs):
        before, n = math.prod(left[:start]), math.prod(left[start:stop])
        x = _staged(x.reshape(before, n, math.prod(left[stop:])))
        del left[start:stop]
    return x.reshape(kept)


def summed(f: Elementwise, row: Sequence[mx.array], axes: Axes) -> mx.array:
    """``f(*row)``, an elementwise function of arrays that broadcast, summed over ``axes``."""
    whole = f(*row)  # a graph, of which nothing is computed if it is not used
    if whole.size <= BLOCK or whole.shape[0] < 2 or not on_cpu():
        return sum_over(whole, axes)
    shape = whole.shape
    step = math.ceil(shape[0] / math.ceil(whole.size / BLOCK))
    parts = [
        sum_over(f(*_sliced(row, len(shape), 0, start, start + step)), axes)
        for start in range(0, shape[0], step)
    ]
    return sum_over(mx.stack(parts), (0,)) if 0 in axes else mx.concatenate(parts)


def summed_in_kernel(f: Elementwise, row: Sequence[mx.array], axes: Axes) -> mx.array:
    """:func:`summed`, with FOLD slices added in the kernel, which writes so much less.

    For the simplest of functions: of others, g++ makes scalar code then. A GPU, without
    ``mx.compile``, would launch a kernel for each slice and each addition.
    """
    shape = mx.broadcast_shapes(*(v.shape for v in row))
    along = next((a for a in axes if shape[a] >= FOLD), None)
    if along is None or math.prod(shape) <= SMALL or not on_cpu():
        return sum_over(f(*row), axes)
    step, rest = divmod(shape[along], FOLD)

    def part(start: int, stop: int) -> mx.array:
        return f(*_sliced(row, len(shape), along, start, stop))

    parts = [part(k * step, (k + 1) * step) for k in range(FOLD)]
    while len(parts) > 1:  # in pairs, so that like is added to like
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    out = sum_over(parts[0], axes)
    return out + sum_over(part(FOLD * step, shape[along]), axes) if rest else out


def _sliced(row: Sequence[mx.array], rank: int, axis: int, start: int, stop: int) -> list[mx.array]:
    """The arrays from ``start`` to ``stop`` along ``axis`` of the ``rank`` axes of their shape."""

    def part(v: mx.array) -> mx.array:
        own = axis - (rank - v.ndim)
        shared = own < 0 or v.shape[own] == 1
        return v if shared else v[(slice(None),) * own + (slice(start, stop),)]

    return [part(v) for v in row]
