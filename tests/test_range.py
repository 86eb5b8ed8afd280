"""Quotients r/scale that overflow, and a long search for the largest errors."""

import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, Entry, floats, orders, partial
from oracle import as_numpy, exact, in_float64, to_mp, vectorised

CLOSED = [
    "arctan_loss",
    "cauchy_loss",
    "fair_loss",
    "geman_mcclure_loss",
    "tukey_loss",
    "welsch_loss",
]


SHAPED = {"general_loss": (-1.5, 4.0), "student_t_loss": (0.2, 8.0)}


@pytest.mark.parametrize("name", [*CLOSED, *SHAPED])
def test_a_quotient_that_overflows_is_not_infinite(name: str) -> None:
    """Every derivative from the least scale to the largest residual."""
    entry = BY_NAME[name]
    dtype, reach = mx.float32, 38
    rng = np.random.default_rng(0)
    scale = 10 ** rng.uniform(-reach + 0.5, reach, 300)
    r = rng.choice([-1, 1], 300) * 10 ** rng.uniform(np.log10(scale), reach + 0.4)
    shapes = [rng.uniform(*SHAPED[name], 300)] if name in SHAPED else []
    inputs = [mx.array(v, dtype) for v in (r, *shapes, scale)]
    row = [to_mp(as_numpy(v)) for v in inputs]
    of_shape = {1} if shapes else set()
    error = 8 + 32 * len(shapes)
    limits = mx.finfo(dtype)
    least, most, eps = (float(v) for v in (limits.smallest_normal, limits.max, limits.eps))
    for order in [(), *orders(entry, 2)]:
        if of_shape & set(order):
            continue  # held to a bound of its own
        want = exact(entry, order, *row)
        got = as_numpy(partial(entry, order)(inputs[0], mx.zeros(300), *inputs[1:]))
        size = abs(want)
        for i, v in enumerate(row):  # an input an ulp off
            moved = [*row[:i], v * (1 + to_mp(1e-12)), *row[i + 1 :]]
            size = size + abs(exact(entry, order, *moved) - want) * 1e12
        off = abs(to_mp(np.clip(got, -most, most)) - want)
        assert ((off <= error * eps * size + 2 * least) | (abs(want) > most / 4)).all(), order


def test_values_that_were_infinite() -> None:
    r, c = floats(2.3e38), mx.array(0.45)
    cauchy = BY_NAME["cauchy_loss"]
    assert partial(cauchy, ())(r, floats(0), c).item() == pytest.approx(177.6, abs=0.05)
    assert partial(cauchy, (0,))(r, floats(0), c).item() == pytest.approx(2 / 2.3e38, rel=1e-6)


@pytest.mark.parametrize("delta", [1.0, 1e36, 3e37, 3e38])
def test_pseudo_huber_at_infinity(delta: float) -> None:
    """Its gradient is delta however large that is."""
    entry = BY_NAME["pseudo_huber_loss"]
    x, t = floats(np.inf, -np.inf), mx.array(delta)
    assert (partial(entry, (0,))(x, mx.zeros(2), t) == t * floats(1, -1)).all()


# What a long search found, of rho (0) and psi (1).
WORST = [
    ("geman_mcclure_loss", 1, (-0.0028779793, 3e-7)),
    ("geman_mcclure_loss", 0, (-9.1472397, 36.357986)),
    ("log_cosh_loss", 0, (-0.24967238,)),
    ("pseudo_huber_loss", 0, (-5.6645455, 0.021899212)),
    ("pseudo_huber_loss", 1, (259393.516, 1008.20642)),
    ("cauchy_loss", 1, (1.3763660e-5, 0.0037279292)),
    ("welsch_loss", 1, (8.26, 1.0)),
    ("expectile_loss", 0, (0.24054764, 0.46444473)),
    ("tukey_loss", 0, (-1.3253899e-6, 3.8533664e-5)),
    ("tukey_loss", 1, (-1.4045652, 3.5101678)),
    ("fair_loss", 0, (-0.2168829, 0.2139829)),
    ("student_t_loss", 0, (1.1172243, 4.3788242, 0.51770347)),
    ("student_t_loss", 1, (-7.4343504e-8, 15.856178, 2.8248153e-7)),
    ("general_loss", 0, (0.0019179719, -27.66654, 0.04351116)),
]


def errors(entry: Entry, k: int, *row: mx.array) -> np.ndarray:
    """Of rho or psi in ulp beyond the bound, against the library in float64."""
    f = partial(entry, (0,) * k)
    loss = lambda x, *theta: f(x, mx.zeros_like(x), *theta)
    got, want = as_numpy(loss(*row)), in_float64(loss, *row)
    numbers = [as_numpy(v) for v in row]
    with np.errstate(all="ignore"):
        unit = np.exp2(np.frexp(want)[1] - 24.0)
        bound = vectorised(entry, entry.textbook.ulps[k])(*numbers)
        normal = (abs(want) >= 2.0**-126) & (abs(want) < 3.4e38)
        return np.where(normal, abs(got - want) / unit - bound, -1)


@pytest.mark.parametrize(("name", "k", "row"), WORST)
def test_the_worst_points(name: str, k: int, row: tuple[float, ...]) -> None:
    assert errors(BY_NAME[name], k, *(floats(v) for v in row)).max() <= 0


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.full) for s in (1, 2, 3))])
def test_a_long_search_finds_no_larger_error(entry: Entry, k: int, seed: int) -> None:
    if entry.name == "adaptive_loss":
        return  # the general loss, and log Z
    rng = np.random.default_rng(seed)
    n = 2_000_000
    specs = entry.loss.thresholds
    unit = 10 ** (rng.uniform(-7, 7, n) * any(s.has_residual_units for s in specs))
    near = rng.random(n) < 0.7
    ratio = 10 ** np.where(near, rng.uniform(-1.5, 1.5, n), rng.uniform(-9, 9, n))
    theta = [
        unit if s.has_residual_units else rng.uniform(max(s.low, -15.9), min(s.high, 15.9), n)
        for s in specs
    ]
    row = [mx.array(v, mx.float32) for v in (rng.choice([-1, 1], n) * ratio * unit, *theta)]
    assert errors(entry, k, *row).max() <= 0
