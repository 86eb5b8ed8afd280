"""Losses that users make: all that ours have, with as many derivatives as they care to give."""

import copy
import gc
import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import Entry, Line, floats, nested, same_bits, train
from oracle import as_numpy

import smoothloss as sl


def rho(r: mx.array, c: mx.array) -> mx.array:
    a = mx.abs(r)
    return c * a - c * c * mx.log1p(a / c)


def psi(r: mx.array, c: mx.array) -> mx.array:
    return r / (1 + mx.abs(r) / c)


def psi_prime(r: mx.array, c: mx.array) -> mx.array:
    return mx.square(c / (c + mx.abs(r)))


def rho_c(r: mx.array, c: mx.array) -> mx.array:
    a = mx.abs(r)
    return a + a * c / (a + c) - 2 * c * mx.log1p(a / c)


def psi_c(r: mx.array, c: mx.array) -> mx.array:
    return mx.sign(r) * mx.square(r / (c + mx.abs(r)))


def rho_c_c(r: mx.array, c: mx.array) -> mx.array:
    a = mx.abs(r)
    t = a / (a + c)
    return t + t + mx.square(t) - 2 * mx.log1p(a / c)


SPECS = [sl.Threshold("c", default=1.5, open_low=True)]
FIRST = {"psi": psi, "partials": {"c": rho_c}}
SECOND = {"psi_prime": psi_prime, ("r", "c"): psi_c, ("c", "c"): rho_c_c}


def fair(**given: Any) -> sl.Loss:
    return sl.Loss("fair_loss", rho, thresholds=SPECS, **given)


# With no derivative, with each of the first ones, and with all that are possible beside them.
VARIANTS = {
    "rho": fair(),
    "psi": fair(psi=psi),
    "psi twice": fair(psi=psi, psi_prime=psi_prime),
    "by c": fair(partials={"c": rho_c}),
    "by c twice": fair(partials={"c": rho_c, ("c", "c"): rho_c_c}),
    "first": fair(psi=psi, partials={"c": rho_c}),
    "mixed": fair(psi=psi, partials={"c": rho_c, ("c", "r"): psi_c}),
    "all": fair(
        psi=psi,
        psi_prime=psi_prime,
        partials={"c": rho_c, ("r", "c"): psi_c, ("c", "c"): rho_c_c},
    ),
}
X = floats(0.3, -0.7, 2.0, -9.0, 0.1, 4.0)
Y = floats(0.0, 0.5, -1.0, 0.25, 3.0, 4.5)
C = floats(0.5, 1.0, 2.0, 1.0, 3.0, 0.25)
ORDERS = [order for n in range(3) for order in itertools.product((0, 1, 2), repeat=n)]


def plain(x: mx.array, y: mx.array, c: mx.array) -> mx.array:
    """What MLX alone makes of rho."""
    return rho(x - y, c)


@pytest.mark.every(5)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_derivative_is_right_whoever_takes_it(name: str, order: tuple[int, ...]) -> None:
    loss = VARIANTS[name]
    f = lambda *row: loss(*row, reduction="none")
    want = nested(plain, order)(X, Y, C)
    for run in (lambda g: g, mx.compile):
        got = run(nested(f, order))(X, Y, C)
        assert mx.allclose(got, want, rtol=1e-4, atol=1e-5), run


@pytest.mark.parametrize("name", VARIANTS)
def test_transforms_of_all_kinds(name: str) -> None:
    loss = VARIANTS[name]
    f = lambda *row: loss(*row, reduction="none")
    rows = [mx.stack([v, 2 * v, v - 0.3]) for v in (X, Y)]
    each = [C, 2 * C, 0.5 * C]

    def both(g: Callable[..., mx.array]) -> Callable[..., Any]:
        return lambda *row: mx.grad(lambda *v: (g(*v) ** 2).sum(), argnums=(0, 1, 2))(*row)

    mapped = mx.vmap(f, (0, 0, None))(*rows, C)
    assert mx.allclose(mapped, plain(*rows, C), rtol=1e-4)
    mapped = mx.vmap(both(f))(*rows, mx.stack(each))
    for k in range(3):
        for got, want in zip(mapped, both(plain)(rows[0][k], rows[1][k], each[k]), strict=True):
            assert mx.allclose(got[k], want, rtol=1e-3, atol=1e-4)
    through, want = (
        mx.grad(lambda x, g=g: mx.vmap(g, (0, 0, None))(x, rows[1], C).sum())(rows[0])
        for g in (f, plain)
    )
    assert mx.allclose(through, want, rtol=1e-3, atol=1e-5)
    ones = [mx.ones(6)] * 3
    for deeper in (lambda g: g, lambda g: mx.grad(lambda *row: g(*row).sum(), argnums=2)):
        moved, want = (mx.jvp(deeper(g), [X, Y, C], ones)[1][0] for g in (f, plain))
        assert mx.allclose(moved, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_masks_axes_and_reductions(name: str) -> None:
    loss = VARIANTS[name]
    rng = np.random.default_rng(0)
    x, y = (mx.array(rng.normal(size=(4, 5)), mx.float32) for _ in range(2))
    w, c = mx.array(rng.uniform(0.1, 2, (4, 1)), mx.float32), mx.array([0.5, 1, 2, 3, 4.0])
    mask = mx.array(rng.random((4, 5)) < 0.6)
    broken = mx.where(mask, x, mx.nan)
    each = plain(x, y, c)

    def mean(x: mx.array, c: mx.array, w: mx.array) -> mx.array:
        return loss(x, y, c, weights=w, where=mask, axis=1).sum()

    def want(x: mx.array, c: mx.array, w: mx.array) -> mx.array:
        chosen = mx.where(mask, w, 0)
        return ((chosen * plain(mx.where(mask, x, 0), y, c)).sum(1) / chosen.sum(1)).sum()

    got = mx.value_and_grad(mean, argnums=(0, 1, 2))(broken, c, w)
    right = mx.value_and_grad(want, argnums=(0, 1, 2))(x, c, w)
    for a, b in zip([got[0], *got[1]], [right[0], *right[1]], strict=True):
        assert mx.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert mx.allclose(loss(x, y, c=c, reduction="sum", axis=0), each.sum(0), rtol=1e-5)
    assert mx.allclose(loss(x, y, c, "mean"), each.mean(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float64, mx.int32])
@pytest.mark.parametrize("name", VARIANTS)
def test_dtypes_are_those_of_our_losses(name: str, dtype: mx.Dtype) -> None:
    x, y = (4 * X).astype(dtype), (4 * Y).astype(dtype)
    out = VARIANTS[name](x, y, reduction="none")
    floating = dtype if dtype != mx.int32 else mx.float32
    wide = mx.float64 if dtype == mx.float64 else mx.float32
    assert out.dtype == floating
    exact = rho(x.astype(wide) - y.astype(wide), mx.array(1.5, wide))
    assert same_bits(out, exact.astype(floating))
    if dtype != mx.int32:
        g = mx.grad(VARIANTS[name])(x, y)
        assert g.dtype == dtype
        np.testing.assert_allclose(as_numpy(g), as_numpy(mx.grad(VARIANTS["all"])(x, y)), rtol=1e-2)


@pytest.mark.large_sums
def test_a_mean_of_ten_million_is_accurate_with_rho_alone() -> None:
    half = sl.Loss("half_loss", lambda r: 0.5 * mx.abs(r))
    x = mx.full((10**7,), 1.1)
    assert half(x, mx.zeros_like(x)).item() == pytest.approx(0.5 * float(np.float32(1.1)), rel=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_norm_of_it(name: str) -> None:
    norm, r = sl.RobustNorm(VARIANTS[name], c=2.0), floats(-3, -0.5, 0.25, 8)
    if VARIANTS[name].psi:  # else MLX takes the 0 of an absolute value for a kink
        r = mx.concatenate([r, mx.zeros(1)])
    c = mx.array(2.0)
    for got, f in (("rho", rho), ("psi", psi), ("psi_prime", psi_prime)):
        assert mx.allclose(getattr(norm, got)(r), f(r, c), rtol=1e-4, atol=1e-6), got
    assert mx.allclose(norm.weight(r), 1 / (1 + mx.abs(r) / c), rtol=1e-4)
    assert norm.traits.convex is None


class FairLoss(sl.LossModule):
    """The whole class."""

    loss = VARIANTS["all"]


def test_a_class_of_it() -> None:
    loss = FairLoss(2.0)
    assert repr(loss) == "FairLoss(c=2.0, reduction='mean')"
    assert repr(FairLoss()) == "FairLoss(c=1.5, reduction='mean')"
    assert repr(FairLoss(2.0, "sum")) == repr(FairLoss(reduction="sum", c=2.0))
    assert same_bits(loss(X, Y), VARIANTS["all"](X, Y, 2.0))
    assert same_bits(loss(X, Y, where=X > 0), VARIANTS["all"](X, Y, 2.0, where=X > 0))
    assert sl.RobustNorm(loss).thresholds == {"c": 2.0}
    with pytest.raises(ValueError, match="FairLoss: `c` is -1"):
        loss.c = -1.0
    model = Line(FairLoss(c=mx.array(1.0)))
    x, y = mx.random.normal((50, 2)), mx.random.normal((50, 2))
    losses = train(model, optim.SGD(0.1), 30, x, y)
    assert losses[-1] < losses[0]
    assert model.loss.c.item() == 1.0  # an array is not trained
    assert nn.value_and_grad(model, model)(x, y)[1]["loss"] == {}


def test_a_class_needs_its_loss() -> None:
    class Nameless(sl.LossModule):
        pass

    with pytest.raises(TypeError, match=r"Nameless: the class names no loss; .* `loss = "):
        Nameless()


def test_it_is_checked(entry: Entry) -> None:
    """Our own losses at several thresholds, against differences of their own rho."""
    units = [t.has_residual_units for t in entry.loss.thresholds]
    for size, number in ((0.7, 0.3), (1.9, 0.8)):
        theta = [size if unit else number for unit in units]
        sl.check_loss(entry.function, **dict(zip(entry.threshold_names, theta, strict=True)))
    for loss in (entry.loss, entry.module):
        sl.check_loss(loss)


@pytest.mark.parametrize("name", VARIANTS)
def test_true_derivatives_pass_the_check(name: str) -> None:
    for c in (0.3, 1.5, 20.0):
        sl.check_loss(VARIANTS[name], c=c)
    sl.check_loss(VARIANTS[name], residuals=[-1.0, 2.0])


def wrong(**changes: Any) -> sl.Loss:
    given: dict[str, Any] = {
        "psi": psi,
        "psi_prime": psi_prime,
        "partials": {"c": rho_c, ("r", "c"): psi_c, ("c", "c"): rho_c_c},
    }
    partials = {**given["partials"], **changes.pop("partials", {})}
    return fair(**{**given, "partials": partials, **changes})


WRONG = {
    "psi": wrong(psi=lambda r, c: 1.001 * psi(r, c)),
    "psi_prime": wrong(psi_prime=lambda r, c: c / (c + mx.abs(r))),
    "the partial by c": wrong(partials={"c": lambda r, c: -rho_c(r, c)}),
    "the partial by r and c": wrong(partials={("r", "c"): lambda r, c: mx.abs(psi_c(r, c))}),
    "the partial by c and c": wrong(partials={("c", "c"): lambda r, c: 0 * r}),
    "weight": wrong(weight=lambda r, c: 1 / (1 + r / c)),
    "rho": fair(psi=None) and sl.Loss("wrong", lambda r: -mx.square(r)),
}


# A derivative that is right for positive residuals alone, and one that hides NaN.
def kinked(r: mx.array, c: mx.array) -> mx.array:
    return mx.where(mx.abs(r) <= c, 0.5 * r * r, c * (mx.abs(r) - 0.5 * c))


def of_huber(slope: Callable[..., mx.array], **given: Any) -> sl.Loss:
    return sl.Loss("fair_loss", kinked, thresholds=[sl.Threshold("c", 1.0)], psi=slope, **given)


WRONG_ELSEWHERE = {
    "psi": wrong(psi=lambda r, c: mx.maximum(r, 0) / (1 + mx.abs(r) / c)),
    "psi_prime": wrong(psi_prime=lambda r, c: mx.where(r == r, psi_prime(r, c), 0)),
    "psi of fair_loss is 1 at r = 0.003": of_huber(lambda r, c: c * mx.sign(r) + 0 * r),
    "psi of fair_loss is 1 at r = 0.4": of_huber(
        lambda r, c: mx.where(mx.abs(r) <= c, r, mx.sign(r) + 0 * r)
    ),
    "psi of fair_loss is 0 at r = nan": of_huber(
        lambda r, c: mx.where(mx.abs(r) <= c, r, c * mx.sign(r))
    ),
    "weight at 0": of_huber(
        lambda r, c: mx.clip(r, -c, c), weight=lambda r, c: mx.minimum(1, c / mx.abs(r)) * (r != 0)
    ),
    "rho of fair_loss is": sl.Loss("fair_loss", lambda r: mx.square(r).mean()),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_is_caught_and_named(name: str) -> None:
    with pytest.raises(AssertionError, match=f"^check_loss: {name} of "):
        sl.check_loss(WRONG[name])


@pytest.mark.parametrize("name", WRONG_ELSEWHERE)
def test_a_derivative_wrong_in_places_is_caught(name: str) -> None:
    with pytest.raises(AssertionError, match=f"^check_loss: {name}"):
        sl.check_loss(WRONG_ELSEWHERE[name])


BAD = {
    "rho no function": (lambda: sl.Loss("f", 1.0), TypeError, "`rho` of f is of type float"),
    "psi no function": (lambda: sl.Loss("f", rho, psi=2), TypeError, "`psi` of f is of type int"),
    "a taken name": (
        lambda: sl.Loss("f", rho, thresholds=[sl.Threshold("weights")]),
        ValueError,
        "called `weights`, which is taken",
    ),
    "a name twice": (
        lambda: sl.Loss("f", rho, thresholds=[sl.Threshold("c"), sl.Threshold("c")]),
        ValueError,
        "called `c`, which is taken",
    ),
    "unknown partial": (lambda: fair(partials={"d": rho_c}), ValueError, "the key 'd'; expected"),
    "third order": (lambda: fair(partials={("r", "r", "c"): psi}), ValueError, "one or two of"),
    "second alone": (lambda: fair(psi_prime=psi), ValueError, "without the first"),
    "bad reduction": (lambda: fair(reduction="avg"), ValueError, "`reduction` is 'avg'"),
    "bad default": (lambda: sl.Threshold("c", default=-1.0), ValueError, "`c` is -1.0"),
    "bad name": (lambda: sl.Threshold("a b"), ValueError, "`name` is 'a b'"),
    "empty interval": (lambda: sl.Threshold("c", low=2, high=1), ValueError, "low <= high"),
    "too many": (lambda: fair()(X, Y, 1.0, "sum", 3), TypeError, "3 arguments were given by"),
    "twice": (lambda: fair()(X, Y, 1.0, c=2.0), TypeError, "`c` was given twice"),
    "reduction twice": (
        lambda: fair()(X, Y, 1.0, "sum", reduction="sum"),
        TypeError,
        "given twice",
    ),
    "unknown": (lambda: fair()(X, Y, foo=1), TypeError, "`foo` is no argument; expected .* axis"),
    "negative": (lambda: fair()(X, Y, -1.0), ValueError, "fair_loss: `c` is -1.0"),
    "shape": (lambda: fair()(X, Y[:2]), ValueError, "fair_loss: `predictions` has shape"),
    "missing": (
        lambda: sl.Loss("f", rho, thresholds=[sl.Threshold("c")])(X, Y),
        TypeError,
        "f: `c` is missing and has no default",
    ),
    "check of no loss": (lambda: sl.check_loss(abs), TypeError, "`loss` is 'abs'"),
    "thresholds no list": (
        lambda: sl.Loss("f", rho, thresholds=SPECS[0]),
        TypeError,
        r"`thresholds` .* is no list",
    ),
    "thresholds by name": (
        lambda: sl.Loss("f", rho, thresholds=["c"]),
        TypeError,
        "holds 'c', of type str; expected a list of Threshold",
    ),
    "data names": (lambda: fair(data_names="ab"), ValueError, "`data_names` .* two different"),
    "data named as a threshold": (lambda: fair(data_names=("c", "d")), ValueError, "is taken"),
    "no traits": (lambda: fair(traits={}), TypeError, "`traits` is or holds {}"),
    "a name of modules": (
        lambda: sl.Loss("f", rho, thresholds=[sl.Threshold("state")]),
        ValueError,
        "called `state`, which is taken",
    ),
    "a keyword": (lambda: sl.Threshold("lambda"), ValueError, "`name` is 'lambda'"),
    "default order": (
        lambda: sl.Loss("f", rho, thresholds=[sl.Threshold("a", 1.0), sl.Threshold("b")]),
        ValueError,
        "one without a default follows",
    ),
    "given twice": (
        lambda: fair(psi=psi, partials={"c": rho_c, ("r", "c"): psi_c, ("c", "r"): psi_c}),
        ValueError,
        "by r and c is given twice",
    ),
    "rho returns None": (
        lambda: sl.Loss("f", lambda r: None)(X, Y),
        TypeError,
        "returned NoneType; expected an array",
    ),
    "target of a record": (lambda: fair()(X, target=Y), TypeError, "Pass `targets` instead"),
    "only one array": (lambda: fair()(X), TypeError, "expected two arrays, predictions and"),
    "data twice": (lambda: fair()(X, Y, predictions=X), TypeError, "`predictions` was given twice"),
    "reduction first": (
        lambda: fair()(X, Y, "sum", c=2.0),
        TypeError,
        "Pass the reduction by keyword, as in reduction='sum'",
    ),
    "learned": (lambda: fair()(X, Y, sl.Learned(1.0)), TypeError, r"Pass its value, as in learned"),
    "no reduction": (lambda: fair()(X, Y, reduction=None), ValueError, "`reduction` is None"),
    "check of no loss ": (lambda: sl.check_loss(3), TypeError, "^check_loss: `loss` is 3"),
    "check of no residuals": (lambda: sl.check_loss(fair(), []), ValueError, "finite numbers"),
    "check at 0 alone": (lambda: sl.check_loss(fair(), [0.0]), ValueError, "other than 0"),
    "check at a limit": (
        lambda: sl.check_loss(sl.huber_loss, delta=0.0),
        ValueError,
        "check_loss: `delta` is 0; expected a finite number inside",
    ),
    "check at an array": (lambda: sl.check_loss(fair(), c=C), TypeError, "`c` is an array"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_use_says_how_to_mend_it(name: str) -> None:
    make, error, words = BAD[name]
    with pytest.raises(error, match=words) as raised:
        make()
    assert str(raised.value).endswith(".") or str(raised.value).endswith("=...")


def test_a_formula_may_be_a_number() -> None:
    half = sl.Loss(
        "half_loss", lambda r: 0.5 * mx.square(r), psi=lambda r: r, psi_prime=lambda r: 1
    )
    g = mx.grad(lambda x: mx.grad(lambda x: half(x, Y, "sum"))(x).sum())(X)
    assert g.tolist() == [1] * 6
    assert half.kernel.partial(0).partial(0).formula(X) == 1


def test_data_are_called_as_the_record_says() -> None:
    loss = sl.Loss("f", lambda r: r * r, data_names=("predicted", "true"))
    want = loss(X, Y).item()
    assert loss(predicted=X, true=Y).item() == loss(X, true=Y).item() == want
    assert loss(predictions=X, true=Y).item() == want
    assert fair()(inputs=X, targets=Y).item() == fair()(X, Y).item()
    with pytest.raises(ValueError, match="f: `predicted` has shape"):
        loss(X, Y[:1])


def test_a_record_is_pickled_with_its_formulas_alone() -> None:
    loss = sl.Loss("f", rho, thresholds=SPECS, psi=psi)
    mx.eval(mx.grad(loss)(X, Y))  # which builds functions
    for again in (
        pickle.loads(pickle.dumps(loss)),
        pickle.loads(pickle.dumps(sl.RobustNorm(loss))).loss,
    ):
        assert (again.name, again.rho, again.psi) == (loss.name, rho, psi)
        assert same_bits(again(X, Y, 2.0), loss(X, Y, 2.0))
    assert copy.deepcopy(loss) is loss


def test_a_class_takes_the_function_for_its_record() -> None:
    class Doubled(sl.LossModule):
        loss = sl.huber_loss

    assert Doubled.loss is sl.huber_loss.loss
    assert repr(Doubled(2.0)) == "Doubled(delta=2.0, reduction='mean')"
    with pytest.raises(AttributeError, match="`loss` belongs to the class"):
        Doubled().loss = 3


CORNERS = [
    (sl.huber_loss, {"delta": d}) for d in (0.01, 0.13, 0.43, 3.9, 11.0, 47.0, 1e-12, 1e-30, 1e8)
]
CORNERS += [(sl.smooth_l1_loss, {"beta": b}) for b in (0.003, 0.87, 47.0, 1e-12, 1e-30)]
CORNERS += [(sl.quantile_huber_loss, {"kappa": 1e-12}), (sl.pseudo_huber_loss, {"delta": 1e-30})]
CORNERS += [(sl.general_loss, {"alpha": -5.0, "scale": 1e-6})]


@pytest.mark.parametrize(("loss", "theta"), CORNERS)
def test_the_check_leaves_kinks_and_small_thresholds_alone(loss: Any, theta: dict) -> None:
    """A kink at a residual that is compared, and thresholds far below it."""
    sl.check_loss(loss, **theta)


ROUGH = {
    "log-cosh": (lambda r: mx.logaddexp(r, -r) - np.log(2), mx.tanh),
    "logistic": (
        lambda r: mx.logaddexp(0 * r, r) - 0.5 * r - np.log(2),
        lambda r: mx.sigmoid(r) - 0.5,
    ),
    "error function": (
        lambda r: r * mx.erf(r),
        lambda r: mx.erf(r) + 2 / np.sqrt(np.pi) * r * mx.exp(-r * r),
    ),
}


@pytest.mark.float64
def test_documented_limit_of_float64_functions_still_stands() -> None:
    x = np.linspace(-3, 3, 101)
    for f, exact in ((mx.exp, np.exp), (mx.sin, np.sin)):
        off = abs(as_numpy(f(mx.array(x, mx.float64))) - exact(x)).max()
        assert 1e-10 < off < 1e-5
    assert abs(as_numpy(mx.expm1(mx.array(x, mx.float64))) - np.expm1(x)).max() < 1e-14


@pytest.mark.parametrize("name", ROUGH)
def test_the_check_bears_with_functions_that_float64_does_not_sharpen(name: str) -> None:
    made, slope = ROUGH[name]
    sl.check_loss(sl.Loss("rough_loss", made, psi=slope))
    with pytest.raises(AssertionError, match="psi of rough_loss"):
        sl.check_loss(sl.Loss("rough_loss", made, psi=lambda r: 1.001 * slope(r)))


def test_invalid_elements_of_a_threshold_are_nan_there_only() -> None:
    for loss in VARIANTS.values():
        out = loss(X, Y, floats(1, -1, 0, np.nan, 2, 3), "none")
        assert np.isnan(as_numpy(out)).tolist() == [False, True, True, True, False, False]


def test_a_record_that_is_dropped_is_freed() -> None:
    """With the functions that were built for it."""

    def dropped() -> weakref.ref[object]:
        loss = sl.Loss("short_loss", mx.square, psi=lambda r: 2 * r)
        mx.eval(mx.grad(loss)(X, Y), mx.grad(lambda x: loss(x, Y, where=x > 0))(X))
        return weakref.ref(loss.kernel)

    gone = dropped()
    gc.collect()
    assert gone() is None
