"""Means over several ranks and over micro-batches are those of one program with all data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import launch
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import ranks
from cases import Entry

import smoothloss as sl

PROGRAM = Path(ranks.__file__)
TRAINED = [
    "uneven",
    "weighted",
    "masked",
    "masked-shard",
    "all-masked",
    "axis",
    "mapped",
    "adaptive",
    "model-weighted",
    "accumulated",
]
EAGER = [f"{case}:eager" for case in (*TRAINED, "half", "curvature")]
CATALOG = [f"{case}:eager" for case in sl.losses.__all__]
COMPILED = [f"{case}:compiled" for case in (*TRAINED, "half")]


def found(count: int, steps: int, cases: list[str], folder: Path) -> dict[str, Any]:
    """What each rank finds, by case."""
    runs = launch.ranks(count, PROGRAM, folder, steps, *cases, seconds=90 * count)
    assert [run.returncode for run in runs] == [0] * count, "".join(run.stderr for run in runs)
    each = [json.loads((folder / f"{k}.json").read_text()) for k in range(count)]
    return {case: [out[case] for out in each] for case in cases}


def errors(case: str, steps: int, ours: list[dict[str, list[float]]]) -> dict[str, float]:
    """How far each rank is from one program with all data, relative to the largest number."""
    name = case.split(":")[0]
    reference = ranks.train(name, ranks.plain, ranks.data(name), steps, compiled=False)
    scales = {key: max(map(abs, values)) or 1 for key, values in reference.items()}
    return {
        key: max(np.abs(np.subtract(rank[key], values)).max() / scales[key] for rank in ours)
        for key, values in reference.items()
    }


def check(count: int, steps: int, cases: list[str], folder: Path) -> None:
    out = found(count, steps, cases, folder)
    far = {case: errors(case, steps, each) for case, each in out.items()}
    # A gradient of float16 is rounded once on each rank, before they are added.
    bounds = {case: 2e-3 if case.startswith("half") else 1e-6 for case in cases}
    wrong = {case: e for case, e in far.items() if not max(e.values()) <= bounds[case]}
    assert wrong == {}
    assert all(each == each[:1] * count for each in out.values()), "ranks differ"


def test_two_ranks_train_as_one_program(tmp_path: Path) -> None:
    check(2, 50, [*EAGER, *CATALOG, "masked:compiled"], tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_train_as_one_program(count: int, tmp_path: Path) -> None:
    eager = {1: EAGER, 2: [], 4: ["uneven:eager", "curvature:eager"]}
    check(count, 50, [*eager[count], *COMPILED], tmp_path)


def test_the_mean_of_the_means_of_ranks_is_another(tmp_path: Path) -> None:
    """So the tests above find what they look for; that ranks agree says nothing."""
    cases = [f"{case}:naive" for case in ("uneven", "weighted", "masked", "adaptive")]
    for case, each in found(2, 20, cases, tmp_path).items():
        assert errors(case, 20, each)["parameters"] > 1e-2, case
        assert each[0]["parameters"] == each[1]["parameters"], case


def test_the_sums_of_half_types_that_the_ranks_form_overflow() -> None:
    d = ranks.data("half")
    for rows in (d, ranks.data("half", 2, 0)):
        x = rows["x"] @ ranks.Model("half").w
        assert x.dtype == mx.float16
        assert mx.isinf(sl.huber_loss(x, rows["y"], reduction="sum", where=rows["where"])).item()


def test_one_rank_has_the_plain_mean(entry: Entry) -> None:
    x, y = mx.random.normal((2, 30, 3))
    w, mask = mx.random.uniform(shape=(30, 1)), mx.random.uniform(shape=(30, 3)) < 0.5
    theta = dict.fromkeys(entry.threshold_names, 0.6)
    for kept in ({}, {"weights": w, "where": mask}, {"axis": 0, "where": mask}):
        plain, ours = (
            mx.value_and_grad(lambda x, f=f, kept=kept: f(x, y, **theta, **kept).sum())(x)
            for f in (
                lambda *data, **named: entry.function(*data, **named, reduction="mean"),
                lambda *data, **named: sl.global_mean(entry.function, *data, **named),
            )
        )
        assert all(mx.array_equal(a, b).item() for a, b in zip(plain, ours, strict=True))
    module = entry.module(**theta)
    for loss in (entry.loss, module, entry.module):
        kept = {} if loss is module else theta
        assert sl.global_mean(loss, x, y, **kept).item() == module(x, y).item()


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.float64])
@pytest.mark.parametrize("kept", ["plain", "weights", "where", "axis"])
def test_micro_batches_add_up_to_the_batch(dtype: mx.Dtype, kept: str) -> None:
    x, y = (40 * mx.random.normal((2, 1000, 3))).astype(dtype)
    of_rows = {
        "plain": {},
        "weights": {"weights": mx.random.uniform(shape=(1000, 1))},
        "where": {"where": mx.random.uniform(shape=(1000, 3)) < mx.linspace(0, 1, 1000)[:, None]},
        "axis": {"where": mx.arange(3000).reshape(1000, 3) % 7 > 2},
    }[kept]
    axis = 0 if kept == "axis" else None
    delta = mx.array([1.0, 10.0, 100.0])

    def whole(x: mx.array, delta: mx.array) -> mx.array:
        named = {"delta": delta, "axis": axis, "reduction": "mean", **of_rows}
        return sl.huber_loss(x, y, **named).astype(mx.float32).sum()

    total = sl.total_weight(y, axis=axis, **of_rows)

    def part(x: mx.array, delta: mx.array, i: int) -> mx.array:
        rows = {name: v[i : i + 300] for name, v in of_rows.items()}
        named = {"delta": delta, "axis": axis, "total": total, **rows}
        here = sl.global_mean(sl.huber_loss, x[i : i + 300], y[i : i + 300], **named)
        assert here.dtype == dtype
        return here.astype(mx.float32).sum()

    with mx.stream(mx.cpu):
        value, (by_x, by_delta) = mx.value_and_grad(whole, argnums=(0, 1))(x, delta)
        parts = [mx.value_and_grad(part, argnums=(0, 1))(x, delta, i) for i in range(0, 1000, 300)]
    epsilon = mx.finfo(dtype).eps if dtype != mx.float64 else 1e-7  # of the sum in float32
    assert sum(v for v, _ in parts).item() == pytest.approx(value.item(), rel=4 * epsilon)
    close = {"rtol": 4 * epsilon, "atol": epsilon * mx.abs(by_x).max().item()}
    added = [sum(g[k] for _, g in parts).astype(mx.float32) for k in (0, 1)]
    assert mx.allclose(added[0], by_x.astype(mx.float32), **close).item()
    assert mx.allclose(added[1], by_delta, rtol=1e-6 + 4 * epsilon).item()


def test_a_total_of_nothing_gives_0() -> None:
    x, y = mx.random.normal((2, 5, 3))
    nothing = mx.zeros((5, 1), mx.bool_)
    total = sl.total_weight(y, where=nothing)
    f = lambda x: sl.global_mean(sl.l1_loss, x, y, where=nothing, total=total)
    value, gradient = mx.value_and_grad(f)(x)
    assert (value.item(), mx.abs(gradient).max().item(), total.item()) == (0, 0, 0)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()], ids=str)
@pytest.mark.parametrize("rows", [4, 1, 0])
def test_total_weight_is_the_sum_of_what_broadcasts(rows: int, axis: Any) -> None:
    shape = (rows, 3, 5)
    rng = np.random.default_rng(0)
    for w_shape in ((rows, 1, 1), (1, 1, 5), (rows, 3, 5), None):
        for m_shape in ((1, 3, 1), (rows, 3, 5), (), None):
            w = None if w_shape is None else rng.uniform(0.5, 2, w_shape).astype(np.float32)
            m = None if m_shape is None else np.asarray(rng.random(m_shape) < 0.6)
            each = np.broadcast_to(1.0 if w is None else w, shape)
            expected = np.where(True if m is None else m, each, 0).sum(axis)
            found = sl.total_weight(np.zeros(shape), weights=w, where=m, axis=axis)
            assert found.dtype == mx.float32
            assert found.shape == expected.shape
            np.testing.assert_allclose(np.array(found), expected, rtol=1e-6)


def test_total_weight_has_a_gradient() -> None:
    """By weights that share an axis, what they are shared by and is selected."""
    w, mask = mx.ones((4, 1)), mx.arange(12).reshape(4, 3) < 5
    total = lambda w, **kept: sl.total_weight(mx.zeros((4, 3)), weights=w, **kept)
    assert mx.grad(total)(w).tolist() == [[3]] * 4
    assert mx.grad(lambda w: total(w, where=mask))(w).tolist() == [[3], [2], [0], [0]]


def test_with_a_total_no_derivative_is_taken_by_it_or_by_weights() -> None:
    x, y, w = mx.ones((4, 3)), mx.zeros((4, 3)), mx.ones((4, 1))

    def mean(x: mx.array, w: mx.array, total: mx.array) -> mx.array:
        return sl.global_mean(sl.l1_loss, x, y, weights=w, total=total)

    total = mx.array(24.0)
    assert mean(x, w, total).item() == 0.5
    assert mx.grad(mean)(x, w, total)[0, 0].item() == pytest.approx(1 / 24)
    for place, name in ((1, "weights"), (2, "total")):
        words = rf"^global_mean: a derivative is taken by `{name}`.*stop_gradient\({name}\)"
        with pytest.raises(ValueError, match=words):
            mx.grad(mean, argnums=place)(x, w, total)
        row = [x, w, total]
        of_one = lambda v: mean(*row[:place], v, *row[place + 1 :])
        with pytest.raises(ValueError, match=words):
            mx.jvp(of_one, [row[place]], [row[place]])
    fixed = lambda v: mean(x * v, mx.stop_gradient(w * v), mx.stop_gradient(total * v))
    assert mx.grad(fixed)(mx.array(1.0)).item() == pytest.approx(0.5)
    rows = mx.vmap(mean, in_axes=(None, None, 0))(x, w, mx.array([24.0, 12.0]))
    assert rows.tolist() == [0.5, 1]


WRONG: dict[str, tuple[Callable[[mx.array], Any], type[Exception], str]] = {
    "a loss of mlx.nn": (lambda x: sl.global_mean(nn.losses.l1_loss, x, x), TypeError, "`loss` is"),
    "losses": (lambda x: sl.global_mean(sl.l1_loss(x, x), x, x), TypeError, "`loss` is"),
    "a sum": (
        lambda x: sl.global_mean(sl.HuberLoss(reduction="sum"), x, x),
        ValueError,
        "global_mean: `loss` has reduction='sum'; expected 'mean'",
    ),
    "reduction": (
        lambda x: sl.global_mean(sl.huber_loss, x, x, reduction="sum"),
        TypeError,
        "global_mean: `reduction` is no argument; expected delta",
    ),
    "group": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, group=2),
        TypeError,
        "global_mean: `group` is of type int; expected a group of mx.distributed",
    ),
    "mask": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, mask=x > 0),
        TypeError,
        "global_mean: `mask` is no argument; expected weights, where.*total, group.*Pass `where`",
    ),
    "reduction of a function": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, reduction="mean"),
        TypeError,
        "global_mean: `reduction` is no argument.* Leave it out",
    ),
    "negative total": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, total=-1),
        ValueError,
        "global_mean: `total` is -1; expected a finite number.*total_weight",
    ),
    "total of NaN": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, total=float("nan")),
        ValueError,
        "global_mean: `total` is nan; expected a finite number",
    ),
    "mask of the total": (
        lambda x: sl.total_weight(x, mask=x > 0),
        TypeError,
        "total_weight: `mask` is no argument.*Pass `where`",
    ),
    "group of the total": (
        lambda x: sl.total_weight(x, group="ring"),
        TypeError,
        "total_weight: `group` is of type str",
    ),
    "total": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, axis=0, total=mx.ones(4)),
        ValueError,
        r"global_mean: `total` has shape \(4,\) and the mean \(3,\).*total_weight",
    ),
    "a list": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, total=[1.0]),
        TypeError,
        "global_mean: `total` is of type list",
    ),
    "one weight": (
        lambda x: sl.total_weight(x, weights=2.0),
        ValueError,
        "total_weight: `weights` is a single number, which cancels in a mean",
    ),
    "one weight of a part": (
        lambda x: sl.global_mean(sl.l1_loss, x, x, weights=2.0, total=1.0),
        ValueError,
        "global_mean: `weights` is a single number",
    ),
    "weights of rows": (
        lambda x: sl.total_weight(x, weights=mx.ones(4)),
        ValueError,
        r"total_weight: `weights` has shape \(4,\).*weights\[:, None\]",
    ),
    "shapes": (
        lambda x: sl.global_mean(sl.l1_loss, x, x[:2]),
        ValueError,
        "global_mean: `predictions` has shape .* and `targets`",
    ),
    "threshold": (
        lambda x: sl.global_mean(sl.huber_loss, x, x, delta=-1.0),
        ValueError,
        "global_mean: `delta` is -1",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_name_the_function_and_the_argument(wrong: str) -> None:
    call, kind, words = WRONG[wrong]
    with pytest.raises(kind, match=words):
        call(mx.zeros((4, 3)))
