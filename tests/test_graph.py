"""What the compiled graph holds: kernels, full-size arrays, compilations. No clock."""

import collections
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from cases import BY_NAME, FLOATS, WITH_THRESHOLD, Entry, call, script
from mlx.utils import tree_flatten

from smoothloss._engine import sums

data_nodes = script("benchmarks/graph.py").data_nodes

N = sums.BLOCK  # beyond it, the CPU runs the forward kernel once for each block


def peak(f: object, *row: mx.array) -> int:
    """Bytes that a call of the compiled ``f`` allocates at most, its results included."""
    mx.eval(row)
    mx.eval(f(*row))  # type: ignore[operator]
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(f(*row))  # type: ignore[operator]
    return mx.get_peak_memory() - before


# Held to the letter in half types and under weights and masks as well.
CORE = {"l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss"}
FULL_SIZE = ("AsType", "Subtract", "Multiply", "Abs", "Select", "Negative", "Minimum", "Square")
SLACK = 0.15 * N  # the partial sums, 1/16 of the data in float32


def compiled(entry: Entry, **keywords: object) -> object:
    return mx.compile(mx.value_and_grad(call(entry, reduction="mean", **keywords)))


def count(f: object, *row: mx.array) -> collections.Counter[str]:
    """The primitives between x and y, the first of the row, and what ``f`` returns."""
    mx.eval(row)
    out = f(*row)  # type: ignore[operator]
    return data_nodes([v for _, v in tree_flatten(out)], row[:2])


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("threshold", [None, mx.array(0.5)])
def test_value_and_grad_of_a_mean_is_two_kernels_and_one_temporary(
    entry: Entry, dtype: mx.Dtype, threshold: object
) -> None:
    x, y = mx.zeros((N,), dtype), mx.ones((N,), dtype)
    row = [x, y] + ([] if threshold is None else [threshold] * len(entry.threshold_names))
    f = compiled(entry)
    found = count(f, *row)
    if entry.textbook.kernels > 2:  # of more operations than MLX fuses
        most = 2 if dtype == mx.float32 else entry.textbook.kernels + 5
        assert found["Compiled"] <= most
        return
    kept = dtype == mx.float16  # the residual, which costs less than to convert float16 again
    half = dtype in (mx.float16, mx.bfloat16)
    # A conversion that is one operation too many for the kernel is made outside of it.
    outside = found["Compiled"] - (2 + kept) + sum(found[name] for name in FULL_SIZE)
    assert outside <= (4 if half and entry.name not in CORE else 0), found
    wide = 8 if dtype == mx.float64 else 4
    assert peak(f, *row) <= N * (wide * (1 + kept + outside) + x.dtype.size) + SLACK * wide


CLOSED = [(n, a) for n in ("general_loss", "adaptive_loss") for a in BY_NAME[n].loss.closed_forms]


@pytest.mark.parametrize(("name", "alpha"), CLOSED)
def test_a_closed_form_is_as_cheap_as_the_loss_it_is(name: str, alpha: float) -> None:
    x, y = mx.zeros((N,)), mx.ones((N,))
    f = mx.compile(mx.value_and_grad(lambda x, y: BY_NAME[name].function(x, y, alpha)))
    assert count(f, x, y)["Compiled"] <= 3
    assert peak(f, x, y) <= N * 8 + SLACK * 4


@pytest.mark.parametrize("name", ["general_loss", "adaptive_loss"])
@pytest.mark.parametrize("alpha", [0.5, 1.5, -1.0, -20.0, 3.0, 20.0, 1e30, mx.array(0.5)], ids=str)
def test_any_other_alpha_is_as_cheap_in_kernels(name: str, alpha: object) -> None:
    """The most operations of all: MLX fuses them only in the order in which they stand."""
    high = BY_NAME[name].loss.thresholds[0].high
    if isinstance(alpha, float) and not 0 <= alpha <= high and name == "adaptive_loss":
        return
    x, y = mx.zeros((N,)), mx.ones((N,))
    f = mx.compile(mx.value_and_grad(lambda x, y: BY_NAME[name].function(x, y, alpha)))
    assert count(f, x, y)["Compiled"] <= 2
    assert peak(f, x, y) <= N * 8 + SLACK * 4


@pytest.mark.every(7)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("given", [("weights",), ("where",), ("weights", "where")])
def test_no_temporary_for_weights_and_masks(
    entry: Entry, reduction: str, given: tuple[str, ...]
) -> None:
    x, y, w = mx.zeros((N,)), mx.ones((N,)), mx.ones((N,))
    extra = {"weights": w, "where": w > 0}
    row = [x, y, *(extra[name] for name in given)]

    def step(x: mx.array, y: mx.array, *row: mx.array) -> object:
        keywords = dict(zip(given, row, strict=True))
        return mx.value_and_grad(call(entry, reduction=reduction, **keywords))(x, y)

    f = mx.compile(step)
    plain = compiled(entry)
    # The total weight is summed in its kernel, which writes an eighth.
    more = SLACK * 4 + N / 8 * 4
    if entry.name in CORE:
        if reduction == "sum":
            assert count(f, *row)["Compiled"] == 2
        assert peak(f, *row) <= N * 8 + more
    elif entry.textbook.kernels == 2:  # an operation more may be one too many for a kernel
        assert peak(f, *row) <= max(peak(plain, x, y), N * 8) + N * 8 * len(given) + more


def test_forward_is_one_kernel(entry: Entry) -> None:
    x, y = mx.zeros((N,)), mx.ones((N,))
    f = mx.compile(call(entry, reduction="none"))
    if entry.textbook.kernels == 2:
        assert count(f, x, y)["Compiled"] <= 1
        assert peak(f, x, y) <= N * 4 + SLACK


COUNT_KERNELS = """
import glob, os, sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
import smoothloss
loss = getattr(smoothloss, sys.argv[1])
kernels = lambda: len(glob.glob(os.environ["TMPDIR"] + "/**/*.so", recursive=True))
x, y = mx.random.normal((4096,)), mx.random.normal((4096,))
number = sys.argv[2]
step = lambda x, y, t: mx.value_and_grad(lambda x: loss(x, y, reduction="mean", **{number: t}))(x)
by_argument = mx.compile(step)
def run(threshold):
    if isinstance(threshold, float):
        mx.eval(mx.compile(lambda x, y: step(x, y, threshold))(x, y))
    mx.eval(by_argument(x, y, threshold))
for kind in (float, mx.array):
    run(kind(0.9))
    first = kernels()
    for i in range(20):
        run(kind(0.11 + 0.04 * i))
    print(first, kernels() - first)
print(*glob.glob(os.environ["TMPDIR"] + "/**/*_strided_*.so", recursive=True))
"""


def compiling(folder: Path, code: str, *arguments: str) -> str:
    """What a fresh process prints that finds no kernel in its cache."""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder), "HOME": str(folder)}
        | {"PYTHONPATH": str(Path(sys.modules["smoothloss"].__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.every(5)
@pytest.mark.every(3)
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
@pytest.mark.cpu
def test_a_new_threshold_compiles_no_new_kernel(entry: Entry, tmp_path: Path) -> None:
    found = compiling(tmp_path, COUNT_KERNELS, entry.name, entry.threshold_names[-1])
    *lines, strided = found.splitlines()
    counts = [tuple(map(int, line.split())) for line in lines]
    assert counts[0][0] > 0  # else the count would show nothing
    assert [new for _, new in counts] == [0, 0]
    assert not strided  # scalars and data alone run without strides, 3 times as fast


LEARN = """
import glob, os
import mlx.core as mx
mx.set_default_device(mx.cpu)
import smoothloss as sl
loss = sl.AdaptiveLoss(alpha=sl.Learned(1.0, high=2.0), scale=sl.Learned(1.0))
def value(parameters, x, y):
    loss.update(parameters)
    return loss(x, y)
x, y = mx.random.normal((4096,)), mx.random.normal((4096,))
step = mx.compile(mx.value_and_grad(value, argnums=(0, 1)))
mx.eval(step(loss.trainable_parameters(), x, y))
print(len(glob.glob(os.environ["TMPDIR"] + "/**/*.so", recursive=True)))
"""


@pytest.mark.cpu
def test_the_first_step_of_learned_alpha_and_scale(tmp_path: Path) -> None:
    """Each kernel is a run of the C++ compiler, half a second of silence."""
    assert 0 < int(compiling(tmp_path, LEARN)) <= 22


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_an_array_threshold_is_traced_once(entry: Entry) -> None:
    traces = []

    def step(x: mx.array, threshold: mx.array) -> mx.array:
        traces.append(threshold)
        return mx.grad(call(entry, reduction="mean"))(x, mx.zeros_like(x), threshold)

    compiled_step = mx.compile(step)
    for value in (0.1, 0.5, 2.0):
        mx.eval(compiled_step(mx.ones(10), mx.array(value)))
    assert len(traces) == 1
