"""The demo against oracles in NumPy float64, published figures, and every wrong input."""

from __future__ import annotations

import functools
import itertools
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from smoothloss.__main__ import main
from smoothloss._demo import data, report
from smoothloss._demo import fit as fitting
from smoothloss._demo.fit import LOSSES, Fit, fit

Array = npt.NDArray[np.float64]
Line = tuple[float, float]

PHONES = data.phones()


def table(x: Array, y: Array) -> data.Table:
    return data.Table("x", "y", x, y)


@functools.cache
def phones(loss: str) -> Fit:
    return fit(loss, PHONES)


# Oracles. Each returns (slope, intercept).


def least_squares(x: Array, y: Array, weights: Array | float = 1.0) -> Line:
    center = x.mean()
    root = np.sqrt(weights) * np.ones_like(x)
    design = root[:, None] * np.stack([x - center, np.ones_like(x)], 1)
    slope, level = np.linalg.lstsq(design, root * y, rcond=None)[0]
    return slope, level - slope * center


def residuals(x: Array, y: Array, line: Line) -> Array:
    return y - line[0] * x - line[1]


def least_absolute(x: Array, y: Array) -> list[Line]:
    """All the best among the lines through two points, where one of the minima is."""
    lines = [
        ((y[j] - y[i]) / (x[j] - x[i]), y[i] - (y[j] - y[i]) / (x[j] - x[i]) * x[i])
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    sums = [np.abs(residuals(x, y, line)).sum() for line in lines]
    return [line for line, s in zip(lines, sums, strict=True) if s <= min(sums) * (1 + 1e-12)]


def reweighted(x: Array, y: Array, threshold: Callable[[Array], float], rounds: int) -> Line:
    """Iterated least squares with Huber's weights."""
    line = least_squares(x, y)
    for _ in range(rounds):
        r = np.abs(residuals(x, y, line))
        delta = threshold(r)
        line = least_squares(x, y, delta / np.maximum(r, delta))
    return line


def mad(r: Array) -> float:
    return float(np.median(np.abs(r))) / 0.6744897501960817


def huber(x: Array, y: Array) -> Line:
    line = reweighted(x, y, lambda r: 1.345 * mad(r), 1000)
    psi = np.clip(r := residuals(x, y, line), -1.345 * mad(r), 1.345 * mad(r))
    assert abs(psi.sum()) <= 1e-10 * np.abs(psi).sum()
    assert abs(psi @ (x - x.mean())) <= 1e-10 * np.abs(psi) @ np.abs(x - x.mean())
    return line


def smooth_l1(x: Array, y: Array) -> Line:
    """Reweighting comes near the minimum, and Newton's method to it."""
    slope, intercept = reweighted(x, y, lambda _: 1.0, 1000)
    design = np.stack([x, np.ones_like(x)], 1)
    for _ in range(20):
        r = residuals(x, y, (slope, intercept))
        inside = design[np.abs(r) < 1]
        gradient = np.clip(r, -1, 1) @ design
        step = np.linalg.solve(inside.T @ inside, gradient)
        slope, intercept = slope + step[0], intercept + step[1]
    assert np.abs(np.clip(residuals(x, y, (slope, intercept)), -1, 1) @ design).max() < 1e-9
    return slope, intercept


ORACLES: dict[str, Callable[[Array, Array], Line]] = {
    "mse": least_squares,
    "smooth_l1": smooth_l1,
    "huber": huber,
}


def outliers(seed: int, n: int = 40) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 10, n)
    y = 2 - 0.7 * x + rng.standard_t(2, n)
    y[: n // 5] += 40
    return x, y


# Fits


def test_phones_are_the_published_data() -> None:
    assert (PHONES.x_name, PHONES.y_name) == ("year", "calls")
    np.testing.assert_array_equal(PHONES.x, np.arange(50, 74))
    assert PHONES.y.sum() == pytest.approx(1199.8, abs=1e-9)
    assert PHONES.y[14:20].tolist() == [119, 124, 142, 159, 182, 212]


@pytest.mark.parametrize(
    ("loss", "slope", "intercept"), [("mse", 5.0415, -260.059), ("huber", 2.0396, -102.530)]
)
def test_phones_match_published_figures(loss: str, slope: float, intercept: float) -> None:
    assert phones(loss).converged
    assert phones(loss).slope == pytest.approx(slope, rel=2e-5)
    assert phones(loss).intercept == pytest.approx(intercept, rel=1e-5)


def test_phones_match_published_scale() -> None:
    assert phones("huber").scale == pytest.approx(9.0093, rel=1e-5)


@pytest.mark.parametrize("loss", ORACLES)
def test_phones_match_oracle(loss: str) -> None:
    line = ORACLES[loss](PHONES.x, PHONES.y)
    assert (phones(loss).slope, phones(loss).intercept) == pytest.approx(line, rel=2e-6)


def test_phones_have_many_best_lines_under_l1() -> None:
    best = least_absolute(PHONES.x, PHONES.y)
    slopes = [slope for slope, _ in best]
    found = phones("l1")
    least = np.abs(residuals(PHONES.x, PHONES.y, best[0])).sum()
    reached = np.abs(residuals(PHONES.x, PHONES.y, (found.slope, found.intercept))).sum()
    assert least == pytest.approx(844.0, rel=1e-12)
    assert reached == pytest.approx(least, rel=1e-6)
    assert min(slopes) <= found.slope <= max(slopes)
    assert f"{min(slopes):.4f} to {max(slopes):.4f}" in report.L1_NOTE


@pytest.mark.parametrize("loss", ORACLES)
@pytest.mark.parametrize("seed", range(3))
def test_outliers_match_oracle(loss: str, seed: int) -> None:
    x, y = outliers(seed)
    f = fit(loss, table(x, y))
    assert f.converged
    assert (f.slope, f.intercept) == pytest.approx(ORACLES[loss](x, y), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_outliers_reach_the_least_sum(seed: int) -> None:
    x, y = outliers(seed)
    f = fit("l1", table(x, y))
    least = np.abs(residuals(x, y, least_absolute(x, y)[0])).sum()
    assert f.converged
    assert np.abs(residuals(x, y, (f.slope, f.intercept))).sum() == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-25, 1e-3, 1e9, 1e25])
@pytest.mark.parametrize("loss", LOSSES)
def test_far_from_unit_scale(loss: str, unit: float) -> None:
    x, y = outliers(0)
    f = fit(loss, table(1e6 + 1e5 * x, unit * y))
    # At these units every residual is inside beta = 1, or every one outside.
    oracle: Callable[[Array, Array], Line] = {
        "mse": least_squares,
        "l1": lambda x, y: least_absolute(x, y)[0],
        "smooth_l1": least_squares if unit < 1 else lambda x, y: least_absolute(x, y)[0],
        "huber": huber,
    }[loss]
    slope, intercept = oracle(x, y)
    assert f.converged
    assert f.slope * 1e5 / unit == pytest.approx(slope, rel=1e-5)
    assert (f.intercept + f.slope * 1e6) / unit == pytest.approx(intercept, rel=1e-5)


def test_beta_is_in_units_of_the_data() -> None:
    """Residuals lie on both sides of beta = 1, so the answer is no other loss's."""
    x, y = outliers(0)
    f = fit("smooth_l1", table(x - 1e6, 3 + y))
    slope, intercept = smooth_l1(x, y)
    assert f.slope == pytest.approx(slope, rel=1e-5)
    assert f.intercept - f.slope * 1e6 - 3 == pytest.approx(intercept, rel=1e-4)


def test_one_outlier_of_any_size() -> None:
    x, y = outliers(0)
    y[0] = 1e9
    for loss in ("smooth_l1", "huber"):
        f = fit(loss, table(x, y))
        assert f.converged
        assert (f.slope, f.intercept) == pytest.approx(ORACLES[loss](x, y), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 5.0), (-3e-4, 1e4), (0.0, 7.0)])
def test_perfect_line(loss: str, slope: float, intercept: float) -> None:
    x = np.arange(24.0)
    f = fit(loss, table(x, intercept + slope * x))
    assert f.converged
    assert f.slope == pytest.approx(slope, rel=1e-5, abs=1e-12)
    assert f.intercept == pytest.approx(intercept, rel=1e-5)
    assert 0 <= f.scale <= 1e-5 * max(abs(slope), 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_three_points(loss: str) -> None:
    f = fit(loss, table(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 1.0])))
    assert f.converged
    assert np.isfinite([f.slope, f.intercept, f.scale]).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_are_compiled_once(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[float] = []
    objective = LOSSES[loss]

    def counting(predictions: mx.array, targets: mx.array, unit: float) -> mx.array:
        traced.append(unit)
        return objective(predictions, targets, unit)

    monkeypatch.setitem(LOSSES, loss, counting)
    assert fit(loss, PHONES).steps > 300
    assert len(traced) == 1


# Output


def test_table() -> None:
    lines = report.table([phones(loss) for loss in LOSSES], shipped=True).splitlines()
    header, mse, l1, smooth, hub = (line.split() for line in lines[:5])
    published = ["published", "slope", "intercept", "scale"]
    assert header == ["loss", "slope", "intercept", "scale", "steps", *published]
    assert mse == ["mse", "5.04148", "-260.059", str(phones("mse").steps), "5.0415", "-260.059"]
    assert l1[0] == "l1"
    assert smooth[:3] == ["smooth_l1", "1.49221", "-73.7175"]
    assert hub[0] == "huber"
    assert [hub[1][:6], hub[2][:6], hub[3][:6]] == ["2.0396", "-102.5", "9.0093"]
    assert hub[5:] == ["2.041", "-102.622", "9.03"]
    assert lines[0].index("steps") + 5 == lines[1].index(str(phones("mse").steps)) + 3
    rest = "\n".join(lines[5:])
    assert "Converged" in rest
    assert "NOT CONVERGED" not in rest
    assert "Venables" in rest
    assert "Rousseeuw" in rest
    assert max(map(len, lines)) <= 100


def test_table_of_own_data_cites_nothing() -> None:
    text = report.table([phones("l1")], shipped=False)
    assert "published" not in text.lower()
    assert "Rousseeuw" not in text
    assert report.L1_NOTE not in text


def test_table_says_what_did_not_converge() -> None:
    text = report.table([phones("mse"), Fit("l1", 1.0, 2.0, 3.0, 400, 0.25)], shipped=False)
    assert "l1 has NOT CONVERGED: in the last 100 steps the line moved by 2.5e-01" in text
    assert "Converged: mse (" in text


def run(*arguments: str) -> int:
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    return main(arguments)


def size(png: Path) -> tuple[Any, ...]:
    content = png.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND"
    assert len(content) > 10_000
    return struct.unpack(">II", content[16:24])


def test_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run() == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("loss")
    assert out.endswith("Picture: phones.png\n")
    assert size(tmp_path / "phones.png") == (1200, 750)


@pytest.mark.parametrize(
    ("header", "names"), [("", ("x", "y")), ("\ufeffcost ($), in $\n", ("cost ($)", "in $"))]
)
def test_run_on_own_data(
    header: str,
    names: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.csv").write_text(f'{header}1,2\n\n2,"4"\r\n 3 , 6.5 \n4,8e0\n', encoding="utf-8")
    own = data.read("my.csv")
    assert (own.x_name, own.y_name) == names
    assert own.x.tolist() == [1, 2, 3, 4]
    assert own.y.tolist() == [2, 4, 6.5, 8]
    assert run("--data", "my.csv", "--loss", "huber", "--loss", "mse,huber") == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["loss", "huber", "mse"]
    assert size(tmp_path / "my.png") == (1200, 750)


def test_run_says_what_did_not_converge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitting, "MAX_STEPS", 200)
    assert run("--loss", "l1", "--out", str(tmp_path / "x.png")) == 1
    out, err = capsys.readouterr()
    assert "l1 has NOT CONVERGED" in out
    assert err == "python -m smoothloss: error: not converged: l1 (in 200 steps)\n"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "example:\n  python -m smoothloss --loss" in capsys.readouterr().out


# Errors


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the error, which is one line and comes with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.startswith("python -m smoothloss: error: ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"1,2\n2,abc\n3,4\n", "my.csv, line 2, column 2 (y): found 'abc', expected a number"),
        (b"a,b\n1,2\n\nx,3\n3,4\n", "my.csv, line 4, column 1 (a): found 'x', expected a number"),
        (b"1,calls\n2,3\n4,5\n5,6", "line 1, column 2 (y): found 'calls', expected a number"),
        (b"a,b\n1,2\n2,\n3,4\n", "line 3, column 2 (b): found '', expected a number"),
        (b"1,2\n2,1_000\n3,4\n", "line 2, column 2 (y): found '1_000', expected a number"),
        (b"1,2\n2,nan\n3,4\n", "line 2, column 2 (y): found 'nan', expected a finite number"),
        (b"1,2\n-inf,1\n3,4\n", "line 2, column 1 (x): found '-inf', expected a finite number"),
        (b"1,2\n2,1e31\n3,4\n", "found '1e31', expected a finite number up to 1e+30"),
        (b"1,2\n2,3,4\n3,4\n", "line 2: 3 columns; expected 2"),
        (b"1\n2\n3\n", "line 1: 1 column; expected 2"),
        (b"1;2\n2;3\n3;4\n", "line 1: 1 column; expected 2 (x and y), separated by a comma"),
        (b"a,b\n1,2\n2,3\n", "found: 2; expected at least 3"),
        (b"1,2\n", "found: 1; expected at least 3"),
        (b"a,b\n", "found: 0; expected at least 3"),
        (b"", "found: 0; expected at least 3"),
        (b"t,b\n5,1\n5,2\n5,3\n", "column 1 (t): every value is 5; expected at least two"),
        (b"1,1e-40\n2,0\n3,0\n", "column 2 (y): the values differ by 1e-40 at most; expected"),
        (b'1,"2\n2,3\n3,4\n', "not CSV"),
        (b"1,2\n2,\xff\n", "not UTF-8 (byte 0xff at offset 6)"),
    ],
)
def test_wrong_data(
    content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.csv"
    file.write_bytes(content)
    assert expected in refused(capsys, "--data", str(file))


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.csv")
    assert f"{missing}: no such file; expected a CSV file" in refused(capsys, "--data", missing)


def test_directory_for_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    assert f"{folder}: a directory; expected a CSV file" in refused(capsys, "--data", folder)


def test_unreadable_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    inside = str(tmp_path / "file" / "my.csv")
    assert "expected a CSV file of two numeric columns" in refused(capsys, "--data", inside)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("", "a directory; expected a file"),
        ("missing/x.png", "expected an existing one. Create it first"),
        ("x.svg", "expected a name ending in .png"),
    ],
)
def test_unwritable_out(
    out: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / out)
    message = refused(capsys, "--out", path)
    assert f"--out {path}: " in message
    assert expected in message


def test_out_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "no permission" in refused(capsys, "--out", str(tmp_path / "x.png"))


def test_out_that_fails_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "picture", full)
    with pytest.raises(SystemExit) as stop:
        run("--loss", "mse", "--out", str(tmp_path / "x.png"))
    assert stop.value.code == 2
    assert "x.png: No space left on device; expected" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["foo", "", "mse,foo", "MSE"])
def test_unknown_loss(loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--loss", loss)
    assert f"{loss.split(',')[-1]!r} is no loss; expected mse, l1, smooth_l1, huber" in message


@pytest.mark.parametrize("package", ["matplotlib", "tqdm"])
def test_missing_package(
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if package == "tqdm":
        pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(capsys, "--out", str(tmp_path / "x.png"))
    assert f"{package} is missing. Install it with pip install 'smoothloss[demo]'." in message
