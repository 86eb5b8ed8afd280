"""The reading of robust statistics: what RobustNorm takes and gives."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from cases import Entry, call, fitted, partial, same_bits, thresholds
from oracle import as_eager

import smoothloss as sl


@pytest.mark.every(5)
def test_rho_psi_and_its_derivative_are_those_of_the_loss(entry: Entry) -> None:
    r = mx.random.normal((50,)) * 2
    norm = sl.RobustNorm(entry.function, **thresholds(entry, 0.7))
    theta = [mx.full(r.shape, t) for t in fitted(entry, 0.7)]
    zero = mx.zeros_like(r)
    assert same_bits(norm.rho(r), call(entry, reduction="none")(r, zero, *theta))
    assert same_bits(norm.psi(r), partial(entry, (0,))(r, zero, *theta))
    assert same_bits(norm.psi_prime(r), partial(entry, (0, 0))(r, zero, *theta))
    assert same_bits(mx.grad(lambda r: norm.rho(r).sum())(r), norm.psi(r))
    assert same_bits(mx.vmap(mx.grad(norm.psi))(r), norm.psi_prime(r))
    # Where a second derivative changes sign, it cancels.
    for f, most in ((norm.rho, 2), (norm.psi, 2), (norm.weight, 8), (norm.psi_prime, 64)):
        assert f(r.astype(mx.float16)).dtype == mx.float16
        assert as_eager(mx.compile(f)(r), f(r), most)
        assert f(np.array([1, 2])).dtype == mx.float32


def test_defaults_are_those_of_the_loss(entry: Entry) -> None:
    norm = sl.RobustNorm(entry.function)
    assert list(norm.thresholds) == list(entry.threshold_names)
    r = mx.random.normal((9,))
    assert same_bits(norm.rho(r), entry.function(r, mx.zeros_like(r), reduction="none"))
    assert repr(norm).startswith(f"RobustNorm({entry.name}")


def test_thresholds_may_be_arrays_and_learned() -> None:
    r = mx.array([0.5, 3.0, -4.0])

    def total(delta: mx.array) -> mx.array:
        return sl.RobustNorm(sl.huber_loss, delta=delta).rho(r).sum()

    assert mx.grad(total)(mx.array(1.0)).item() == 2 + 3
    assert mx.grad(total)(mx.array([1.0, 2.0, 4.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("loss", "given", "error", "message"),
    [
        (abs, {}, TypeError, "`loss` is 'abs'; expected a loss of smoothloss"),
        ("huber", {}, TypeError, "`loss` is 'huber'"),
        (nn.losses.huber_loss, {}, TypeError, "`loss` is 'mlx.nn.losses.huber_loss'"),
        (
            sl.huber_loss,
            {"beta": 1.0},
            TypeError,
            "RobustNorm: `beta` is no argument; expected delta. Pass `delta` instead",
        ),
        (
            sl.l1_loss,
            {"beta": 1.0},
            TypeError,
            "RobustNorm: `beta` is no argument; expected none. Correct",
        ),
        (sl.huber_loss, {"delta": -1.0}, ValueError, "RobustNorm: `delta` is -1.0"),
        (sl.cauchy_loss, {"scale": 0.0}, ValueError, r"`scale` is 0.0; expected .*\(0, inf\]"),
        (sl.huber_loss, {"delta": "1"}, TypeError, "`delta` is of type str"),
        (sl.huber_loss, {"delta": None}, TypeError, "`delta` is of type NoneType"),
    ],
)
def test_errors(loss: object, given: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sl.RobustNorm(loss, **given)


def test_it_takes_a_function_a_record_a_class_and_an_instance(entry: Entry) -> None:
    r, theta = mx.random.normal((9,)), thresholds(entry, 0.7)
    want = sl.RobustNorm(entry.function, **theta).psi(r)
    held = entry.module(**theta)
    for loss, given in ((entry.loss, theta), (entry.module, theta), (held, {})):
        assert same_bits(sl.RobustNorm(loss, **given).psi(r), want)
    for name, value in theta.items():  # a keyword wins over the instance
        other = thresholds(entry, 0.2)[name]
        assert sl.RobustNorm(held, **{name: other}).thresholds == {**theta, name: other}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            learned = entry.module(**{**theta, name: sl.Learned(value, high=1.0)})
        assert sl.RobustNorm(learned).thresholds[name].item() == pytest.approx(value)


def test_traits_are_those_of_its_thresholds() -> None:
    assert sl.RobustNorm(sl.huber_loss, delta=2.0).traits.bound == 2
    assert sl.RobustNorm(sl.general_loss, alpha=1.5).traits.convex is True
    assert sl.RobustNorm(sl.GeneralLoss(alpha=0.5)).traits.convex is False
    with pytest.raises(TypeError, match="`delta` is an array; expected a number"):
        _ = sl.RobustNorm(sl.huber_loss, delta=mx.ones(2)).traits


INF = float("inf")
LIMITS = [
    (sl.smooth_l1_loss, {"beta": 0.0}, {"smoothness": 0, "kinks": (0.0,), "bound": 1}),
    (sl.smooth_l1_loss, {"beta": INF}, {"smoothness": INF, "kinks": (), "bound": 0}),
    (sl.huber_loss, {"delta": 0.0}, {"smoothness": INF, "kinks": (), "bound": 0}),
    (sl.huber_loss, {"delta": INF}, {"smoothness": INF, "kinks": (), "bound": INF}),
    (sl.charbonnier_loss, {"epsilon": 0.0}, {"smoothness": 0, "kinks": (0.0,), "minimum": 0}),
    (sl.quantile_huber_loss, {"kappa": 0.0}, {"smoothness": 0, "kinks": (0.0,), "degree": 1}),
    (sl.quantile_huber_loss, {"kappa": INF}, {"smoothness": INF, "kinks": ()}),
    (
        sl.quantile_huber_loss,
        {"kappa": INF, "quantile": 0.3},
        {"smoothness": 1, "kinks": (0.0,), "degree": 2},
    ),
    (sl.tukey_loss, {"c": 0.0}, {"smoothness": INF, "kinks": (), "bound": 0, "convex": True}),
    (sl.tukey_loss, {"c": INF}, {"kinks": (), "bound": INF, "convex": True, "redescending": False}),
    (sl.fair_loss, {"c": 0.0}, {"smoothness": INF, "kinks": (), "bound": 0}),
    (sl.fair_loss, {"c": INF}, {"smoothness": INF, "kinks": (), "bound": INF}),
    (sl.expectile_loss, {"expectile": 0.5}, {"smoothness": INF, "kinks": (), "even": True}),
    (sl.epsilon_insensitive_loss, {"epsilon": 0.0}, {"smoothness": 0, "kinks": (0.0,), "bound": 1}),
    (sl.epsilon_insensitive_loss, {"epsilon": INF}, {"smoothness": INF, "kinks": (), "bound": 0}),
    (sl.squared_epsilon_insensitive_loss, {"epsilon": 0.0}, {"smoothness": INF, "bound": INF}),
    (sl.squared_epsilon_insensitive_loss, {"epsilon": INF}, {"kinks": (), "bound": 0}),
    (sl.berhu_loss, {"delta": INF}, {"smoothness": 0, "kinks": (0.0,), "bound": 1}),
    (sl.student_t_loss, {"df": INF}, {"convex": True, "redescending": False, "bound": INF}),
    (sl.quantile_huber_loss, {"quantile": 0.5}, {"smoothness": 1, "kinks": (-1.0, 1.0)}),
]


@pytest.mark.parametrize(("loss", "theta", "traits"), LIMITS)
def test_traits_at_the_limits_of_thresholds(loss: object, theta: dict, traits: dict) -> None:
    found = sl.RobustNorm(loss, **theta).traits
    assert {name: getattr(found, name) for name in traits} == traits


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda norm: pickle.loads(pickle.dumps(norm)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_share_the_record(entry: Entry, how: str) -> None:
    """So a copy builds no functions of its own."""
    norm = sl.RobustNorm(entry.function, **thresholds(entry, 0.7))
    again, r = COPIES[how](norm), mx.random.normal((9,))
    assert again.loss is norm.loss
    assert again.thresholds == norm.thresholds
    for name in ("rho", "psi", "weight", "psi_prime"):
        assert same_bits(getattr(again, name)(r), getattr(norm, name)(r))


def test_residuals_are_arrays_of_real_numbers() -> None:
    norm = sl.RobustNorm(sl.l1_loss)
    with pytest.raises(TypeError, match="RobustNorm: `r` is of type list"):
        norm.psi([1.0])


@pytest.mark.parametrize("alpha", [2.0, 1.0, 0.5])
def test_a_norm_with_a_closed_form_is_pickled(alpha: float) -> None:
    norm = sl.RobustNorm(sl.general_loss, alpha=alpha)
    copy = pickle.loads(pickle.dumps(norm))
    assert copy.rho(mx.array(0.7)).item() == norm.rho(mx.array(0.7)).item()


def test_the_names_of_statsmodels(entry: Entry) -> None:
    r = mx.random.normal((50,)) * 2
    norm = sl.RobustNorm(entry.function, **thresholds(entry, 0.7))
    assert same_bits(norm(r), norm.rho(r))
    assert same_bits(norm.weights(r), norm.weight(r))
    assert same_bits(norm.psi_deriv(r), norm.psi_prime(r))


@pytest.mark.parametrize("name", ["huber_loss", "pseudo_huber_loss", "tukey_loss", "fair_loss"])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_residual_of_0_has_weight_1_even_at_delta_0(name: str, as_array: bool) -> None:
    r = mx.array([0.0, -0.0, 1e-30, 2.0, float("inf"), float("nan")])
    for delta in (0.0, 1e-45, 1e-30, 1.0, 3e38):
        loss = getattr(sl, name).loss
        theta = {loss.threshold_names[0]: mx.array(delta) if as_array else delta}
        norm = sl.RobustNorm(loss, **theta)
        w = norm.weight(r)
        assert w[:2].tolist() == [1, 1]
        assert w[4].item() == 0
        assert mx.isnan(w[5])
        if delta == 0:
            assert w[2:4].tolist() == [0, 0]
        near = mx.array([0.0, -0.0, 2.0])
        by_r = mx.grad(lambda r, norm=norm: norm.weight(r).sum())(near)
        assert mx.isfinite(by_r).all()


def test_copies_and_pickles_of_every_norm(entry: Entry) -> None:
    """After use as before, with any thresholds; a copy holds no more than the norm."""
    r = mx.array([0.3, -2.0])
    for value in (0.5, 1.0, mx.array([0.5, 1.0])):
        norm = sl.RobustNorm(entry.function, **thresholds(entry, value))
        size = len(pickle.dumps(norm))
        norm.rho(r), norm.weight(r), norm.psi_prime(r)
        for same in (copy.copy(norm), copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
            assert same_bits(same.psi(r), norm.psi(r))
            assert same.loss is norm.loss
        assert len(pickle.dumps(norm)) == size


@pytest.mark.parametrize("loss", [sl.huber_loss, sl.pseudo_huber_loss])
def test_reweighting_of_data_that_fit_exactly(loss: Callable[..., Any]) -> None:
    """Their scale comes to 0, and with it delta; the outlier is left with no weight."""
    x = np.arange(1.0, 17.0)
    y = np.where(x < 16, x, 1000.0)
    design = np.stack([np.ones_like(x), x], 1)
    line = np.linalg.lstsq(design, y, rcond=None)[0]
    for _ in range(100):
        r = design @ line - y
        norm = sl.RobustNorm(loss, delta=1.345 * np.median(abs(r)) / 0.6745)
        w = np.array(norm.weight(mx.array(r)))
        assert np.isfinite(w).all()
        line = np.linalg.solve(design.T * w @ design, design.T * w @ y)
    np.testing.assert_allclose(line, [0, 1], atol=1e-6)
