"""The order in which MLX sums float32 numbers on Metal and on CUDA, simulated in NumPy.

Read in MLX 0.32: ``mlx/backend/common/reduce.cpp`` chooses among the sums of everything, of rows
and of columns; ``mlx/backend/metal/reduce.cpp`` with ``metal/kernels/reduction/reduce_all.h``,
``reduce_row.h`` and ``reduce_col.h``, and ``mlx/backend/cuda/reduce/all_reduce.cu``,
``row_reduce.cu`` and ``col_reduce.cu`` say how many threads there are and what each of them adds.
What is not written there is the order within the 32 threads that one instruction sums
(``simd_sum``, ``cg::reduce``): taken for a tree here. Arrays are contiguous.

An order is a function that sums the last axis. All results of one sum have the same.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

Order = Callable[[np.ndarray], np.ndarray]
Backend = Callable[[Sequence[int], Sequence[int]], Order]

LANES = 32  # threads that sum by one instruction


def padded(x: np.ndarray, n: int) -> np.ndarray:
    """With zeros up to n along the last axis: to add them changes nothing."""
    width = n - x.shape[-1]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width)]) if width else x


def up(n: int, k: int) -> int:
    return -(-n // k) * k


def sequence(x: np.ndarray) -> np.ndarray:
    """The last axis, one after the other."""
    return functools.reduce(np.add, np.moveaxis(x, -1, 0))


def tree(x: np.ndarray) -> np.ndarray:
    """32 lanes, by halves."""
    x = padded(x, LANES)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def shares(x: np.ndarray, threads: int, reads: int = 1) -> np.ndarray:
    """What each thread adds: so many in a row, then as many of the next that nobody has."""
    x = padded(x, up(x.shape[-1], threads * reads))
    x = x.reshape(*x.shape[:-1], -1, threads, reads)
    out = np.zeros((*x.shape[:-3], threads), np.float32)
    for block, read in itertools.product(range(x.shape[-3]), range(reads)):
        out = out + x[..., block, :, read]
    return out


def group(x: np.ndarray) -> np.ndarray:
    """The threads of a group: the lanes, then the sums of the lanes."""
    return tree(tree(x.reshape(*x.shape[:-1], -1, LANES)))


def split(x: np.ndarray, parts: int, size: int) -> np.ndarray:
    return padded(x, parts * size).reshape(*x.shape[:-1], parts, size)


def columns(x: np.ndarray) -> np.ndarray:
    """A group of 32 threads for each column."""
    return tree(shares(x, LANES))


def metal(shape: Sequence[int], axes: Sequence[int]) -> Order:
    """The order of Metal."""
    rows, n, stride, results = plan(shape, axes)
    terms = rows * n
    if len(axes) == len(shape):
        if terms <= 4096:
            return lambda x: group(shares(x, min(1024, up(-(-terms // 4), LANES)), 4))
        parts, second = (128, 32) if terms * 4 <= 1 << 26 else (4096, 1024)
        size = -(-terms // parts)
        threads = up(min(-(-size // 4), 1024), LANES)
        return lambda x: group(shares(group(shares(split(x, parts, size), threads, 4)), second, 4))
    if stride == 1:
        if n <= 64:
            if rows <= 8 or (rows < 32 and n <= 8):
                return sequence
            return lambda x: tree(shares(x, LANES, n))
        threads = 32 if n <= 512 else 128 if n <= 1024 else min(1024, up(-(-n // 4), LANES))

        def order(x: np.ndarray) -> np.ndarray:
            each = shares(x.reshape(*x.shape[:-1], rows, n), threads, 4)
            return group(sequence(np.moveaxis(each, -2, -1)))

        return order
    if terms < 32:
        return lambda x: sequence(shares(x, min(8, terms)))
    if stride < 32 and terms >= 1024:
        blocks = 128 if terms >= 32768 else 32
        height = min(32, -(-terms // blocks))
        return lambda x: columns(
            sequence(shares(x, blocks * height).reshape(*x.shape[:-1], blocks, height))
        )
    if terms > 256 and results < 32 * 1024:
        return lambda x: columns(tree(shares(x, 1024).reshape(*x.shape[:-1], 32, LANES)))
    return columns


def cuda(shape: Sequence[int], axes: Sequence[int]) -> Order:
    """The order of CUDA."""
    rows, n, stride, results = plan(shape, axes)
    terms = rows * n
    if len(axes) == len(shape):
        return _cuda_all
    if stride == 1:
        threads = LANES * max(1, min(32, up(n, 4 * LANES) // (4 * LANES) // 4))
        width = up(n, threads * 4)

        def order(x: np.ndarray) -> np.ndarray:
            x = padded(x.reshape(*x.shape[:-1], rows, n), width)
            return group(shares(x.reshape(*x.shape[:-2], rows * width), threads, 4))

        return order
    if rows == 1 and terms <= 32 and stride % 4 == 0:
        return sequence
    if terms // results > 32:
        return lambda x: columns(columns(split(x, 32, -(-terms // 32))))
    return columns


def _cuda_all(x: np.ndarray) -> np.ndarray:
    n = x.shape[-1]
    threads = up(min(512, -(-n // 8)), LANES)
    steps = -(-n // (threads * 8))
    enough = [(32, 1), (128, 32), (512, 128), (1024, 512)]
    blocks = next((blocks for below, blocks in enough if steps < below), 1024)
    out = group(shares(split(x, blocks, -(-steps // blocks) * threads * 8), threads, 8))
    return out[..., 0] if blocks == 1 else _cuda_all(out)


def plan(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int, int, int]:
    """Of a sum: runs of terms, terms in a run, the stride of these, and how many results.

    Neighbouring axes are one run; the last run is told apart, as MLX does.
    """
    runs: list[int] = []
    for before, a in zip([-2, *axes], axes, strict=False):
        if a - 1 == before and shape[a] > 1:
            runs[-1] *= shape[a]
        else:
            runs.append(shape[a])
    runs = [n for n in runs if n != 1] or [1]
    last = max((a for a in axes if shape[a] != 1), default=axes[-1])
    terms = math.prod(runs)
    return terms // runs[-1], runs[-1], math.prod(shape[last + 1 :]), math.prod(shape) // terms


def summed(backend: Backend, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """``x`` summed over ``axes``, which are dropped."""
    kept = [a for a in range(x.ndim) if a not in axes]
    terms = x.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    return backend(x.shape, axes)(terms)


class Equal:
    """An array of equal values, for many values at once: it is summed at the cost of one result.

    It has what ``smoothloss._engine.sums`` uses of an array. Its sums are equal values again.
    """

    def __init__(self, backend: Backend, shape: Sequence[int], values: np.ndarray) -> None:
        self.backend, self.shape, self.values = backend, tuple(shape), values

    dtype = mx.float32
    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))

    def __getitem__(self, key: slice | tuple[slice, ...]) -> Equal:
        key = key if isinstance(key, tuple) else (key,)
        lengths = [len(range(n)[part]) for n, part in zip(self.shape, key, strict=False)]
        return self._like([*lengths, *self.shape[len(key) :]])

    def __add__(self, other: Equal) -> Equal:
        assert self.shape == other.shape
        return Equal(self.backend, self.shape, self.values + other.values)

    def _like(self, shape: Sequence[int]) -> Equal:
        return Equal(self.backend, shape, self.values)

    def reshape(self, *shape: int | Sequence[int]) -> Equal:
        flat = [n for part in shape for n in (part if isinstance(part, Sequence) else [part])]
        if -1 in flat:
            flat[flat.index(-1)] = self.size // -math.prod(flat)
        assert math.prod(flat) == self.size
        return self._like(flat)

    def sum(self, axes: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Equal:
        over = range(self.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
        order = self.backend(self.shape, over)
        n = math.prod(self.shape[a] for a in over)
        values = order(np.broadcast_to(self.values[:, None], (self.values.size, n)))
        kept = [(1 if a in over else n) for a, n in enumerate(self.shape)]
        shape = kept if keepdims else [n for a, n in enumerate(self.shape) if a not in over]
        return Equal(self.backend, shape, values)
