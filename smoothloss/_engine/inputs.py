"""What callers pass, checked and turned into arrays. Every error says how to fix the call."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, SupportsIndex, cast

import mlx.core as mx
import numpy as np

from .._threshold import Check, Threshold, as_float, is_number, kind_of
from .kind import compute_dtype

_NUMPY_KINDS = "fiub"  # floating, integer, unsigned, boolean
PART = "Take its real part or magnitude."
REDUCTIONS = ("mean", "none", "sum")
_COMMON = (mx.float32, mx.bfloat16, mx.float16)


def is_array(value: object) -> bool:
    """Whether ``value`` is an array of MLX or NumPy."""
    return isinstance(value, mx.array | np.ndarray)


def as_array(
    function: str,
    name: str,
    value: object,
    *,
    boolean: bool = False,
    wide: bool = False,
    beside: str | None = None,
) -> mx.array:
    """``value`` as an ``mx.array`` of real numbers (or of booleans).

    MLX takes NumPy's float64 for float32, which beside float64 (``wide``) would lose digits.
    ``beside`` names the array whose shape data must have.
    """
    if type(value) is mx.array and not boolean and value.dtype in _COMMON:
        return value
    wanted = "a boolean array" if boolean else "an array of real numbers"
    got, cure = type(value).__name__, "Convert it with mx.array(...)."
    part = f"Pass mx.abs({name} - {beside}) and zeros of its shape." if beside else PART
    if value is None or isinstance(value, str):
        cure = "Pass an array of numbers." if not boolean else "Pass an array of booleans."
    elif hasattr(value, "raw") and hasattr(value, "value"):  # Learned
        cure = "Pass its value, as in learned.value."
    elif isinstance(value, bool) and not boolean:
        cure = "Pass a mask as where=mx.array(...)."
    elif beside and is_number(value):
        cure = f"Pass mx.full({beside}.shape, {value})."
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: `{name}` is a masked array, whose mask would be lost; expected {wanted}. "
            f"Pass its data and where=~mask."
        )
    if isinstance(value, np.ndarray | np.generic):
        got = f"{got} of dtype {value.dtype}"
        cure = part if value.dtype.kind == "c" else "Convert it with .astype(np.float32)."
        if boolean and value.dtype.kind not in _NUMPY_KINDS:
            cure = "Convert it with .astype(bool)."
        if value.dtype.kind in _NUMPY_KINDS and value.dtype.itemsize <= 8:
            native = value.dtype.newbyteorder("=")
            dtype = mx.float64 if wide and native == np.float64 else None
            value = mx.array(np.ascontiguousarray(value, native).reshape(value.shape), dtype)
    if not isinstance(value, mx.array):
        raise TypeError(f"{function}: `{name}` is of type {got}; expected {wanted}. {cure}")
    if boolean != (value.dtype == mx.bool_) or value.dtype == mx.complex64:
        cure = (
            "Compare first, as in where=mask > 0."
            if boolean
            else part
            if value.dtype == mx.complex64
            else "Convert it with .astype(mx.float32); pass masks as where=..."
        )
        raise TypeError(f"{function}: `{name}` has dtype {value.dtype}; expected {wanted}. {cure}")
    return value


def floating(function: str, name: str, value: object) -> mx.array:
    """``value`` as an ``mx.array`` that can be trained."""
    array = as_array(function, name, value)
    if not mx.issubdtype(array.dtype, mx.floating):
        raise TypeError(
            f"{function}: `{name}` has dtype {array.dtype}; expected floating point, to be "
            f"trained. Convert it with .astype(mx.float32)."
        )
    return array


def data(
    function: str, names: tuple[str, str], x: object, y: object
) -> tuple[mx.array, mx.array, mx.Dtype, mx.Dtype]:
    """The two data arrays, the dtype of the result, and that of the arithmetic."""
    wide = any(type(v) is mx.array and v.dtype == mx.float64 for v in (x, y))
    beside = [name if is_array(v) else None for name, v in zip(names, (x, y), strict=True)]
    a = as_array(function, names[0], x, wide=wide, beside=beside[1])
    b = as_array(function, names[1], y, wide=wide, beside=beside[0])
    if a.shape != b.shape:
        raise ValueError(
            f"{function}: `{names[0]}` has shape {a.shape} and `{names[1]}` {b.shape}; they must "
            f"have the same shape. Losses never broadcast them: reshape one side, or widen it with "
            f"mx.broadcast_to."
        )
    dtype = mx.result_type(a, b)
    compute = compute_dtype(dtype)
    return a, b, dtype if mx.issubdtype(dtype, mx.floating) else compute, compute


def _fits(function: str, name: str, value: mx.array, shape: Sequence[int]) -> mx.array:
    """A threshold that broadcasts to the data's shape."""
    tail = tuple(shape)[len(shape) - value.ndim :] if value.ndim else ()
    if value.ndim > len(shape) or any(
        n not in (1, m) for n, m in zip(value.shape, tail, strict=True)
    ):
        raise ValueError(
            f"{function}: `{name}` has shape {value.shape} and the data {tuple(shape)}; it must "
            f"broadcast to the data's shape. {_cure(name, value, shape)}"
        )
    return value


def _aligned(function: str, name: str, value: mx.array, shape: Sequence[int]) -> mx.array:
    """Weights or a mask: of as many axes as the data, or of none.

    With fewer, one for each row would be taken for one for each column where the data are square.
    """
    if value.ndim and (
        value.ndim != len(shape)
        or any(n not in (1, m) for n, m in zip(value.shape, shape, strict=True))
    ):
        raise ValueError(
            f"{function}: `{name}` has shape {value.shape} and the data {tuple(shape)}; expected "
            f"as many axes, each of the data's length or of length 1. {_cure(name, value, shape)}"
        )
    return value


def _cure(name: str, value: mx.array, shape: Sequence[int]) -> str:
    """How to lay the axes of an array along those of the data."""
    if value.size == 1:
        return f"Pass {name}.reshape({(1,) * len(shape)})."
    fits = [
        "[" + ", ".join(":" if a in axes else "None" for a in range(len(shape))) + "]"
        for axes in itertools.combinations(range(len(shape)), value.ndim)
        if all(n in (1, shape[a]) for n, a in zip(value.shape, axes, strict=True))
    ]
    if value.ndim < len(shape) and fits:
        return f"Pass {' or '.join(name + index for index in fits)}."
    if [n for n in value.shape if n != 1] == [n for n in shape if n != 1]:
        return f"Pass {name}.reshape({tuple(shape)})."
    if value.shape[::-1] == tuple(shape):
        return f"Pass {name}.T."
    return (
        "Reshape it to as many axes as the data, of length 1 where it is shared, or widen the "
        "data with mx.broadcast_to."
    )


def scalar(number: float, dtype: mx.Dtype, traced: bool) -> mx.array:
    """A number as a 0-d array.

    Where it may be compiled, ``mx.full`` keeps it out of the compiled code, so that a new value
    compiles no new kernel. Elsewhere a constant does, which is no node of the graph.
    """
    return mx.full((), number, dtype) if traced else mx.array(number, dtype)


def thresholds(
    function: str,
    specs: Sequence[Threshold],
    values: Sequence[object],
    shape: Sequence[int],
    dtype: mx.Dtype,
) -> tuple[list[float | mx.array], tuple[Check, ...]]:
    """The thresholds, floats or arrays, and what is known or to be checked of each."""
    theta: list[float | mx.array] = []
    checks: list[Check] = []
    for spec, value in zip(specs, values, strict=True):
        if is_array(value):
            array = as_array(function, spec.name, value, wide=dtype == mx.float64)
            theta.append(_fits(function, spec.name, array, shape))
            checks.append(spec)
        else:
            number = spec.checked(function, value, dtype)
            theta.append(number)
            checks.append(kind_of(number, dtype))
    return theta, tuple(checks)


def weighting(
    function: str, value: object, shape: Sequence[int], dtype: mx.Dtype, reduction: object
) -> float | mx.array:
    """The weights, a float or an array."""
    wide = dtype == mx.float64
    array = None if is_number(value) else as_array(function, "weights", value, wide=wide)
    if reduction == "mean" and (array is None or not array.ndim or not shape):
        raise ValueError(
            f"{function}: `weights` is a single number, which cancels in a mean; expected an array "
            f"of the data's axes. Multiply the loss by it instead."
        )
    if array is not None:
        return _aligned(function, "weights", array, shape)
    number, limits = as_float(cast(Real, value)) + 0.0, mx.finfo(dtype)
    if number != 0 and not float(limits.smallest_normal) <= abs(number) <= float(limits.max):
        raise ValueError(
            f"{function}: `weights` is {number:g}; expected 0 or a number that {dtype} holds. "
            f"Rescale it, or use where=... to leave elements out."
        )
    return number


def selection(function: str, value: object, shape: Sequence[int]) -> mx.array:
    """The mask as a boolean array."""
    mask = as_array(function, "where", value, boolean=True)
    return _aligned(function, "where", mask, shape)


def check_reduction(function: str, value: object) -> None:
    """Raise unless ``value`` names a reduction."""
    if not isinstance(value, str) or value not in REDUCTIONS:
        long = isinstance(value, mx.array | np.ndarray)
        got = f"of type {type(value).__name__}" if long else repr(value)
        raise ValueError(
            f"{function}: `reduction` is {got}; expected 'none', 'mean' or 'sum'. "
            f"Pass it by keyword, as in reduction='mean'."
        )


def axes(function: str, reduction: object, axis: object, ndim: int) -> tuple[int, ...]:
    """The reduced axes, ascending and non-negative; all of them for None."""
    check_reduction(function, reduction)
    if axis is None:
        return tuple(range(ndim))
    if reduction == "none":
        raise ValueError(
            f"{function}: `axis` is {axis!r}, but reduction='none' reduces nothing. "
            f"Pass reduction='mean' or 'sum', or leave `axis` out."
        )
    given: Sequence[Any] = axis if isinstance(axis, tuple | list | range) else (axis,)
    found = []
    for a in given:
        if is_array(a):
            whole = "tuple(axis.tolist())" if getattr(a, "ndim", 0) else "axis.item()"
            cure = whole if a is axis else "tuple(int(a) for a in axis)"
            raise TypeError(
                f"{function}: `axis` is of type {type(axis).__name__}, with an array; expected an "
                f"int or a tuple of ints. Pass axis={cure}."
            )
        if isinstance(a, bool) or not hasattr(a, "__index__"):
            raise TypeError(
                f"{function}: `axis` is {axis!r}; expected an int or a tuple of ints. "
                f"Leave it out to reduce over all axes."
            )
        i = operator.index(cast(SupportsIndex, a))
        if not -ndim <= i < ndim:
            raise ValueError(
                f"{function}: `axis` is {axis!r}, out of range for data with {ndim} axes; expected "
                f"{f'{-ndim} to {ndim - 1}' if ndim else 'none'}. "
                f"Leave it out to reduce over all axes."
            )
        found.append(i % ndim)
    if len(set(found)) < len(found):
        raise ValueError(
            f"{function}: `axis` is {axis!r}, which names an axis twice; expected distinct axes. "
            f"Name each axis once."
        )
    return tuple(sorted(found))
