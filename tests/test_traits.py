"""The traits of each loss: convex, even, redescending, its kinks, bounds and scaling."""

import itertools
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, WITH_THRESHOLD, Entry, call, catalog, fitted, numbers
from oracle import as_numpy, vectorised

import smoothloss as sl

INF = float("inf")
# Fine up to 10, wide beyond; no residual is a kink, and most have their opposite.
R = np.concatenate([np.logspace(-3, 1, 3000, endpoint=False), np.logspace(1, 12, 200)])
R = np.concatenate([-R[::-1], R])


class Setting(NamedTuple):
    """A loss and its thresholds."""

    entry: Entry
    theta: dict[str, float]

    @property
    def name(self) -> str:
        return "-".join([self.entry.name, *(f"{k}={v:g}" for k, v in self.theta.items())])


def settings(entry: Entry) -> list[Setting]:
    """Thresholds of every kind: two of the residual's units, with every plain number."""
    each = ([0.7, 1.9] if t.has_residual_units else numbers(t) for t in entry.loss.thresholds)
    rows = itertools.product(*each)
    return [Setting(entry, dict(zip(entry.threshold_names, row, strict=True))) for row in rows]


@pytest.fixture(params=[s for e in catalog() for s in settings(e)], ids=lambda s: s.name)
def at(request: pytest.FixtureRequest) -> Setting:
    return request.param


def trait(entry: Entry, name: str, theta: dict[str, float]) -> Any:
    return entry.trait(name, *theta.values())


def norm(entry: Entry, theta: dict[str, float]) -> sl.RobustNorm:
    return sl.RobustNorm(entry.function, **theta)


pytestmark = pytest.mark.float64  # facts of the formulas, whatever the device


def f64(r: object) -> mx.array:
    return mx.array(np.array(r, float), mx.float64)


def test_even_or_not(at: Setting) -> None:
    entry, theta = at
    f = norm(entry, theta)
    for g, sign in ((f.rho, 1), (f.psi, -1), (f.weight, 1), (f.psi_prime, 1)):
        same = np.array_equal(as_numpy(g(f64(R))), sign * as_numpy(g(f64(-R))))
        assert same or not trait(entry, "even", theta)
    uneven = not np.allclose(as_numpy(f.rho(f64(R))), as_numpy(f.rho(f64(-R))))
    assert uneven != trait(entry, "even", theta)


def test_the_least_value_is_at_0(at: Setting) -> None:
    entry, theta = at
    rho = norm(entry, theta).rho
    least = rho(f64([0.0])).item()
    assert least == pytest.approx(trait(entry, "minimum", theta), abs=1e-7)
    assert (as_numpy(rho(f64(R))) >= least).all()


def test_convex_or_not(at: Setting) -> None:
    entry, theta = at
    psi = as_numpy(norm(entry, theta).psi(f64(R)))
    psi = psi[np.isfinite(psi)]
    rising = (np.diff(psi) >= -1e-12 * abs(psi[1:])).all()
    assert rising == bool(trait(entry, "convex", theta))


def test_the_bound_of_the_gradient_is_the_least_one(at: Setting) -> None:
    entry, theta = at
    bound = trait(entry, "bound", theta)
    largest = np.nanmax(abs(as_numpy(norm(entry, theta).psi(f64(R)))))
    if np.isfinite(bound):
        assert largest == pytest.approx(bound, rel=1e-5)
    else:  # slowly, where the shape is barely above 1
        assert largest > 50


def test_redescending_or_not(at: Setting) -> None:
    entry, theta = at
    psi = abs(as_numpy(norm(entry, theta).psi(f64([0.3, 1e12, INF]))))
    falls = psi[1] < 0.1 * psi[0] and psi[2] == 0
    assert falls == bool(trait(entry, "redescending", theta))


def test_kinks_are_where_they_are_claimed_and_nowhere_else(at: Setting) -> None:
    """At each kink a derivative jumps, at one of them the first that does; between, none does."""
    entry, theta = at
    h = 1e-7
    if set(theta.values()) & {0.0, 1.0} and entry.loss.traits.kinks:
        return  # a quantile of 0 or 1 may have one side only
    f = norm(entry, theta)
    kinks = trait(entry, "kinks", theta)
    order, first = int(min(2, trait(entry, "smoothness", theta))), []
    for kink in kinks:
        if kink == 0 and len(kinks) > 1 and order > 0 and trait(entry, "even", theta):
            continue  # of a tilt that is none
        lower, upper = f64([kink - h]), f64([kink + h])
        jumps = [abs(g(upper) - g(lower)).item() for g in (f.rho, f.psi, f.psi_prime)]
        bends = [
            (f.psi_prime(v + 1e-4) - f.psi_prime(v)).item() / 1e-4 for v in (lower - 1e-4, upper)
        ]
        jumps.append(abs(bends[1] - bends[0]))
        assert jumps[order] <= 1e-5
        assert max(jumps[order + 1 :]) > 1e-4, kink
        first.append(jumps[order + 1])
    assert max(first, default=1) > 1e-4
    r = 6 * np.sinh(np.linspace(-5, 5, 1_000_001)) / np.sinh(5)  # finest near 0
    away = np.min([abs(r - k) for k in [*kinks, INF]], axis=0) > 1e-3
    for g in (f.psi, f.psi_prime):
        v = as_numpy(g(f64(r)))
        step = abs(np.diff(v))[away[1:] & away[:-1]]
        assert np.nanmax(step) <= 1e-3 * (1 + np.nanmax(abs(v))), g


@pytest.mark.parametrize("name", ["bound", "convex", "redescending"])
def test_the_documentation_prints_the_traits(at: Setting, name: str) -> None:
    """The words of the textbook have the values of the record."""
    entry, theta = at
    text = getattr(entry.textbook, "redescends" if name == "redescending" else name)
    with np.errstate(all="ignore"):
        said = vectorised(entry, text)(0.0, *map(np.asarray, theta.values()))
    assert said == pytest.approx(trait(entry, name, theta), rel=1e-12)


def test_homogeneity(at: Setting) -> None:
    entry, theta = at
    degree = trait(entry, "degree", theta)
    if degree is None:
        return
    for k in (0.25, 8.0):  # powers of 2, which scale exactly
        scaled = {
            t.name: theta[t.name] * (k if t.has_residual_units else 1)
            for t in entry.loss.thresholds
        }
        r = f64(R[abs(R) < 1e6])
        got, want = norm(entry, scaled).rho(k * r), k**degree * norm(entry, theta).rho(r)
        np.testing.assert_allclose(as_numpy(got), as_numpy(want), rtol=1e-13)


def test_the_weight_times_the_residual_is_psi(at: Setting) -> None:
    entry, theta = at
    f = norm(entry, theta)
    for r in (f64(R), mx.array(R[abs(R) < 1e5].astype(np.float32))):
        psi, product = as_numpy(f.psi(r)), as_numpy(f.weight(r)) * as_numpy(r)
        eps = float(mx.finfo(r.dtype).eps)
        fine = abs(psi) < 1e30  # and so no inf - inf
        r, psi, product = as_numpy(r)[fine], psi[fine], product[fine]
        values = map(np.asarray, theta.values())
        bound = vectorised(entry, entry.textbook.ulps[1])(r, *values)
        room = eps * (8 + bound) * abs(psi) + 1e-36
        assert (abs(product - psi) <= room).all()
    assert np.isnan(f.weight(f64([np.nan])).item())


def test_the_weight_far_out_and_of_tiny_thresholds(at: Setting) -> None:
    """Where squares of r over the threshold, or of the threshold, leave float32."""
    entry, numbers_ = at
    for unit, r in ((1.0, 1e30), (1e-18, 1.0), (1e-15, 1e10), (1e15, 1e-10), (1e-18, 1e-18)):
        theta = {
            t.name: unit if t.has_residual_units else numbers_[t.name]
            for t in entry.loss.thresholds
        }
        f, x = norm(entry, theta), mx.array([r])
        psi, weight = f.psi(x).item(), f.weight(x).item()
        if 1e-30 < abs(psi) < 1e30 and 1e-36 < abs(psi / r) < 1e37:
            assert weight == pytest.approx(psi / r, rel=2e-5), r
        elif psi == 0:
            assert weight * r < 1e-36, r


def test_the_weight_at_0_is_its_limit(at: Setting) -> None:
    entry, theta = at
    f = norm(entry, theta)
    at_0, near, nearer = as_numpy(f.weight(f64([0.0, -1e-9, -1e-12]))).tolist()
    if nearer > 100 * near:  # grows without bounds
        assert at_0 == INF
    elif nearer > 0:
        assert at_0 == pytest.approx(nearer, rel=1e-6)


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_an_array_of_thresholds_is_each_of_them(entry: Entry) -> None:
    """In value and gradient, to the bit; a limit among them changes no other."""
    units = [0.0, 0.3, 1.0, INF]
    each = [
        [v for v in units if v or not t.open_low] if t.has_residual_units else numbers(t)
        for t in entry.loss.thresholds
    ]
    table = np.array(list(itertools.product(*each))).T
    columns = [mx.array(column, mx.float32) for column in table]
    f = call(entry, reduction="none")
    g = mx.grad(lambda x, *theta: f(x, mx.zeros_like(x), *theta).sum())
    for r in (0.0, -0.2, 3.0):
        x = mx.full(columns[0].shape, r)
        together = f(x, mx.zeros_like(x), *columns), g(x, *columns)
        for i, row in enumerate(table.T):
            x, zero = mx.array(r), mx.array(0.0)
            kinds = {float: list(map(float, row)), mx.array: list(map(mx.array, row.tolist()))}
            closed = kinds[float][0] in entry.loss.closed_forms
            for kind, theta in kinds.items():
                alone = f(x, zero, *theta), g(x, *theta)
                for a, b in zip(together, alone, strict=True):
                    same = mx.array_equal(a[i], b, equal_nan=True).item()
                    near = mx.allclose(a[i], b, rtol=3e-6, atol=3e-7, equal_nan=True).item()
                    assert near if closed and kind is float else same, (r, row, kind)


MEMBERS = [("cauchy_loss", 0.0, 1), ("geman_mcclure_loss", -2.0, 1), ("welsch_loss", -INF, 1)]
MEMBERS += [("pseudo_huber_loss", 1.0, 0.7**2)]


CLOSED = [
    pytest.param(BY_NAME[name], alpha, id=f"{name}-{alpha:g}")
    for name in ("general_loss", "adaptive_loss")
    for alpha in BY_NAME[name].loss.closed_forms
]


@pytest.mark.parametrize(("entry", "alpha"), CLOSED)
def test_closed_forms_are_the_loss_at_that_number(entry: Entry, alpha: float) -> None:
    """In float64: every derivative, weights, and the limits; derived ones pass the checker."""
    member, values = entry.loss.member([alpha, 0.7])
    assert member is not entry.loss
    assert values == [0.7]
    sl.check_loss(member, scale=0.7)
    scale, at = mx.array(0.7, mx.float64), mx.array(alpha, mx.float64)
    r = f64(np.concatenate([R[abs(R) < 1e6], [0.0, INF, -INF]]))
    whole, part = entry.loss.derivatives, member.derivatives
    pairs = [(entry.loss.rho, member.rho), (entry.loss.weight, member.weight)]
    pairs += [(whole[by], formula) for by, formula in part.items()]
    for generic, closed in pairs:
        a, b = (
            as_numpy(mx.broadcast_to(v, r.shape)) for v in (generic(r, at, scale), closed(r, scale))
        )
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize(("name", "alpha", "factor"), MEMBERS)
def test_named_members_of_the_general_loss(name: str, alpha: float, factor: float) -> None:
    member = BY_NAME[name]
    one = norm(member, dict.fromkeys(member.threshold_names, 0.7))
    other = sl.RobustNorm(sl.general_loss, alpha=alpha, scale=0.7)
    r = f64(R[abs(R) < 8])
    for function in ("rho", "psi", "weight", "psi_prime"):
        a, b = (as_numpy(getattr(f, function)(r)) for f in (one, other))
        np.testing.assert_allclose(a, factor * b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("alpha", [0.0, 2.0, -2.0, 1.0, 1.75, 16.0, -16.0])
def test_general_loss_is_continuous_in_alpha(alpha: float) -> None:
    r = mx.array(np.concatenate([[0], np.logspace(-30, 4, 300)]), mx.float32)
    at = sl.RobustNorm(sl.general_loss, alpha=alpha).rho(r)
    for nearby in (alpha - 1e-6, alpha + 1e-6):
        moved = sl.RobustNorm(sl.general_loss, alpha=nearby).rho(r)
        same = mx.isinf(at) & mx.isinf(moved)
        assert (same | (mx.abs(moved - at) <= 1e-4 * mx.maximum(1, at))).all()


@pytest.mark.parametrize(("limit", "far"), [(-INF, -1e7), (INF, 1e7)])
def test_general_loss_is_continuous_at_infinite_alpha(limit: float, far: float) -> None:
    r = mx.array(np.linspace(-4, 4, 101), mx.float32)
    at, near = (sl.RobustNorm(sl.general_loss, alpha=a).rho(r) for a in (limit, far))
    assert mx.allclose(at, near, rtol=1e-4)


def test_half_the_square_near_0(at: Setting) -> None:
    """Of the curvature there, where there is one: nothing cancels."""
    entry, theta = at
    f = norm(entry, theta)
    if trait(entry, "smoothness", theta) < 1 or entry.loss.traits.minimum != 0:
        return
    r = mx.array([-1e-4 * min([1, *fitted(entry, 0.7)])])
    if f.psi_prime(r).item() == 0:  # the free side of a quantile
        return
    ratio = (f.rho(r) / (0.5 * r * r * f.psi_prime(r))).item()
    bent = (f.psi_prime(r) / f.psi_prime(0.5 * r)).item() - 1
    assert ratio == pytest.approx(1, abs=3e-7 + 2 * abs(bent))
