"""The demo's command line: its output, and an error for every wrong input."""

from __future__ import annotations

import functools
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from smoothloss.__main__ import main
from smoothloss._demo import data, fit as fitting, report
from smoothloss._demo.fit import LOSSES, Fit, fit

Array = npt.NDArray[np.float64]
Line = tuple[float, float]


@functools.cache
def phones(loss: str) -> Fit:
    return fit(loss, data.phones())


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
    assert hub[5:] == ["2.04", "-102.62", "9.03"]
    assert lines[0].index("steps") + 5 == lines[1].index(str(phones("mse").steps)) + 3
    rest = "\n".join(lines[5:])
    assert "Converged" in rest
    assert "NOT CONVERGED" not in rest
    assert all(text in rest for text in report.THRESHOLDS.values())
    assert "Venables" in rest
    assert "Rousseeuw" in rest
    assert max(map(len, lines)) <= 100


def test_table_of_own_data_cites_nothing() -> None:
    text = report.table([phones("l1")], shipped=False)
    assert "published" not in text.lower()
    assert "Rousseeuw" not in text
    assert report.L1_NOTE not in text
    assert not any(name in text for name in report.THRESHOLDS)


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


def test_only_line_ends_end_lines() -> None:
    """Not what Unicode also calls one."""
    others = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    table = data.parse(f"a{others}b,c\r1,2\r\n2,4\n3,{others}6\n", "my.csv")
    assert table.y.tolist() == [2, 4, 6]
    assert (table.x_name, table.y_name) == ("a" + "\N{REPLACEMENT CHARACTER}" * 8 + "b", "c")


@pytest.mark.parametrize(
    "name", ["📞 calls", "电话", "$x_1$", r"\$ $\frac{", "a" * 5000, "\033[2J"]
)
def test_names_of_any_characters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.csv").write_text(f"x,{name}\n1,2\n2,3\n3,5\n", encoding="utf-8")
    assert run("--data", "my.csv", "--loss", "mse") == 0
    assert capsys.readouterr().err == ""
    assert size(tmp_path / "my.png") == (1200, 750)


def test_errors_are_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.csv"
    file.write_text(f"{'a' * 5000},b\n1,2\n{'z' * 5000},3\n", encoding="utf-8")
    assert len(refused(capsys, "--data", str(file))) < 300 + len(str(file))


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
