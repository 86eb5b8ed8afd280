"""Why some targets can't be had: the least that each of them would take, timed in one run.

Each line is a question, the times of the contestants and their ratio. LOG.md draws the conclusions.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, cast
from unittest import mock

import mlx.core as mx
import mlx.nn as nn
from measure import interleaved

import smoothloss as sl
from smoothloss._engine import kind, term
from smoothloss._engine.sums import sum_over

BUDGET = 2.0
Primitive = Callable[[mx.array], mx.array]


def normal(n: int, dtype: mx.Dtype = mx.float32) -> tuple[mx.array, mx.array]:
    x, y = mx.random.normal((n,)).astype(dtype), mx.random.normal((n,)).astype(dtype)
    mx.eval(x, y)
    return x, y


def waiting(step: Callable[[], Any]) -> Callable[[], None]:
    return lambda: mx.eval(step())


def ask(question: str, **steps: Callable[[], Any]) -> None:
    """Print the medians in microseconds, and each as a multiple of the first."""
    times = interleaved({name: waiting(step) for name, step in steps.items()}, BUDGET)
    medians = {name: statistics.median(t) for name, t in times.items()}
    first = next(iter(medians.values()))
    print(question)
    for name, t in medians.items():
        print(f"    {name.replace('_', ' '):<44}{t * 1e6:>10.1f} us {t / first:>7.2f}", flush=True)


def mean(loss: Callable[..., mx.array]) -> Callable[..., mx.array]:
    return lambda x, y: loss(x, y, reduction="mean")


def one_element() -> None:
    x, y = normal(1)
    empty = mx.custom_function(lambda x, y: x - y)
    empty.vjp(lambda row, cotangent, _: (cotangent, -cotangent))
    own = mx.value_and_grad(lambda x, y: cast(mx.array, empty(x, y)).sum())
    plain = mx.value_and_grad(lambda x, y: (x - y).sum())
    theirs = mx.value_and_grad(mean(nn.losses.l1_loss))
    ours = mx.value_and_grad(sl.l1_loss)
    ask(
        "One element, eager: what a custom function costs that computes nothing",
        plain_difference=lambda: plain(x, y),
        the_same_as_a_custom_function=lambda: own(x, y),
        mlx_nn_l1=lambda: theirs(x, y),
        smoothloss_l1=lambda: ours(x, y),
    )


def small_squares() -> None:
    """What each promise costs in the eager squared error of few elements, and its gradient."""
    x, y = normal(256)
    count, one, nan = mx.array(1 / 256), mx.array(1.0), mx.array(mx.nan)

    def accurate(v: mx.array) -> mx.array:
        return v.reshape(16, -1).sum(0).sum() * count

    def nan_at_second_order(x: mx.array, y: mx.array) -> mx.array:
        r = x - y
        return accurate(mx.square(r) * mx.where(r == r, one, nan))

    slope = mx.custom_function(lambda x, y, c: (c + c) * (x - y))
    slope.vjp(lambda row, c, _: (c * 2 * row[2], -c * 2 * row[2], c * 2 * (row[0] - row[1])))
    bare = mx.custom_function(lambda x, y: accurate(mx.square(x - y)))

    def pulled_back(row: Sequence[mx.array], c: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        by_x = cast(mx.array, slope(*row, c * count))
        return by_x, -by_x

    bare.vjp(pulled_back)
    term_alone = term.term(
        sl.mse_loss.loss.kernel,  # type: ignore[attr-defined]
        kind.Kind(mx.float32, mx.float32),
        mx.float32,
        (0,),
    )
    steps: dict[str, Callable[..., mx.array]] = {
        "mlx_nn": mean(nn.losses.mse_loss),
        "an_accurate_sum_MLX_s_derivative": lambda x, y: accurate(mx.square(x - y)),
        "and_NaN_in_the_second_derivative": nan_at_second_order,
        "a_custom_function_of_two_orders": lambda x, y: cast(mx.array, bare(x, y)),
        "our_term_without_validation": lambda x, y: term_alone(x, y) * count,
        "smoothloss": sl.mse_loss,
    }
    gradients = {name: mx.value_and_grad(f) for name, f in steps.items()}
    ask(
        "256 elements, eager squared error with its gradient: what each promise costs",
        **{name: functools.partial(g, x, y) for name, g in gradients.items()},
    )


def few_elements() -> None:
    x, y = normal(1 << 16)
    ours = mx.compile(mx.value_and_grad(sl.smooth_l1_loss))
    theirs = mx.compile(mx.value_and_grad(mean(nn.losses.smooth_l1_loss)))
    ask(
        "64 K float32, compiled: most is the call, not the loss",
        smoothloss=lambda: ours(x, y),
        one_subtraction_of_one_element=lambda: x[:1] - y[:1],
        one_subtraction=lambda: x - y,
        mlx_nn=lambda: theirs(x, y),
    )


def passes() -> None:
    """Whether loss and gradient can share a pass over the data, as in JAX's kernels."""
    x, y = normal(1 << 20)

    def both(x: mx.array, y: mx.array) -> tuple[mx.array, mx.array]:
        r = x - y
        return sum_over(mx.square(r), (0,)) / r.size, (r + r) * (1 / r.size)

    custom = mx.custom_function(both)

    def pulled_back(
        row: Sequence[mx.array], c: Sequence[mx.array], out: Sequence[mx.array]
    ) -> tuple[mx.array, ...]:
        by_x = c[0] * out[1]
        return by_x, -by_x

    custom.vjp(pulled_back)
    ours = mx.compile(mx.value_and_grad(sl.mse_loss))
    results = mx.compile(both)
    of_one = mx.compile(mx.value_and_grad(lambda x, y: cast(Any, custom(x, y))[0]))
    forward = mx.compile(sl.mse_loss)
    ask(
        "1 M float32, squared error: loss and gradient in two passes, and tries at one",
        smoothloss=lambda: ours(x, y),
        forward_alone=lambda: forward(x, y),
        both_as_results_of_a_compiled_function=lambda: results(x, y),
        both_as_results_of_one_custom_function=lambda: of_one(x, y),
    )


def fresh_memory() -> None:
    small, large = normal(1 << 20), normal(1 << 24)
    ours = mx.compile(mx.value_and_grad(sl.smooth_l1_loss))
    forward = mx.compile(sl.smooth_l1_loss)
    ask(
        "16 M float32: the gradient is fresh memory (compare with 16 subtractions of 1 M)",
        subtraction_of_1_M=lambda: small[0] - small[1],
        subtraction_of_16_M=lambda: large[0] - large[1],
        smoothloss_forward_16_M=lambda: forward(*large),
        smoothloss_16_M=lambda: ours(*large),
    )


def conversions(dtype: mx.Dtype) -> None:
    x, y = normal(1 << 20, dtype)
    floor = mx.compile(lambda x, y: (x.astype(mx.float32) - y.astype(mx.float32)).astype(dtype))
    ours = mx.compile(mx.value_and_grad(sl.smooth_l1_loss))
    again = mx.compile(mx.value_and_grad(sl.smooth_l1_loss))
    with mock.patch.object(term, "on_cpu", return_value=False):
        mx.eval(again(x, y))  # traced as for a GPU, which converts in both passes
    ask(
        f"1 M {dtype}: two conversions in, one out",
        conversions=lambda: floor(x, y),
        smoothloss=lambda: ours(x, y),
        smoothloss_converting_in_both_passes=lambda: again(x, y),
    )


def selection() -> None:
    x, y = normal(1 << 20)
    mask = mx.random.uniform(shape=x.shape) < 0.8
    mx.eval(mask)
    plain = mx.compile(lambda x, y, m: mx.abs(x - y))
    chosen = mx.compile(lambda x, y, m: mx.where(m, mx.abs(x - y), 0))
    multiplied = mx.compile(lambda x, y, m: m * mx.abs(x - y))
    ask(
        "1 M float32 with a mask: to select costs more than to compute",
        absolute_difference=lambda: plain(x, y, mask),
        multiplied_which_lets_NaN_through=lambda: multiplied(x, y, mask),
        selected=lambda: chosen(x, y, mask),
        eager_selection_alone=lambda: mx.where(mask, x, 0),
    )


def transcendentals() -> None:
    """The functions that a loss and its gradient can't do without, and nothing else."""
    x, y = normal(1 << 20)
    needed: dict[str, tuple[Primitive, Primitive]] = {
        "cauchy_loss": (mx.log, mx.reciprocal),
        "charbonnier_loss": (mx.sqrt, mx.rsqrt),
        "log_cosh_loss": (lambda a: mx.log(mx.expm1(a)), mx.expm1),
        "pseudo_huber_loss": (mx.sqrt, mx.rsqrt),
        "welsch_loss": (mx.expm1, lambda a: mx.power(a, a)),
    }
    for name, (forward, backward) in needed.items():
        loss = getattr(sl, name)

        def primitives(
            x: mx.array, y: mx.array, f: Primitive = forward, g: Primitive = backward
        ) -> tuple[mx.array, mx.array]:
            return sum_over(f(1 + mx.abs(x - y)), (0,)), g(1 + mx.abs(y - x))

        least, ours = mx.compile(primitives), mx.compile(mx.value_and_grad(mean(loss)))
        ask(
            f"{name}, 1 M: the functions that it can't do without",
            primitives_alone=functools.partial(least, x, y),
            value_and_grad=functools.partial(ours, x, y),
        )


if __name__ == "__main__":
    for experiment in (
        one_element,
        small_squares,
        few_elements,
        passes,
        fresh_memory,
        selection,
        transcendentals,
    ):
        experiment()
    conversions(mx.float16)
    conversions(mx.bfloat16)
