"""The textbook formula of each loss, and its derivatives, at 400 digits.

An independent second opinion: nothing here knows how the library computes.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

import device
import mlx.core as mx
import mpmath
import numpy as np
from cases import BY_NAME, Entry

mpmath.mp.dps = 400


def as_numpy(v: mx.array) -> np.ndarray:
    """In NumPy's float64, which holds every dtype of the losses and which no GPU has."""
    with np.errstate(invalid="ignore"):  # NaNs that signal
        return np.array(v.astype(mx.float32) if v.dtype.size < 4 else v).astype(np.float64)


def in_float64(f: Callable[..., mx.array], *row: mx.array) -> np.ndarray:
    """What ``f`` gives in float64: on the CPU, wherever else the test runs."""
    with mx.stream(mx.cpu):
        return as_numpy(f(*(v.astype(mx.float64) for v in row)))


to_mp = np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])


def residual(x: mx.array, y: mx.array) -> np.ndarray:
    """x - y, exactly."""
    return to_mp(as_numpy(x)) - to_mp(as_numpy(y))


@functools.cache
def log_z_series(alpha: float) -> tuple[Any, ...]:
    """The logarithm of Z and its first two derivatives, by quadrature with 30 digits.

    With u = sqrt(b) sinh s, the trapezoidal rule in s converges geometrically. The derivatives are
    cumulants of those of the loss, here taken by differences.
    """
    if alpha == 2:  # the normal distribution; the derivatives are infinite
        return mpmath.log(2 * mpmath.pi) / 2, 0, 0
    with mpmath.workdps(90):
        general = expression(BY_NAME["general_loss"], BY_NAME["general_loss"].textbook.formula)
        a, b, h = mpmath.mpf(alpha), mpmath.mpf(2 - alpha), mpmath.mpf(1) / 16
        step = mpmath.mpf(10) ** -20
        z = first = second = mpmath.mpf(0)
        k, last = 0, False
        while not last:
            u = mpmath.sqrt(b) * mpmath.sinh(k * h)
            at, above, below = (general(u, a + d, mpmath.mpf(1)) for d in (0, step, -step))
            slope, bend = (above - below) / (2 * step), (above - 2 * at + below) / step**2
            w = mpmath.exp(-at) * mpmath.cosh(k * h) * (1 if k else 0.5)
            z, first, second = z + w, first - w * slope, second + w * (slope**2 - bend)
            last = k * h > 2 and w * (1 + slope**2 + abs(bend)) < 1e-30 * z
            k += 1
        mean = first / z
        return mpmath.log(2 * h * mpmath.sqrt(b) * z), mean, second / z - mean**2


def log_z(alpha: Any) -> Any:
    """The logarithm of Z, with its derivatives for differences."""
    at = round(float(alpha), 15)
    value, slope, bend = log_z_series(at)
    d = alpha - at
    return value + d * (slope + d * bend / 2)


def _general(r: Any, alpha: Any, scale: Any) -> Any:
    entry = BY_NAME["general_loss"]
    return expression(entry, entry.textbook.formula)(r, alpha, scale)


WORDS: dict[str, Any] = {
    name: getattr(mpmath, name) for name in ("sqrt", "log", "exp", "cosh", "atan", "sign", "inf")
} | {"log_z": log_z, "general_loss": _general}


@functools.cache
def expression(entry: Entry, text: str) -> Callable[..., Any]:
    """An expression of the textbook as a function of ``(r, *thresholds)``."""
    code = f"lambda r, {', '.join(entry.threshold_names)}: {text}"
    return eval(code, WORDS)


def expected(entry: Entry, text: str, *row: np.ndarray) -> np.ndarray:
    """An expression of the textbook, element by element."""
    return np.vectorize(expression(entry, text), otypes=[object])(*row)


class _ByElement(ast.NodeTransformer):
    """Makes a choice between numbers one between arrays."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return ast.Call(ast.Name("where", ast.Load()), [node.test, node.body, node.orelse], [])


@functools.cache
def vectorised(entry: Entry, text: str) -> Callable[..., np.ndarray]:
    """An expression of the textbook as a function of NumPy arrays ``(r, *thresholds)``."""
    tree = ast.parse(f"lambda r, {', '.join(entry.threshold_names)}: {text}", mode="eval")
    code = compile(ast.fix_missing_locations(_ByElement().visit(tree)), "textbook", "eval")
    names = {name: getattr(np, name) for name in ("sqrt", "log", "exp", "where", "inf")}
    log_z = np.vectorize(lambda a: float(log_z_series(float(a))[0]))
    return eval(code, names | {"max": np.maximum, "log_z": log_z})


def exact(entry: Entry, order: tuple[int, ...], r: np.ndarray, *theta: np.ndarray) -> np.ndarray:
    """The derivative of rho by the arguments in ``order``: 0 is r, 1 the first threshold.

    Central differences, of steps far below the distance to a kink and far above 1e-400.
    """
    row = [r, *theta]
    if not order:
        return expected(entry, entry.textbook.formula, *row)
    i, *rest = order
    tiny = mpmath.mpf(10) ** -20
    size = abs(row[i])
    if i == 0:
        unit = [
            t
            for t, spec in zip(theta, entry.loss.thresholds, strict=True)
            if spec.has_residual_units
        ]
        size = np.where(size == 0, *unit, size) if unit else size
    step = np.where(size == 0, 1, size) * tiny
    above, below = (
        exact(entry, tuple(rest), *row[:i], row[i] + s * step, *row[i + 1 :]) for s in (1, -1)
    )
    rise = above - below
    noise = abs(rise) < (abs(above) + abs(below)) * mpmath.mpf(10) ** -360
    return np.where(noise, mpmath.mpf(0), rise / (2 * step))


_LAYOUT = {mx.float32: (24, -149, 127), mx.float64: (53, -1074, 1023)}


def ulps(got: mx.array, want: np.ndarray) -> np.ndarray:
    """|got - want| in units in the last place of want.

    An overflow that is due counts as 0, as does 0 for what is no normal number.
    """
    digits, least, top = _LAYOUT[got.dtype]
    largest = (2 - mpmath.mpf(2) ** -digits) * mpmath.mpf(2) ** top
    out = []
    for g, w in zip(as_numpy(got).ravel(), want.ravel(), strict=True):
        exponent = mpmath.frexp(w)[1] if w else least
        unit = mpmath.mpf(2) ** max(exponent - digits, least)
        if abs(w) >= largest:
            out.append(0.0 if g == np.sign(w) * np.inf else np.inf)
        elif abs(w) < mpmath.mpf(2) ** (least + digits - 1) and abs(g) <= 2 * abs(w):
            out.append(0.0)
        else:
            out.append(float(abs(mpmath.mpf(float(g)) - w) / unit) if np.isfinite(g) else np.inf)
    return np.round(out, 6)


def floats_between(a: mx.array, b: mx.array) -> int:
    """By how many floats two arrays of a dtype differ at most; NaNs are alike."""
    kind = {2: mx.int16, 4: mx.int32, 8: mx.int64}[a.dtype.size]
    nan = np.isnan(as_numpy(a))
    assert (nan == np.isnan(as_numpy(b))).all()
    bits = (np.array(v.view(kind)).astype(np.int64)[~nan] for v in (a, b))
    least = -(2 ** (8 * a.dtype.size - 1))
    first, second = (np.where(v < 0, least - v, v) for v in bits)  # in the order of the floats
    return int(abs(first - second).max(initial=0))


def as_eager(compiled: mx.array, eager: mx.array, most: int = 2) -> bool:
    """Whether a compiled result is the eager one: to the bit, or, where a*b + c is rounded once,
    but for so many floats."""
    alike = compiled.shape == eager.shape and compiled.dtype == eager.dtype
    return alike and floats_between(compiled, eager) <= (most if device.FUSES else 0)


def at_doubles(entry: Entry, order: tuple[int, ...], *row: np.ndarray) -> np.ndarray:
    """``exact`` of arrays of floats that broadcast, rounded to float64."""
    wide = np.broadcast_arrays(*(to_mp(np.asarray(v)) for v in row))
    return np.asarray(exact(entry, order, *wide)).astype(np.float64)


def off_the_kinks(entry: Entry, r: np.ndarray, *theta: np.ndarray) -> np.ndarray:
    """Where all derivatives to second order exist, with room for their differences."""

    def far(r: Any, *theta: Any) -> bool:
        kinks = entry.trait("kinks", *theta)
        return all(abs(r - at) > 1e-12 * (abs(r) + abs(at)) for at in kinks)

    return np.vectorize(far, otypes=[bool])(r, *theta)
