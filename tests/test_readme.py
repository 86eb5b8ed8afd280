"""The README: its example runs, its links lead somewhere, its identities hold."""

import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from cases import broken_links
from oracle import as_numpy

import smoothloss as sl

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def run(part: str) -> dict[str, object]:
    """Run the one example that holds ``part``."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (code,) = (block for block in blocks if part in block)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_example_trains() -> None:
    names = run("optimizer = optim.Adam(learning_rate=0.1)\noptimizer.init(params)")
    np.testing.assert_allclose(names["params"]["w"].tolist(), [1, -2, 0.5], atol=1e-2)


def test_the_example_of_reweighting_gives_the_line_it_says() -> None:
    fit = run("sl.irls(design")["fit"]
    np.testing.assert_allclose(fit.coefficients, [-102.5, 2.04], rtol=1e-3)


@pytest.mark.full
def test_the_example_of_learned_robustness_gives_what_it_says() -> None:
    loss = run("sl.AdaptiveLoss(")["model"].loss
    np.testing.assert_allclose(as_numpy(loss.alpha.value), [2, 0], atol=0.2)
    np.testing.assert_allclose(as_numpy(loss.scale.value), [0.5, 0.3 / 2**0.5], rtol=0.1)


def test_the_example_of_an_own_loss_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("sl.check_loss(hampel)")
    x, y = names["predictions"], names["targets"]
    assert names["HampelLoss"](c=2.0)(x, y).item() == names["hampel"](x, y, c=2.0).item()
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_files_and_losses_that_are_named_exist() -> None:
    assert broken_links(README.parent, TEXT) == [] or not (README.parent / "Makefile").exists()
    for name in set(re.findall(r"`(test_\w+\.py)`", TEXT)):
        assert any(Path(__file__).parent.rglob(name)), name
    for name in set(re.findall(r"(?<![\w.])([a-z0-9_]+_loss)\b(?=[(`])", TEXT)):
        assert callable(getattr(sl, name)), name


def test_identities() -> None:
    x, y = mx.random.normal((100,)) * 3, mx.random.normal((100,))
    r = as_numpy(x) - as_numpy(y)
    huber = sl.huber_loss(x, y, 0.7)
    assert mx.allclose(huber, 0.7 * sl.smooth_l1_loss(x, y, 0.7, "none"))
    infinite = sl.huber_loss(x, y, float("inf"))
    assert mx.array_equal(sl.mse_loss(x, y, "none"), 2 * infinite)
    np.testing.assert_allclose(as_numpy(infinite), r * r / 2, rtol=1e-6)  # optax.l2_loss
    assert mx.array_equal(sl.l1_loss(x, y), sl.smooth_l1_loss(x, y, 0.0))
    rows = x.reshape(20, 5), y.reshape(20, 5)  # keras.losses.huber: the mean of the last axis
    each = sl.huber_loss(*rows, 0.7, "mean", axis=-1)
    assert mx.allclose(each, huber.reshape(20, 5).mean(-1))


def test_identities_of_the_family() -> None:
    x, y = mx.random.normal((100,)) * 3, mx.random.normal((100,))
    tip = sl.charbonnier_loss(x, y, 0.7, "none") - 0.7
    assert mx.allclose(sl.pseudo_huber_loss(x, y, 0.7, "none"), 0.7 * tip, rtol=1e-5, atol=1e-6)
    assert mx.array_equal(sl.charbonnier_loss(x, y, 0.0), sl.l1_loss(x, y))
    assert mx.allclose(sl.quantile_loss(x, y, 0.5), 0.5 * sl.l1_loss(x, y))
    assert mx.array_equal(sl.quantile_huber_loss(x, y, 0.3, 0.0), sl.quantile_loss(x, y, 0.3))
    for delta, limit in ((0.0, 0 * x), (float("inf"), sl.huber_loss(x, y, float("inf")))):
        assert mx.allclose(sl.pseudo_huber_loss(x, y, delta, "none"), limit, rtol=1e-6)


def test_weighted_means() -> None:
    x, y, w = mx.array([1.0, 2.0, 6.0]), mx.zeros(3), mx.array([1.0, 0.0, 3.0])
    assert sl.l1_loss(x, y, weights=w).item() == pytest.approx(19 / 4)
    assert (w * sl.l1_loss(x, y, reduction="none")).mean().item() == pytest.approx(19 / 3)
    nan = mx.array([1.0, float("nan"), 6.0])
    assert mx.isnan(sl.l1_loss(nan, y, weights=w)).item()
    assert sl.l1_loss(nan, y, where=~mx.isnan(nan)).item() == 3.5


def test_sums_beyond_float32_are_inf() -> None:
    x = mx.full((4,), 3e38)
    assert mx.isinf(sl.l1_loss(x, mx.zeros(4))).item()
