"""Losses that are exported, or compiled for any shape: right for data of other lengths."""

import functools
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import BY_NAME, FLOATS, Entry, call, fitted
from mlx.utils import tree_flatten, tree_unflatten

import smoothloss as sl
from smoothloss._engine import exportable

SHAPES = [(2, 3), (5, 4), (9, 2)]
KEYWORDS = [
    {"reduction": "none"},
    {"reduction": "sum"},
    {"reduction": "mean"},
    {"reduction": "mean", "axis": 0},
    {"reduction": "sum", "axis": -1},
    {"reduction": "mean", "axis": (0, 1)},
]
EXTRAS = [(), ("weights",), ("row",), ("column",), ("where",), ("weights", "where"), ("some",)]
KEYWORD = {"row": "weights", "column": "weights", "some": "where"}


def data(shape: tuple[int, ...], dtype: mx.Dtype = mx.float32) -> dict[str, mx.array]:
    """Predictions, targets, and what else a loss takes."""
    n, m = shape
    rng = np.random.default_rng(n * 10 + m)
    made = {
        "x": rng.normal(size=shape),
        "y": rng.normal(size=shape),
        "weights": rng.uniform(0.5, 2, shape),
        "row": rng.uniform(0.5, 2, (1, m)),
        "column": rng.uniform(0.5, 2, (n, 1)),
        "theta": rng.uniform(0.5, 2, m),
    }
    arrays = {name: mx.array(v, mx.float32).astype(dtype) for name, v in made.items()}
    return arrays | {"where": arrays["x"] < 0.5, "some": arrays["column"] > 1}


def step(
    entry: Entry, extras: Sequence[str], keywords: dict[str, object], *, numbers: bool = False
) -> tuple[Callable[..., list[mx.array]], list[str]]:
    """Loss and gradients as a function of arrays, and the names of these in ``data``."""
    names = ["x", "y", *extras]
    if entry.loss.thresholds and not numbers:
        names.append("theta")
    trained = [i for i, name in enumerate(names) if name not in ("y", "where", "some")]

    def loss(*row: mx.array) -> mx.array:
        given = dict(zip(names, row, strict=True))
        extra = {KEYWORD.get(name, name): given[name] for name in extras}
        theta = fitted(entry, given.get("theta", 0.7))
        return call(entry, **extra, **keywords)(given["x"], given["y"], *theta)

    def f(*row: mx.array) -> list[mx.array]:
        total = lambda *row: loss(*row).astype(mx.float32).sum()
        grads = mx.grad(total, argnums=trained)(*row)
        return [loss(*row), *(grads if isinstance(grads, list | tuple) else [grads])]

    return f, names


def exported(f: Callable[..., object], *row: mx.array, path: Path) -> Callable[..., list[mx.array]]:
    with sl.exportable():
        mx.export_function(str(path), f, *row, shapeless=True)
    return mx.import_function(str(path))


def agree(f: Callable[..., object], g: Callable[..., object], row: Sequence[mx.array]) -> bool:
    """Whether two functions give the same arrays, but for the rounding of sums."""
    pairs = zip(tree_flatten(list(f(*row))), tree_flatten(list(g(*row))), strict=True)  # type: ignore[call-overload]
    return all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and bool(mx.allclose(a, b, 4 * max(mx.finfo(b.dtype).eps, 1e-6), 1e-5))
        for (_, a), (_, b) in pairs
    )


def test_any_shape(entry: Entry, tmp_path: Path) -> None:
    """Traced once, then for other lengths of both axes: reductions, weights, masks, thresholds."""
    cases = [(extras, KEYWORDS[2]) for extras in EXTRAS]
    cases += [((), keywords) for keywords in KEYWORDS]
    few = len(entry.threshold_names) == 2  # which take long to build
    for extras, keywords in cases[:1] if few else cases:
        f, names = step(entry, extras, keywords)
        g = exported(f, *(data((2, 3))[name] for name in names), path=tmp_path / "f.mlxfn")
        for shape in SHAPES:
            row = [data(shape)[name] for name in names]
            assert agree(g, f, row), (extras, keywords, shape)


@pytest.mark.parametrize("traced", [(1, 3), (1, 1), (2, 3)])
def test_lengths_of_1(traced: tuple[int, int], tmp_path: Path) -> None:
    """MLX 0.32.4 leaves a sum over them out of a trace, unless it is one over all axes.

    Nor does it sum over some axes if their lengths become 1.
    """
    extras = [names for names in EXTRAS if not {"row", "column", "some"} & {*names}]
    for names_, keywords in itertools.product(extras, KEYWORDS):
        f, names = step(BY_NAME["l1_loss"], names_, keywords)
        g = exported(f, *(data(traced)[name] for name in names), path=tmp_path / "f.mlxfn")
        all_axes = keywords.get("axis", (0, 1)) == (0, 1)
        for shape in [*SHAPES, *[(1, 3), (4, 1), (1, 1)] * all_axes]:
            row = [data(shape)[name] for name in names]
            assert agree(g, f, row), (names_, keywords, shape)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_shape_in_any_dtype(entry: Entry, dtype: mx.Dtype, tmp_path: Path) -> None:
    for extras in ((), ("weights", "where")):
        f, names = step(entry, extras, {"reduction": "mean"})
        g = exported(f, *(data((2, 3), dtype)[n] for n in names), path=tmp_path / "f.mlxfn")
        assert agree(g, f, [data((5, 4), dtype)[name] for name in names])


def test_integers_and_numbers(entry: Entry, tmp_path: Path) -> None:
    f = lambda x, y: [call(entry, reduction="mean")(x, y, *fitted(entry, 0.7))]
    g = exported(f, mx.arange(3), mx.zeros(3, mx.int32), path=tmp_path / "f.mlxfn")
    assert agree(g, f, [mx.arange(9) * 1000, mx.ones(9, mx.int32)])


MUTANTS = {
    "a count of Python": lambda x, axes, *, mean=False: (
        x.sum(axes) / np.prod([x.shape[a] for a in axes]) if mean else x.sum(axes)
    ),
    "staged sums": lambda x, axes, *, mean=False: (
        x.reshape(-1)[: x.size].sum() / (x.size if mean else 1)
    ),
    "a sum for a mean": lambda x, axes, *, mean=False: x.sum(axes),
}


@pytest.mark.parametrize("wrong", MUTANTS)
def test_reductions_that_know_the_shape_of_the_trace_are_caught(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, names = step(BY_NAME["huber_loss"], (), {"reduction": "mean"})
    row = [data((5, 4))[name] for name in names]
    monkeypatch.setattr(exportable, "summed", MUTANTS[wrong])
    g = exported(f, *(data((2, 3))[name] for name in names), path=tmp_path / "f.mlxfn")
    try:
        right = agree(g, f, row)
    except ValueError:  # it can't be run
        right = False
    assert not right


COMPILED = [
    pytest.param(name, extras, marks=[] if name == "l1_loss" and not extras else pytest.mark.full)
    for name in BY_NAME
    for extras in ((), ("where",), ("row",), ("weights", "where"))
]


@pytest.mark.parametrize(("name", "extras"), COMPILED)
def test_shapeless_compilation(name: str, extras: tuple[str, ...]) -> None:
    traces: list[object] = []
    f, names = step(BY_NAME[name], extras, {"reduction": "mean"}, numbers=True)

    @sl.exportable()
    def once(*row: mx.array) -> list[mx.array]:
        traces.append(row)
        return f(*row)

    compiled = mx.compile(once, shapeless=True)
    for shape in SHAPES:
        assert agree(compiled, f, [data(shape)[name] for name in names]), shape
    assert len(traces) == 1


def test_a_trace_keeps_what_it_was_made_of() -> None:
    """It is the trace that counts, not the call."""
    f = lambda x: sl.l1_loss(x, mx.zeros_like(x))
    inside = mx.compile(sl.exportable()(f), shapeless=True)
    assert [inside(mx.ones(n)).item() for n in (3, 5)] == [1, 1]
    outside = mx.compile(f, shapeless=True)
    for n in (3, 5):
        with pytest.raises(ValueError, match="CustomTransforms cannot infer output shapes"):
            mx.eval(outside(mx.ones(n)))


def test_what_is_exported_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unable to serialize primitive CustomTransforms"):
        mx.export_function(str(tmp_path / "f"), lambda x: sl.l1_loss(x, x), mx.ones(3))


def fresh(code: str, *arguments: object) -> list[float]:
    """The numbers that a new process prints, which knows MLX alone."""
    run = subprocess.run(
        [sys.executable, "-c", f"import mlx.core as mx, sys\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [float(word) for word in run.stdout.split()]


LINE = """
step = mx.import_function(sys.argv[1])
state = [v for _, v in sorted(mx.load(sys.argv[2]).items())]
mx.random.seed(0)
for i in range(int(sys.argv[3])):
    x = mx.random.normal((16 + i % 7, 3))
    value, *state = step(*state, x, x @ mx.array([1.0, -2.0, 0.5]) + 0.1)
assert "smoothloss" not in sys.modules
print(value.item(), *[v for w in state[:2] for v in w.reshape(-1).tolist()])
"""


def test_a_whole_training_step(tmp_path: Path) -> None:
    """A model, an adaptive loss that learns, and Adam: parameters in, parameters out."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 1)
            self.loss = sl.AdaptiveLoss(scale=sl.Learned(1.0))

        def __call__(self, x: mx.array, y: mx.array) -> mx.array:
            return self.loss(self.line(x)[:, 0], y)

    model, optimizer = Model(), optim.Adam(learning_rate=0.05)
    optimizer.init(model.trainable_parameters())
    trees = lambda: [model.trainable_parameters(), optimizer.state]
    names, state = zip(*tree_flatten(trees()), strict=True)
    order = [names.index(f"0.line.{which}") for which in ("weight", "bias")]
    order += [i for i in range(len(names)) if i not in order]

    def step(*row: mx.array) -> list[mx.array]:
        *arrays, x, y = row
        now = tree_unflatten([(names[i], v) for i, v in zip(order, arrays, strict=True)])
        model.update(now[0])
        optimizer.state = now[1]
        value, grads = nn.value_and_grad(model, model)(x, y)
        optimizer.update(model, grads)
        flat = [v for _, v in tree_flatten(trees())]
        return [value, *(flat[i] for i in order)]

    start = [state[i] for i in order]
    mx.eval(start)
    x = mx.ones((2, 3))
    exported(step, *start, x, mx.zeros(2), path=tmp_path / "step.mlxfn")
    mx.savez(str(tmp_path / "state.npz"), **{f"{i:03}": v for i, v in enumerate(start)})
    value, *line = fresh(LINE, tmp_path / "step.mlxfn", tmp_path / "state.npz", 300)
    np.testing.assert_allclose(line, [1, -2, 0.5, 0.1], atol=0.05)
    assert value < 0

    now, got = start, [0.0]
    mx.random.seed(0)
    for i in range(5):  # beside the same steps outside of the switch
        x = mx.random.normal((16 + i % 7, 3))
        got, *now = step(*now, x, x @ mx.array([1.0, -2.0, 0.5]) + 0.1)
    few = fresh(LINE, tmp_path / "step.mlxfn", tmp_path / "state.npz", 5)
    flat = [v for w in now[:2] for v in w.reshape(-1).tolist()]
    np.testing.assert_allclose(few, [got.item(), *flat], 1e-4)


CPP = """
#include <iostream>
#include <mlx/mlx.h>
namespace mx = mlx::core;
int main(int, char** argv) {
  auto step = mx::import_function(argv[1]);
  for (int n : {3, 8}) {
    auto x = mx::arange(0.0, n, 1.0, mx::float32);
    auto out = step({x, mx::zeros_like(x)});
    std::cout << out[0].item<float>() << " " << mx::sum(out[1]).item<float>() << "\\n";
  }
}
"""


@functools.cache
def mlx_folder() -> Path:
    return Path(mx.__file__).parent


@pytest.mark.skipif(
    shutil.which("g++") is None or not (mlx_folder() / "include").exists(), reason="needs g++"
)
def test_cpp_calls_what_python_exports(tmp_path: Path) -> None:
    f = mx.value_and_grad(lambda x, y: sl.huber_loss(x, y, 2.0, "mean"))
    exported(f, mx.zeros(2), mx.zeros(2), path=tmp_path / "f.mlxfn")
    (tmp_path / "main.cpp").write_text(CPP)
    library = mlx_folder() / "lib"
    options = ["-std=c++20", f"-I{mlx_folder() / 'include'}", f"-L{library}", "-lmlx"]
    command = ["g++", "main.cpp", "-o", "main", *options, f"-Wl,-rpath,{library}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    run = [str(tmp_path / "main"), str(tmp_path / "f.mlxfn")]
    out = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    numbers = [float(word) for word in out.split()]
    want = []
    for n in (3, 8):
        value, g = f(mx.arange(float(n)), mx.zeros(n))
        want += [value.item(), g.sum().item()]
    np.testing.assert_allclose(numbers, want, 1e-5)
