"""The efficiency of every loss at the normal distribution, and the threshold of an efficiency."""

from __future__ import annotations

import math

import mlx.core as mx
import mpmath
import numpy as np
import pytest
from cases import Entry, thresholds

import smoothloss as sl
from smoothloss import RobustNorm as Norm


def tunable(entry: Entry) -> list[str]:
    return [t.name for t in entry.loss.thresholds if t.has_residual_units]


def huber(k: float) -> float:
    """Huber's efficiency in closed form."""
    inside = math.erf(k / math.sqrt(2))
    density = math.exp(-k * k / 2) / math.sqrt(2 * math.pi)
    return inside**2 / (inside - 2 * k * density + k * k * (1 - inside))


@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 1.345, 3.0, 8.0, math.inf])
def test_that_of_huber_is_the_closed_form(delta: float) -> None:
    want = 1 if delta == math.inf else huber(delta)
    assert Norm(sl.huber_loss, delta=delta).efficiency() == pytest.approx(want, rel=1e-10)
    assert Norm(sl.smooth_l1_loss, beta=delta).efficiency() == pytest.approx(
        math.nan if delta == math.inf else want, rel=1e-10, nan_ok=True
    )


def test_those_of_the_mean_the_median_and_nothing() -> None:
    assert Norm(sl.mse_loss).efficiency() == pytest.approx(1, rel=1e-14)
    assert Norm(sl.l1_loss).efficiency() == pytest.approx(2 / math.pi, rel=1e-12)
    assert Norm(sl.quantile_loss).efficiency() == pytest.approx(2 / math.pi, rel=1e-12)
    assert math.isnan(Norm(sl.huber_loss, delta=0.0).efficiency())
    assert Norm(sl.cauchy_loss, scale=1e100).efficiency() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 2.0, 30.0])
def test_that_of_welsch_is_the_closed_form(scale: float) -> None:
    """E psi' and E psi^2 are Gaussian integrals, of variances 1/(1 + 1/c^2) and 1/(1 + 2/c^2)."""
    first, second = (1 / (1 + k / scale**2) for k in (1, 2))
    want = first**3 / second**1.5
    assert Norm(sl.welsch_loss, scale=scale).efficiency() == pytest.approx(want, rel=1e-10)


@pytest.mark.float64
@pytest.mark.parametrize("size", [0.05, 1.7])
def test_every_efficiency_is_that_of_a_finer_quadrature(entry: Entry, size: float) -> None:
    """And by E psi' in place of E r psi, where psi does not jump."""
    theta = thresholds(entry, size)
    theta |= {name: 0.5 for name in theta if name in ("quantile", "expectile")}
    norm = Norm(entry.function, **theta)
    r = (np.arange(1 << 18) + 0.5) * (12 / (1 << 18))
    mass = np.exp(-r * r / 2)
    at = mx.array(r, mx.float64)
    psi, curvature = np.array(norm.psi(at)), np.array(norm.psi_prime(at))
    mass /= mass.sum()
    assert norm.efficiency() == pytest.approx((mass @ (r * psi)) ** 2 / (mass @ psi**2), rel=1e-5)
    if norm.traits.smoothness > 0:
        assert norm.efficiency() == pytest.approx(
            (mass @ curvature) ** 2 / (mass @ psi**2), rel=1e-3
        )


@pytest.mark.parametrize("efficiency", [0.7, 0.95, 0.999])
def test_tuning_is_the_inverse_of_efficiency(entry: Entry, efficiency: float) -> None:
    names = tunable(entry)
    for name in names if len(names) == 1 else ():
        norm = Norm(entry.function)
        at = lambda value, n=name: Norm(
            entry.function, **{**norm.thresholds, n: value}
        ).efficiency()
        most = max(at(2.0**octave) for octave in range(-6, 7))
        if most < efficiency:
            with pytest.raises(ValueError, match=rf"below {most:.2f}"[:-1]):
                norm.tuning(efficiency)
            return
        value = norm.tuning(efficiency, threshold=name)
        tuned = Norm(entry.function, **{**norm.thresholds, name: value})
        assert tuned.efficiency() == pytest.approx(efficiency, abs=1e-9)
        assert tuned.tuning(efficiency, name) == value  # whatever it is before


# P. W. Holland, R. E. Welsch, 1977, table 1, for 95 %; theirs is a multiple of ours.
PUBLISHED = [
    (sl.huber_loss, 1.345, 1),
    (sl.cauchy_loss, 2.385, math.sqrt(2)),
    (sl.welsch_loss, 2.985, math.sqrt(2)),
    (sl.tukey_loss, 4.685, 1),
    (sl.fair_loss, 1.400, 1),
    (sl.smooth_l1_loss, 1.345, 1),
    (sl.quantile_huber_loss, 1.345, 1),
]


@pytest.mark.parametrize(("loss", "published", "factor"), PUBLISHED)
def test_the_constants_of_the_textbooks(loss: object, published: float, factor: float) -> None:
    assert factor * Norm(loss).tuning() == pytest.approx(published, abs=6e-4)


def test_losses_of_ones_own() -> None:
    """Tukey's biweight and the fair loss, which the textbooks tune to 4.685 and 1.400."""
    c = [sl.Threshold("c", default=1.0, open_low=True)]
    inside = lambda r, c: mx.maximum(1 - mx.square(r / c), 0)
    tukey = sl.Loss("tukey", lambda r, c: 1 - inside(r, c) ** 3, thresholds=c)
    fair = sl.Loss("fair", lambda r, c: abs(r) / c - mx.log1p(abs(r) / c), thresholds=c)
    assert Norm(tukey).tuning() == pytest.approx(4.685, abs=1e-3)
    assert Norm(fair).tuning() == pytest.approx(1.3998, abs=1e-4)
    unknown = sl.Loss("huber", sl.HuberLoss.loss.rho, thresholds=[sl.Threshold("c", default=1.0)])
    for k in np.linspace(0.3, 3, 28):  # whose kinks it is not told
        assert Norm(unknown, c=float(k)).efficiency() == pytest.approx(huber(k), rel=1e-5)


def test_the_constant_of_cauchy_in_high_precision() -> None:
    c = mpmath.mpf(Norm(sl.cauchy_loss).tuning())
    psi = lambda r: r / (1 + r * r / (2 * c * c))
    integral = lambda f: mpmath.quad(lambda r: f(r) * mpmath.npdf(r), [0, 1, 3, 10, 40]) * 2
    found = integral(lambda r: r * psi(r)) ** 2 / integral(lambda r: psi(r) ** 2)
    assert float(found) == pytest.approx(0.95, abs=1e-12)


def several() -> sl.Loss:
    """Huber's loss whose two sides turn linear at a and at b: even where a = b."""
    psi = lambda r, a, b: mx.minimum(a, mx.maximum(-b, r))
    two = [sl.Threshold("a", default=2.0), sl.Threshold("b", default=2.0)]
    return sl.Loss("several", lambda r, a, b: r * psi(r, a, b), thresholds=two, psi=psi)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Norm(sl.quantile_loss, quantile=0.3).efficiency(), ValueError, "is not even"),
        (lambda: Norm(sl.huber_loss, delta=mx.ones(2)).efficiency(), TypeError, "`delta` is an ar"),
        (lambda: Norm(sl.l1_loss).tuning(), ValueError, "l1_loss has no threshold in.*0.63662"),
        (lambda: Norm(sl.general_loss).tuning(threshold="alpha"), ValueError, "expected scale"),
        (lambda: Norm(sl.huber_loss).tuning(0.6), ValueError, r"is 0.6; .* by delta, above 0.6367"),
        (lambda: Norm(sl.huber_loss).tuning(95), ValueError, "is 95; expected a number above 0"),
        (lambda: Norm(sl.huber_loss).tuning("95%"), ValueError, "`efficiency` is '95%'"),
        (lambda: Norm(sl.huber_loss).tuning(math.nan), ValueError, "`efficiency` is nan"),
        (lambda: Norm(several()).tuning(), ValueError, "the thresholds a, b; expected to be told"),
        (lambda: Norm(several()).tuning(threshold="a"), ValueError, "is not even"),
    ],
)
def test_errors(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
