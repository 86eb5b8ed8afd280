"""Elementary functions that hold at every limit, shared by the losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import mlx.core as mx

from .._engine.shapes import alone
from .._engine.sums import on_cpu


def scalar(value: float, like: mx.array) -> mx.array:
    """A number that is no constant of the compiled code, where it would make branches."""
    return mx.full((), value, like.dtype)


def one_at_zero(theta: mx.array) -> mx.array:
    """1 where theta is 0, else 0: added to both sides of x/theta, it makes 0/0 the limit 1."""
    return mx.where(theta == 0, 1.0, 0.0)


def largest(like: mx.array) -> mx.array:
    """The largest finite number."""
    return mx.array(mx.finfo(like.dtype).max, like.dtype)


def huge(like: mx.array) -> mx.array:
    """The inverse of the smallest normal number; its square lifts every number but 0 above 1."""
    return mx.array(1 / mx.finfo(like.dtype).smallest_normal, like.dtype)


def wide(like: mx.array) -> mx.array:
    """The largest x of which both x^2 and 1/x^2 are normal numbers, so that sqrt(1 + x^2) is x."""
    return scalar(float(mx.finfo(like.dtype).smallest_normal) ** -0.5, like)


def clip(r: mx.array, bound: mx.array) -> mx.array:
    """``r`` within +-bound; NaN stays."""
    return mx.maximum(-bound, mx.minimum(bound, r))


def sign(r: mx.array) -> mx.array:
    """The sign, but NaN at NaN, where ``mx.sign`` is 0."""
    one = scalar(1.0, r)
    lift = one * huge(r)
    return clip(r * lift * lift, one)


def open_clip(r: mx.array, bound: mx.array) -> mx.array:
    """As :func:`clip`, but MLX differentiates it: by 1 where abs(r) < bound, and 0 elsewhere."""
    return mx.maximum(mx.minimum(r, bound), -bound)


def constant(r: mx.array, value: float) -> mx.array:
    """``value``, but NaN at NaN."""
    return mx.where(r == r, value, r)


def lifted(r: mx.array, theta: mx.array) -> mx.array:
    """``r``, but beyond every bound where theta is 0, unless r is 0 itself."""
    lift = mx.where(theta == 0, huge(r), 1.0)
    return r * lift * lift


def inside(r: mx.array, theta: mx.array, value: mx.array | float) -> mx.array:
    """``value`` where |r| < theta, 0 where |r| >= theta, NaN where either is NaN."""
    return split(r, theta, value, 0)


def split(
    r: mx.array, theta: mx.array, value: mx.array | float, outside: mx.array | float
) -> mx.array:
    """``value`` where |r| < theta, ``outside`` where |r| >= theta, NaN where either is NaN."""
    a = mx.abs(r)
    return mx.where(a >= theta, outside, mx.where(a < theta, value, mx.nan))


def root(x: mx.array) -> mx.array:
    """The square root of 1 + x^2, of |x| up to ``wide``."""
    return mx.sqrt(1 + mx.square(x))


def hypotenuse(c: mx.array, a: mx.array) -> mx.array:
    """The root of c^2 + a^2, of c > 0 and a >= 0, which overflows only if it must."""
    return mx.maximum(c * root(mx.minimum(wide(a), a / c)), a)


def root_quotient(a: mx.array, c: mx.array, k: mx.array) -> mx.array:
    """The square root of a/ck, of a >= 0, c > 0 and k > 0, which does not overflow."""
    return mx.sqrt(a) / alone(alone(mx.sqrt(c)) * alone(mx.sqrt(k)))


def log_hypotenuse(a: mx.array, c: mx.array, k: mx.array) -> mx.array:
    """The logarithm of 1 + q^2, of q = a/ck >= 0, which may overflow."""
    m = mx.minimum(wide(a), a / c / k)
    inverse = float(mx.finfo(a.dtype).smallest_normal) ** 0.25
    beyond = mx.maximum(scalar(1.0, a), root_quotient(a, c, k) * inverse)
    return log1p(mx.square(m)) + 4 * mx.log(beyond)


def far_quotient(r: mx.array, c: mx.array) -> mx.array:
    """abs(r/c)/wide^2, which is right where abs(r/c) > wide, even if that overflows."""
    least = float(mx.finfo(r.dtype).smallest_normal)
    inverse = alone(mx.maximum(least, alone(least**0.5 / c)))
    return mx.abs(r * least**0.5) * inverse


def log1p_far(x: mx.array, v: mx.array) -> mx.array:
    """``log1p`` of x = q^2, which may overflow or be clipped at wide^2, by v = q/wide^2."""
    bound, y = mx.square(wide(x)), 1 + x
    far = x >= bound
    rest = mx.where(far, 2 * mx.log(bound), (x - (y - 1)) / y)
    return mx.where(far, 2.0, 1.0) * mx.log(mx.where(far, v, y)) + rest


def log1p(x: mx.array) -> mx.array:
    """The logarithm of 1 + x, of finite x >= 0, within 1.5 ulp; ``mx.log1p`` is slow on the CPU.

    To first order, the logarithm of the rounded sum lacks the rounding error over the sum.
    """
    y = 1 + x
    return mx.log(y) + (x - (y - 1)) / y


def exp(x: mx.array) -> mx.array:
    """The exponential of x <= 0, on the CPU to 1 + 0.6 abs(x) ulp.

    There ``mx.exp`` takes three times as long and errs more. On a GPU it is precise, also where
    Metal compiles a fast ``mx.power``.
    """
    return mx.power(scalar(math.e, x), x) if on_cpu() else mx.exp(x)


def polynomial(coefficients: Sequence[mx.array | float], t: mx.array) -> mx.array | float:
    """The sum of c_k t^k, by Estrin's scheme: less deep than Horner's, it makes fewer kernels."""
    terms = list(coefficients)
    while len(terms) > 1:
        pairs = itertools.zip_longest(terms[::2], terms[1::2])
        terms = [a if b is None else a + b * t for a, b in pairs]
        t = mx.square(t)
    return terms[0] if terms else 0.0
