"""The adaptive loss: its normalising constant, and shape and scale learned along with a model."""

import mlx.core as mx
import mlx.optimizers as optim
import mpmath
import numpy as np
import pytest
from cases import BY_NAME, STACK_LOSS, floats, script
from oracle import as_numpy, exact, log_z_series, to_mp

import smoothloss as sl
from smoothloss._demo.data import phones
from smoothloss.losses._partition import KNOTS, log_z, log_z_alpha, log_z_alpha_alpha

ALPHAS = np.concatenate(
    [[0, 2.0**-20, 1e-4, 1e-3, 1e-2], np.linspace(0.05, 1.95, 39), 2 - np.logspace(-6, -1.5, 10)]
)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float64])
def test_log_z_and_its_derivatives_against_quadrature(dtype: mx.Dtype) -> None:
    alpha = mx.array(ALPHAS, dtype)
    sure = np.array([[float(v) for v in log_z_series(a)] for a in as_numpy(alpha)]).T
    for f, want in zip((log_z, log_z_alpha), sure, strict=False):
        assert abs(as_numpy(f(alpha)) - want).max() <= 1e-6
    second = as_numpy(log_z_alpha_alpha(alpha))
    assert (abs(second - sure[2]) <= 2e-5 * np.maximum(1, abs(sure[2]))).all()


@pytest.mark.parametrize("dtype", [mx.float32, pytest.param(mx.float64, marks=pytest.mark.full)])
def test_log_z_between_and_at_the_knots(dtype: mx.Dtype) -> None:
    w = np.concatenate([np.linspace(0, 14, 200), np.linspace(0, 0.1, 60)])
    w = np.concatenate([w, *(k * (1 + np.array([-1e-6, 0, 1e-6])) for k in KNOTS)])
    alpha = mx.array(2 - 2 * np.exp(-w), dtype)
    reference = script("docs/partition.py").reference
    sure = np.array([[float(v) for v in reference(mpmath.mpf(a))] for a in as_numpy(alpha)]).T
    unit = 1, 1, np.maximum(1, abs(sure[2]))
    bounds = (1e-9, 2e-8, 4e-7) if dtype == mx.float64 else (4e-7, 6e-7, 2e-6)
    functions = log_z, log_z_alpha, log_z_alpha_alpha
    for f, want, scale, bound in zip(functions, sure, unit, bounds, strict=True):
        assert (abs(as_numpy(f(alpha)) - want) / scale).max() <= bound
    many = mx.tile(alpha, 1 + 1024 // alpha.size)  # computed otherwise
    for f, bound in zip(functions, bounds, strict=True):
        np.testing.assert_allclose(
            as_numpy(f(many))[: alpha.size], as_numpy(f(alpha)), rtol=bound, atol=bound
        )


@pytest.mark.parametrize("dtype", [mx.float32, mx.float64])
def test_the_derivative_by_alpha_at_the_seams_of_its_forms(dtype: mx.Dtype) -> None:
    """Where L or abs(q L) is 0.25 or 0.5, and where b is 1, seen from both sides."""
    alpha = np.concatenate([np.linspace(-7.9, 7.9, 24), 2 - np.logspace(-6, -1, 8), [0.999, 1.001]])
    alpha = alpha[abs(alpha - 2) > 1e-7]
    b, rows = abs(alpha - 2), []
    for at in (0.25, 0.5):
        for length in (np.full_like(alpha, at), at / np.maximum(abs(alpha / 2), 1e-3)):
            u = np.sqrt(b * np.expm1(np.minimum(length, 20)))
            rows += [np.stack([u * side, alpha]) for side in (0.9, 0.999, 1.001, 1.1)]
    u, alpha = np.concatenate(rows, axis=1)
    x, a = mx.array(u, dtype), mx.array(alpha, dtype)
    got = mx.grad(lambda a: sl.general_loss(x, mx.zeros_like(x), a, 1.0, "sum"))(a)
    want = exact(BY_NAME["general_loss"], (1,), *(to_mp(as_numpy(v)) for v in (x, a, 1 + 0 * a)))
    want = want.astype(float)
    keep = np.isfinite(want) & (abs(want) < 1e30)
    off = abs(as_numpy(got) - want)[keep] / abs(want[keep])
    assert off.max() <= 400 * float(mx.finfo(dtype).eps)


@pytest.mark.float64
def test_log_z_where_it_is_known() -> None:
    known = [
        mpmath.log(mpmath.pi * mpmath.sqrt(2)),
        mpmath.log(2 * mpmath.e * mpmath.besselk(1, 1)),
    ]
    known.append(mpmath.log(2 * mpmath.pi) / 2)
    got = as_numpy(log_z(mx.array([0.0, 1.0, 2.0], mx.float64)))
    np.testing.assert_allclose(got, [float(v) for v in known], atol=3e-8)
    assert got[2] == pytest.approx(float(known[2]), abs=1e-15)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.9, 2.0])
@pytest.mark.float64
def test_it_is_the_logarithm_of_a_density(alpha: float) -> None:
    """Its exponential integrates to 1: the trapezoidal rule in s, of r = sinh(s)."""
    s = np.linspace(-60, 60, 24001)
    r = mx.array(np.sinh(s), mx.float64)
    rho = as_numpy(sl.adaptive_loss(r, mx.zeros_like(r), alpha, 0.3, "none"))
    total = (np.exp(-rho) * np.cosh(s)).sum() * (s[1] - s[0])
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.float64
def test_the_normal_and_the_cauchy_distribution() -> None:
    r = np.array([0.0, 0.4, 3.0])
    x, c = mx.array(r, mx.float64), 0.7
    normal = r**2 / (2 * c * c) + np.log(c * np.sqrt(2 * np.pi))
    width = np.sqrt(2) * c
    cauchy = np.log(np.pi * width * (1 + (r / width) ** 2))
    for alpha, want in ((2.0, normal), (0.0, cauchy)):
        got = as_numpy(sl.adaptive_loss(x, mx.zeros_like(x), alpha, c, "none"))
        np.testing.assert_allclose(got, want, atol=3e-8)


def learn(
    features: np.ndarray, targets: np.ndarray, outputs: int = 1, steps: int = 3000
) -> dict[str, np.ndarray]:
    """A linear model with alpha and scale per output, in one compiled step."""
    x, y = mx.array(features, mx.float32), mx.array(targets, mx.float32)
    p = {
        "w": mx.zeros((x.shape[1], outputs)),
        "b": mx.array(np.median(targets, 0), mx.float32),
        "a": mx.zeros(outputs),
        "s": mx.zeros(outputs),
    }
    optimizer = optim.Adam(learning_rate=optim.cosine_decay(0.05, steps))
    optimizer.init(p)
    state = [p, optimizer.state]

    def shape(p: dict[str, mx.array]) -> mx.array:
        return 2 * mx.sigmoid(p["a"])

    def step() -> mx.array:
        def loss(p: dict[str, mx.array]) -> mx.array:
            return sl.adaptive_loss(x @ p["w"] + p["b"], y, shape(p), mx.exp(p["s"]))

        value, grads = mx.value_and_grad(loss)(p)
        p.update(optimizer.apply_gradients(grads, p))
        return value

    compiled = mx.compile(step, inputs=state, outputs=state)
    for _ in range(steps):
        mx.eval(compiled(), state)
    return {k: as_numpy(v) for k, v in p.items()} | {
        "alpha": as_numpy(shape(p)),
        "scale": as_numpy(mx.exp(p["s"])),
    }


@pytest.mark.full
def test_it_learns_the_noise_of_each_output() -> None:
    """Normal, Cauchy and in between: sampled noise of known alpha and scale."""
    rng = np.random.default_rng(0)
    n = 20_000
    features = rng.normal(size=(n, 2))
    noise = np.stack([0.5 * rng.normal(size=n), 0.2 * np.sqrt(2) * rng.standard_cauchy(n)], 1)
    weights = np.array([[1.0, -2.0], [0.5, 3.0]])
    got = learn(features, features @ weights + noise, outputs=2, steps=1500)
    np.testing.assert_allclose(got["w"], weights, atol=0.02)
    np.testing.assert_allclose(got["alpha"], [2, 0], atol=0.1)
    np.testing.assert_allclose(got["scale"], [0.5, 0.2], rtol=0.05)


@pytest.mark.full
def test_the_phone_calls() -> None:
    """Eight of 24 years are of another kind: the loss turns itself into the Cauchy's."""
    table = phones()
    x, y = (table.x - table.x.mean()) / table.x.std(), (table.y - np.median(table.y)) / 10
    got = learn(x[:, None], y[:, None])
    slope = got["w"].item() * 10 / table.x.std()
    assert got["alpha"].item() < 0.1
    calls = (table.x < 63) | (table.x > 70)  # in the years between, minutes were recorded
    clean = np.polyfit(table.x[calls], table.y[calls], 1)[0]
    assert slope == pytest.approx(1.123, abs=0.005)
    assert slope == pytest.approx(clean, abs=0.05)
    assert np.polyfit(table.x, table.y, 1)[0] == pytest.approx(5.04, abs=0.01)


def test_the_stack_loss() -> None:
    """Days 1, 3, 4 and 21 are the outliers of the textbooks: the robust fit leaves them out."""
    x, y = STACK_LOSS[:, :3], STACK_LOSS[:, 3:]
    centre, spread = x.mean(0), x.std(0)
    got = learn((x - centre) / spread, y)
    fitted = (x - centre) / spread @ got["w"] + got["b"]
    r = abs(y - fitted).ravel()
    assert got["alpha"].item() < 0.5
    assert {1, 3, 4, 21} == set(np.argsort(r)[-4:] + 1)
    kept = np.setdiff1d(np.arange(21), [0, 2, 3, 20])
    design = np.column_stack([np.ones(17), x[kept]])
    without = np.linalg.lstsq(design, y[kept].ravel(), rcond=None)[0]
    np.testing.assert_allclose((got["w"].ravel() / spread)[:2], without[1:3], atol=0.25)


def test_alpha_2_has_a_finite_derivative() -> None:
    """The true one is infinite there; that an epsilon below is returned."""
    alpha = floats(2.0, 2 - 2.0**-23)
    x = mx.array([3.0, 3.0])
    for loss in (sl.general_loss, sl.adaptive_loss):
        f = lambda a, loss=loss: loss(x, mx.zeros(2), a, 1.0, "sum")
        at, below = mx.grad(f)(alpha).tolist()
        assert at == pytest.approx(below, rel=1e-3)
        assert np.isfinite(at)
        assert mx.isfinite(mx.grad(lambda a, f=f: mx.grad(f)(a).sum())(alpha)).all()


def test_general_loss_alone_runs_away() -> None:
    """Why adaptive_loss is there: the smaller alpha, the smaller the general loss."""
    entry = BY_NAME["general_loss"]
    g = mx.grad(lambda a: entry.function(floats(1.0, 5.0), mx.zeros(2), a))(mx.array(1.0))
    assert g.item() > 0
