"""docs/migration.md, run: both sides of a row give the same, or what the row says each gives."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import mlx.core as mx
import mlx.nn
import numpy as np
import optax
import pytest
import torch
from cases import broken_links
from scipy import special
from scipy.optimize import least_squares
from sklearn import metrics
from statsmodels.robust import norms, scale
from statsmodels.robust.robust_linear_model import RLM

import smoothloss as sl

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
    from fvcore.nn import smooth_l1_loss

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
TEXT = PAGE.read_text(encoding="utf-8")
F = torch.nn.functional
EPS = float(np.finfo(np.float32).eps)

_rng = np.random.default_rng(0)
X, Y = _rng.normal(size=(2, 6, 4)).astype(np.float32)
NUMBERS = {"beta": 0.4, "delta": 0.8, "kappa": 0.6, "inf": float("inf")}
ARRAYS: dict[str, np.ndarray] = {
    "x": X,
    "y": Y,
    "r": X - Y,
    "w": _rng.uniform(0.5, 2, (6, 4)).astype(np.float32),
    "mask": _rng.random((6, 4)) < 0.6,
    "sample": _rng.uniform(0.5, 2, 6).astype(np.float32),
    "fg": np.arange(6) % 3 < 2,
    "tau": (np.arange(4, dtype=np.float32) + 0.5) / 4,
}


# What can't be installed here, in our words: mmdetection's reduction, and the losses of agents.
def mmdet(rho: Any, reduction: str = "mean", loss_weight: float = 1.0) -> Callable[..., Any]:
    def loss(
        x: Any, y: Any, weight: Any = 1, avg_factor: Any = None, reduction_override: Any = None
    ) -> Any:
        losses = loss_weight * weight * rho(x, y, reduction="none")
        total, count = losses.sum(), losses.numel() if avg_factor is None else avg_factor + EPS
        how = reduction_override or reduction
        return {"none": losses, "sum": total, "mean": total / count}[how]

    return loss


def pairwise(x: Any, y: Any, tau: Any, kappa: float) -> Any:
    """The loss of each quantile (the axis -2) at each target (the axis -1)."""
    error = y[..., None, :] - x[..., :, None]
    rho = optax.huber_loss(error, delta=kappa) if kappa > 0 else abs(error)
    return abs(tau[:, None] - (error < 0)) * rho


def sb3(x: Any, y: Any, sum_over_quantiles: bool = True) -> Any:
    losses = pairwise(x, y, (jnp.arange(4) + 0.5) / 4, 1.0)
    return losses.sum(-2).mean() if sum_over_quantiles else losses.mean()


AGENTS = {
    "quantile_regression_loss": lambda x, tau, y, k=0.0: pairwise(x, y, tau, k).mean(-1).sum(),
    "quantile_huber_loss": sb3,
    "iqn": lambda x, y, tau, kappa: (pairwise(x, y, tau, kappa) / kappa).sum(-2).mean(),
}


class Library(NamedTuple):
    """How it makes an array and differentiates (None: not at all), and what its rows name."""

    array: Callable[..., Any]
    grad: Callable[..., Any] | None
    names: dict[str, Any]

    def value(self, code: str, x: Any = None) -> Any:
        arrays = {name: self.array(a) for name, a in ARRAYS.items()}
        return eval(code, NUMBERS | arrays | self.names | ({} if x is None else {"x": x}))

    def value_and_gradient(self, code: str) -> list[np.ndarray]:
        value = np.array(self.value(code))
        if self.grad is None:
            return [value]
        cotangent = self.array(np.cos(np.arange(value.size, dtype=np.float32)).reshape(value.shape))
        slope = self.grad(lambda x: (cotangent * self.value(code, x)).sum())(self.array(X))
        return [value, np.array(slope)]


def in_torch(**names: Any) -> Library:
    grad = lambda f: lambda x: torch.autograd.grad(f(x.requires_grad_()), x)[0]
    return Library(torch.tensor, grad, {"torch": torch, "F": F, **names})


def in_jax(**names: Any) -> Library:
    return Library(jnp.array, jax.grad, {"jnp": jnp, **names})


HERE = Library(mx.array, mx.grad, {"mx": mx, "nn": mlx.nn, "sl": sl})
MMDET = {
    "L1Loss": partial(mmdet, F.l1_loss),
    "SmoothL1Loss": lambda beta, *settings: mmdet(partial(F.smooth_l1_loss, beta=beta), *settings),
}
STATISTICS = {
    "np": np,
    "special": special,
    "metrics": metrics,
    "norms": norms,
    "scale": scale,
    "RLM": RLM,
    "exact": {"maxiter": 1000, "tol": 1e-15},
    "least_squares": least_squares,
    "exactly": {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-14},
}
LIBRARIES = {
    "PyTorch": in_torch(nn=torch.nn),
    "MLX": HERE,
    "Keras": in_jax(keras=keras),
    "optax": in_jax(optax=optax),
    "fvcore and detectron2": in_torch(smooth_l1_loss=smooth_l1_loss),
    "mmdetection": in_torch(**MMDET),
    "Quantile agents": in_jax(**AGENTS),
    "SciPy, scikit-learn and statsmodels": Library(np.float64, None, STATISTICS),
    "Gradient boosting": Library(np.float64, None, {"np": np}),
    "Among themselves": HERE,
}


def rows(section: str) -> list[list[str]]:
    """The rows of the table of a section, after its title."""
    title, *lines = section.splitlines()
    table = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert set(table[1]) == {"---"}
    return [[title, *(cell.strip(" `") for cell in row)] for row in table[2:]]


SCRIPT, *SAME, DIFFERENT = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize(
    ("library", "there", "here"), [row[:3] for section in SAME for row in rows(section)]
)
def test_equal(library: str, there: str, here: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LIBRARIES[library].value_and_gradient(there)
    old = "size_average" in here or "reduce=" in here
    with pytest.warns(DeprecationWarning, match="use reduction=") if old else nullcontext():
        home = HERE if LIBRARIES[library].grad else HERE._replace(grad=None)
        ours = home.value_and_gradient(here)
    # Keras takes log-cosh as r + softplus(-2r) - log 2, whose derivative cancels.
    ulps = 8 if "keras" in there and "cosh" in there.lower() else 4
    for got, want in zip(ours, theirs, strict=False):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=ulps * EPS * abs(want).max(initial=0))


@pytest.mark.parametrize(
    ("library", "there", "gives", "here", "ours"), [r[1:6] for r in rows(DIFFERENT)]
)
def test_different(library: str, there: str, gives: str, here: str, ours: str) -> None:
    for where, code, text in ((LIBRARIES[library], there, gives), (HERE, here, ours)):
        result = eval(text, {"nan": float("nan"), "mx": mx})
        raises = pytest.raises(result) if isinstance(result, type) else nullcontext()
        with warnings.catch_warnings(), raises:
            warnings.simplefilter("ignore")
            got = where.value(code)
            assert got == result or (got != got and result != result)  # or both NaN


def test_the_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the first leaves its weights to the second
    before, after = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    theirs, ours = {}, {}
    exec(before, theirs)
    exec(after, ours)
    assert theirs["losses"][-1] < theirs["losses"][0] / 10
    # The steps of MLX's Adam are 1e-5 off: it takes 1 - 0.999^t in float32.
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-4)
    for _, old, new, _ in rows(SCRIPT):
        assert old in before and new in after
        assert not (old and old in after) and not (new and new in before)


@pytest.mark.parametrize("module", ["L1Loss", "MSELoss", "SmoothL1Loss"])
def test_old_arguments_mean_what_they_mean_in_pytorch(module: str) -> None:
    given = (None, True, False)
    for size_average, reduce, how in itertools.product(given, given, ("none", "mean", "sum")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, ours = (
                getattr(home, module)(size_average=size_average, reduce=reduce, reduction=how)
                for home in (torch.nn, sl)
            )
        assert ours.reduction == theirs.reduction


def test_the_page_is_whole() -> None:
    titles = [section.partition("\n")[0] for section in [*SAME, DIFFERENT]]
    assert titles[:-1] == [*LIBRARIES]
    anchors = [re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles]
    assert set(re.findall(r"\]\(#(.*?)\)", TEXT)) == set(anchors)
    assert broken_links(PAGE.parent, TEXT) == []


def test_the_numbers_tell_losses_apart() -> None:
    for threshold in (0.4, 0.6, 0.8, 1.0):
        assert 5 < (abs(X - Y) < threshold).sum() < 19  # of 24
